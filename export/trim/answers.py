"""Calibration text: raw files, conversations already answered, or answers asked for here.

What is asked is kept, a line of JSON each, as soon as it is there, so that an interrupted run goes
on where it stopped. Knows nothing of tokens; who answers is a function.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from edgespec.errors import UsageError
from edgespec.types import Progress

HELD_OUT, OF_FEW, FEW = 10, 4, 80  # of 10 pieces one is kept for measuring, of 4 below 80
PIECE = 2000  # characters of raw text that are held out or counted together
EXPECTED = 'expected {"messages": [..]}, {"answers": [..]} or [["user", ".."], ..] on each line'

Messages = Sequence[Mapping[str, Any]]
Ask = Callable[[Messages, int], str]
"""(conversation, number of the sample: 0 the likeliest answer, else one drawn) -> answer."""


@dataclass(frozen=True)
class Question:
    """A conversation to answer; each of `later` is asked after the answer before it."""

    messages: tuple[Mapping[str, Any], ...]
    later: tuple[str, ...] = ()
    sample: int = 0


@dataclass(frozen=True)
class Calibration:
    """Texts to count, and texts held out. prompts: of the latter, where they are answers."""

    texts: tuple[str, ...]
    held_out: tuple[str, ...]
    prompts: tuple[tuple[Mapping[str, Any], ...], ...] = ()


class Answers:
    """A file of answered questions that grows; a half-written last line is dropped."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises: UsageError for a file that is something else."""
        self.path = path
        self._known: dict[str, list[str]] = {}
        try:
            raw = path.read_bytes() if path.exists() else b""
            whole = raw.rfind(b"\n") + 1
            if whole < len(raw):
                with path.open("rb+") as file:
                    file.truncate(whole)
        except OSError as error:
            raise UsageError(
                f"{path}: {error.strerror}: expected a file to add answers to"
            ) from error
        for number, line in enumerate(raw[:whole].split(b"\n")[:-1], 1):
            try:
                found = json.loads(line)
                self._known[found["id"]] = [str(answer) for answer in found["answers"]]
            except (ValueError, KeyError, TypeError):
                raise UsageError(
                    f"{path}:{number}: {line[:40]!r}: expected answers of an earlier run; "
                    "move the file away or choose another -o"
                ) from None

    def get(self, key: str) -> list[str] | None:
        """The answers to the question of that key, None if it was not asked."""
        return self._known.get(key)

    def add(self, key: str, question: Question, answers: list[str]) -> None:
        """Keep them, on the disk too. Raises: UsageError if they cannot be written."""
        self._known[key] = answers
        line = {"id": key, "messages": list(question.messages), "answers": answers}
        if question.later:
            line["later"] = list(question.later)
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written ({error.strerror}): expected room for answers"
            ) from error


def key_of(question: Question, who: str) -> str:
    """Names a question to one model: asked again, it has the same key."""
    parts = [who, list(question.messages), question.later, question.sample]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def collect(
    questions: Sequence[Question],
    ask: Ask,
    store: Answers,
    who: str,
    *,
    progress: Progress | None = None,
    n_parallel: int = 1,
) -> Calibration:
    """The answers to all questions, those already in the store not asked again.

    who: the model and its settings; answers of another are not taken for its own.
    """
    keys = [key_of(question, who) for question in questions]
    open_ = [i for i, key in enumerate(keys) if store.get(key) is None]
    n_done = len(questions) - len(open_)
    show = progress or (lambda what, share: None)

    def conversation(i: int) -> list[str]:
        return list(_turns(questions[i], ask))

    for i, answers in answered_in_turn(conversation, open_, n_parallel):
        store.add(keys[i], questions[i], answers)
        n_done += 1
        show(f"answers of {who}: {n_done} of {len(questions)}", n_done / len(questions))
    found = [store.get(key) or [] for key in keys]
    return divided([(q.messages, said) for q, said in zip(questions, found, strict=True)])


