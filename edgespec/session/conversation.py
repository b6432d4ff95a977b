"""A conversation with one session: the transcript, what of it still fits, its file.

    talk = Conversation(session, system="Answer in one sentence.")
    for piece in talk.ask("What do foxes eat?"):
        print(piece.text, end="", flush=True)

Every turn sends the whole transcript as text; target and drafter read only what their caches do
not hold. Where the model spelled its answer in other tokens than its tokenizer would, or the
template changes the text, the cache ends there and the rest is read anew: slower, never wrong.
One thread at a time; `session.cancel` may be called from any.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from weakref import ref

from edgespec.errors import ContextError, UsageError
from edgespec.files import place, why, write_whole
from edgespec.session.session import Session
from edgespec.session.turns import PieceStream
from edgespec.text.detokenizer import utf8
from edgespec.types import Piece

log = logging.getLogger("edgespec")

SCHEMA = "edgespec.conversation/1"
ROLES = ("system", "user", "assistant")
MOST_BYTES = 1 << 26  # of a file; what people type and read is far less
Turn = dict[str, str]


class Conversation:
    """Questions and answers in turn; what was said is in `messages` as soon as it is said.

    messages: {"role", "content"}, the system message first if there is one.
    n_left_out: how many of them, the oldest, the model no longer sees because its context is full;
    on_left_out is told each time that number grows, the log if it is None.
    """

    def __init__(
        self,
        session: Session,
        *,
        system: str = "",
        on_left_out: Callable[[int], None] | None = None,
    ) -> None:
        self.messages: list[Turn] = []
        self.on_left_out = on_left_out
        self.n_left_out = 0
        self._session = session
        self._answer: Callable[[], PieceStream | None] = no_answer  # dropped, it is over
        self.system = system

    @property
    def session(self) -> Session:
        """Who answers; another session reads the conversation from its beginning."""
        return self._session

    @session.setter
    def session(self, session: Session) -> None:
        self._end_answer()
        self._session, self.n_left_out = session, 0

    @property
    def system(self) -> str:
        """What the model is told to be, "" for nothing; setting it keeps what was said."""
        return "".join(turn["content"] for turn in self.messages[: self._n_system])

    @system.setter
    def system(self, text: str) -> None:
        self._end_answer()
        self.messages[: self._n_system] = [turn_of("system", text)] if text.strip() else []

    def ask(self, text: str) -> PieceStream:
        """Pieces of the answer to `text`, however far the iterator is followed.

        Question and answer enter the transcript with the answer's first word, so what was said
        before a stop stays, and a turn without a word leaves the transcript as it was. Thoughts do
        not enter it.
        Raises: UsageError, ContextError, TokenizerError, BusyError when called; Cancelled while
        streaming.
        """
        if not text.strip():
            raise UsageError("the question is empty: expected a text")
        self._end_answer()
        return self._answered([*self.messages, turn_of("user", text)])

    def again(self) -> PieceStream:
        """Pieces of another answer to the last question; as `ask`. Raises: UsageError if none."""
        self._end_answer()
        asked = list(self.messages)
        while asked and asked[-1]["role"] != "user":
            asked.pop()
        if not asked:
            raise UsageError("there is no question to answer again: expected one; ask it first")
        return self._answered(asked)

    def clear(self) -> None:
        """Forget what was said; the system message stays."""
        self._end_answer()
        del self.messages[self._n_system :]
        self.n_left_out = 0

    def save(self, path: str | Path) -> None:
        """Write the transcript as JSON, whole or not at all. Raises: UsageError, TokenizerError."""
        write_messages(place(path), self.messages)

    def load(self, path: str | Path) -> None:
        """Go on with a saved transcript, its system message included.

        Raises: UsageError for a file that is not one; the conversation is then as before.
        """
        messages = read_messages(place(path))
        self._end_answer()
        self.messages[:] = messages
        self.n_left_out = 0

    @property
    def _n_system(self) -> int:
        return int(bool(self.messages) and self.messages[0]["role"] == "system")

    def _answered(self, asked: list[Turn]) -> PieceStream:
        n_system = int(asked[0]["role"] == "system")
        first = self._first_seen(asked, n_system)
        pieces = self.session.chat([*asked[:n_system], *asked[first:]])
        self._leave_out(first - n_system)
        answer = self._spoken(asked, pieces)
        self._answer = ref(answer)
        return answer

    def _spoken(self, asked: list[Turn], pieces: Iterator[Piece]) -> PieceStream:
        said = ""
        for piece in pieces:
            said += "" if piece.is_thought else piece.text
            if said.strip():
                self.messages[:] = [*asked, turn_of("assistant", said)]
            yield piece

    def _end_answer(self) -> None:
        """No more of an answer that was left: it would be written over what comes now."""
        answer = self._answer()
        if answer is None:
            return
        try:
            answer.close()
        except ValueError as error:  # another thread is following it
            raise UsageError(
                "an answer is in progress: expected one at a time; wait, or cancel it first"
            ) from error
        self._answer = no_answer

    def _first_seen(self, asked: list[Turn], n_system: int) -> int:
        """Where in a transcript begins what the model sees, besides the system message.

        If there is no room for an answer the oldest questions and their answers leave until half
        of the context is free: what stays is then the same for many turns, and its cache with it.
        Raises: ContextError if the question alone is too long.
        """
        n_context = self.session.target.n_context
        room = min(self.session.config.max_tokens, n_context // 4)
        later = [at for at in range(n_system + 1, len(asked)) if asked[at]["role"] == "user"]
        starts = [n_system, *later]  # of questions, but for a greeting that may come first

        def n_tokens(at: int) -> int:
            return len(self.session.prompt([*asked[:n_system], *asked[at:]]))

        start = min(n_system + self.n_left_out, starts[-1])
        starts = starts[bisect_left(starts, start) :]
        if n_tokens(starts[0]) + room <= n_context:
            return starts[0]
        left = starts[1:]
        at = bisect_left(left, True, key=lambda at: n_tokens(at) <= n_context // 2)
        if at + 1 < len(left):
            return left[at]
        # Half is too little for the last answer and what is asked about it.
        if len(left) > 1 and n_tokens(left[-2]) + room <= n_context:
            return left[-2]
        check_fits(n_tokens(starts[-1]), n_context)
        return starts[-1]

    def _leave_out(self, n: int) -> None:
        grown, self.n_left_out = n > self.n_left_out, n
        if grown:
            tell = self.on_left_out or warn
            tell(n)


def no_answer() -> None:
    """In the place of a reference to the answer in progress."""


def check_fits(n_tokens: int, n_context: int) -> None:
    """Raises: ContextError for a question that leaves no room for an answer."""
    if n_tokens >= n_context:
        raise ContextError(
            f"the question takes {n_tokens} tokens, the context holds {n_context} for it, the "
            f"system message and the answer: shorten it or raise the context with "
            f"-c {n_tokens + 256}"
        )


def warn(n_left_out: int) -> None:
    """What the log says when nobody else is told."""
    log.warning(
        "the context is full: the model no longer sees the first %d messages of the conversation",
        n_left_out,
    )


def turn_of(role: str, text: str) -> Turn:
    """A message."""
    return {"role": role, "content": text}


def write_messages(path: Path, messages: Sequence[Turn]) -> None:
    """Save a conversation, whole or not at all. Raises: UsageError, TokenizerError."""
    data = {"schema": SCHEMA, "messages": list(messages)}
    try:
        checked(data)
    except ValueError as error:
        raise UsageError(f"nothing is saved: {error}: expected what can be loaded") from error
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    write_whole(path, utf8(text))


def read_messages(path: Path) -> list[Turn]:
    """The messages of a saved conversation. Raises: UsageError."""
    expected = "expected a conversation that was saved"
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {why(error)}: {expected}; name another file") from error
    try:
        if len(data) > MOST_BYTES:
            raise ValueError("it is too large")
        return checked(json.loads(data.decode("utf-8")))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, not a conversation
        raise UsageError(
            f"{path} cannot be read ({error}): {expected}; name another file"
        ) from error


def checked(data: object) -> list[Turn]:
    """The messages of a file's contents. Raises: ValueError saying what is wrong."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        found = data.get("schema") if isinstance(data, dict) else None
        raise ValueError(f"its schema is {found!r:.40}, not {SCHEMA!r}")
    messages = data.get("messages")
    if not isinstance(messages, list):
        raise ValueError("it has no list of messages")
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"message {at} is {message!r:.60}, not a role and a text")
        role = message.get("role")
        if role not in ROLES or (role == "system" and at > 0):
            raise ValueError(f"message {at} has the role {role!r:.40}")
    return [turn_of(message["role"], message["content"]) for message in messages]