def answered_in_turn(
    conversation: Callable[[int], list[str]], numbers: Sequence[int], n_parallel: int
) -> Iterator[tuple[int, list[str]]]:
    """Each number with its answers, as they come; the first error ends all.

    With more than one at a time they run on threads that nobody waits for, so that Ctrl-C does
    not last as long as the slowest server.
    """
    if n_parallel == 1:
        yield from ((i, conversation(i)) for i in numbers)
        return
    waiting: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, list[str] | Exception]] = SimpleQueue()
    for i in numbers:
        waiting.put(i)
    stopped = Event()

    def work() -> None:
        while not stopped.is_set():
            try:
                i = waiting.get_nowait()
            except Empty:
                return
            try:
                done.put((i, conversation(i)))
            except Exception as error:
                done.put((i, error))

    for _ in range(min(n_parallel, len(numbers))):
        Thread(target=work, daemon=True).start()
    try:
        for _ in numbers:
            i, answers = done.get()
            if isinstance(answers, Exception):
                raise answers
            yield i, answers
    finally:
        stopped.set()


def _turns(question: Question, ask: Ask) -> Iterator[str]:
    """The answer to each turn of a conversation, which they join."""
    messages = list(question.messages)
    answer = ask(messages, question.sample)
    yield answer
    for later in question.later:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": later}]
        answer = ask(messages, question.sample)
        yield answer


def divided(answered: Sequence[tuple[Messages, Sequence[str]]]) -> Calibration:
    """Some conversations held out, but all samples of one prompt on the same side.

    Raises: UsageError if no answer has any text.
    """
    numbers: dict[str, int] = {}
    for messages, _ in answered:
        numbers.setdefault(json.dumps(list(messages), sort_keys=True), len(numbers))
    texts: list[str] = []
    held_out: list[str] = []
    prompts: dict[int, tuple[Mapping[str, Any], ...]] = {}
    for messages, answers in answered:
        number = numbers[json.dumps(list(messages), sort_keys=True)]
        if is_held_out(number, len(numbers)):
            held_out += answers
            prompts[number] = tuple(messages)
        else:
            texts += answers
    return checked(texts, held_out, tuple(prompts.values()))


def checked(
    texts: Sequence[str],
    held_out: Sequence[str],
    prompts: tuple[tuple[Mapping[str, Any], ...], ...] = (),
) -> Calibration:
    """What there is to count. Raises: UsageError if it is nothing."""
    if not any(text.strip() for text in texts):
        raise UsageError(
            "the calibration text is empty: expected some; give more --text or --prompts"
        )
    return Calibration(tuple(texts), tuple(held_out), prompts)


def read_texts(paths: Sequence[Path]) -> Calibration:
    """Raw text files, in pieces of about 2000 characters of which some are held out.

    Raises: UsageError naming a file that cannot be read, or if there is no text.
    """
    pieces: list[str] = []
    for path in paths:
        text = _text(path)
        at = 0
        while at < len(text):
            end = text.find("\n", at + PIECE) + 1 or len(text)
            pieces.append(text[at:end])
            at = end
    parts: tuple[list[str], list[str]] = ([], [])
    for number, piece in enumerate(pieces):
        parts[is_held_out(number, len(pieces))].append(piece)
    return checked(*parts)


def is_held_out(number: int, n: int) -> bool:
    """Whether piece `number` of n is kept for measuring."""
    step = OF_FEW if n < FEW else HELD_OUT
    return number % step == step - 1


def read_answers(path: Path) -> Calibration:
    """Conversations answered elsewhere: what the assistant says in them is counted.

    Raises: UsageError naming file and line.
    """
    answered = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            try:
                answered.append(_answered(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise UsageError(f"{path}:{number}: {line[:40]!r}: {EXPECTED}") from None
    return divided(answered)


def _answered(data: Any) -> tuple[Messages, list[str]]:
    """Messages before the first answer, and all answers, of one line."""
    if isinstance(data, list):
        data = {"messages": [{"role": role, "content": content} for role, content in data]}
    messages = data["messages"]
    roles = [message["role"] for message in messages]
    first = roles.index("assistant") if "assistant" in roles else len(roles)
    if "answers" in data:
        return messages, [str(answer) for answer in data["answers"]]
    said = [str(message["content"]) for message in messages if message["role"] == "assistant"]
    return messages[:first], said


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}: expected a text file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}: expected text") from error
