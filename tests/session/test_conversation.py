"""conversation.py: the transcript whatever ends an answer, a full context, files, the caches."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec import files, load
from edgespec.errors import Cancelled, ContextError, EdgeSpecError, UsageError
from edgespec.session import conversation
from edgespec.session.conversation import SCHEMA, Conversation
from edgespec.session.session import Session
from edgespec.types import Piece

Script = Sequence[str | BaseException]


class Stub:
    """A session whose context counts characters, and one more a message; it says what it is told.

    asked: the messages of every call.
    """

    def __init__(self, *script: Script, n_context: int = 1000, max_tokens: int = 20) -> None:
        self.target = SimpleNamespace(n_context=n_context)
        self.config = SimpleNamespace(max_tokens=max_tokens)
        self.asked: list[list[dict[str, str]]] = []
        self._script = list(script)

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        return [0] * sum(1 + len(one["content"]) for one in messages)

    def chat(self, messages: Sequence[dict[str, str]]) -> Iterator[Piece]:
        self.asked.append(list(messages))
        return self._say(self._script.pop(0) if self._script else ["Yes", "."])

    def _say(self, script: Script) -> Iterator[Piece]:
        for one in script:
            if isinstance(one, BaseException):
                raise one
            yield Piece(one, 0, False)


def talk_with(stub: Stub, **options: Any) -> Conversation:
    return Conversation(stub, **options)  # type: ignore[arg-type]


def follow(pieces: Iterator[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def lines(talk: Conversation) -> list[str]:
    return [f"{one['role']}: {one['content']}" for one in talk.messages]


def test_turns_follow_each_other_and_every_one_is_sent() -> None:
    stub = Stub(["He", "llo."], ["Because", "."])
    talk = talk_with(stub, system="Be brief.")
    assert (follow(talk.ask("Hi")), follow(talk.ask("Why?"))) == ("Hello.", "Because.")
    assert lines(talk) == [
        "system: Be brief.", "user: Hi", "assistant: Hello.", "user: Why?", "assistant: Because.",
    ]  # fmt: skip
    assert stub.asked[1] == talk.messages[:4]


@pytest.mark.parametrize("stopped", [Cancelled("stopped"), KeyboardInterrupt()])
def test_what_was_said_before_a_stop_is_kept(stopped: BaseException) -> None:
    talk = talk_with(Stub(["On", "ce", stopped]))
    with pytest.raises(type(stopped)):
        follow(talk.ask("Hi"))
    assert lines(talk) == ["user: Hi", "assistant: Once"]


def test_an_iterator_that_is_closed_or_left_keeps_what_was_said() -> None:
    talk = talk_with(Stub(["On", "ce", " more"], ["An", "other"]))
    pieces = talk.ask("Hi")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert lines(talk) == ["user: Hi", "assistant: On"]
    left = talk.ask("And?")
    next(left)
    assert lines(talk)[2:] == ["user: And?", "assistant: An"]
    follow(talk.ask("What?"))
    assert list(left) == []
    assert lines(talk)[2:] == [
        "user: And?", "assistant: An", "user: What?", "assistant: Yes.",
    ]  # fmt: skip


@pytest.mark.parametrize("script", [[], [" ", "\n"], [Cancelled("stopped")], [" ", MemoryError()]])
def test_a_turn_without_a_word_is_forgotten(script: Script) -> None:
    talk = talk_with(Stub(["Hello."], script, script))
    follow(talk.ask("Hi"))
    before = lines(talk)
    for turn in (lambda: talk.ask("Why?"), talk.again):
        with suppress(Cancelled, MemoryError):
            follow(turn())
        assert lines(talk) == before


def test_a_leading_space_waits_for_a_word_and_stays_with_it() -> None:
    talk = talk_with(Stub([" ", "Hello."]))
    pieces = talk.ask("Hi")
    assert next(pieces).text == " "
    assert lines(talk) == []
    follow(pieces)
    assert lines(talk) == ["user: Hi", "assistant:  Hello."]


def test_again_answers_the_last_question_anew_also_after_a_stop() -> None:
    stub = Stub(["Hello."], ["So", Cancelled("stopped")], ["Because."], ["Therefore."])
    talk = talk_with(stub)
    follow(talk.ask("Hi"))
    with pytest.raises(Cancelled):
        follow(talk.ask("Why?"))
    assert follow(talk.again()) == "Because."
    assert follow(talk.again()) == "Therefore."
    assert lines(talk) == ["user: Hi", "assistant: Hello.", "user: Why?", "assistant: Therefore."]
    assert stub.asked[1] == stub.asked[2] == stub.asked[3] == talk.messages[:3]


def test_again_answers_a_question_that_has_no_answer_yet() -> None:
    stub = Stub()
    talk = talk_with(stub)
    talk.messages[:] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]
    follow(talk.again())
    assert lines(talk)[2:] == ["user: Why?", "assistant: Yes."]
    assert stub.asked == [talk.messages[:3]]


def test_again_without_a_question_says_so() -> None:
    talk = talk_with(Stub(), system="Be brief.")
    with pytest.raises(UsageError, match="no question to answer again: expected one; ask it"):
        talk.again()
    with pytest.raises(UsageError, match="the question is empty: expected a text"):
        talk.ask(" \n")
    assert lines(talk) == ["system: Be brief."]


def test_the_system_message_can_be_replaced_and_survives_clearing() -> None:
    talk = talk_with(Stub())
    assert talk.system == ""
    follow(talk.ask("Hi"))
    talk.system = "Be brief."
    talk.system = "Be long."
    assert (talk.system, len(talk.messages)) == ("Be long.", 3)
    talk.clear()
    assert lines(talk) == ["system: Be long."]
    talk.system = " "
    assert (talk.system, lines(talk)) == ("", [])


def test_a_cleared_conversation_is_not_written_over_by_the_answer_that_was_left() -> None:
    talk = talk_with(Stub(["Hel", "lo."]))
    pieces = talk.ask("Hi")
    next(pieces)
    talk.clear()
    assert list(pieces) == []
    assert lines(talk) == []


def test_a_question_while_another_thread_reads_an_answer_is_refused() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(script: Script) -> Iterator[Piece]:
        inside.set()
        go_on.wait(5)
        yield Piece("Yes.", 0, False)

    stub = Stub()
    stub._say = slow  # type: ignore[method-assign]
    talk = talk_with(stub)
    reader = threading.Thread(target=follow, args=(talk.ask("Hi"),))
    reader.start()
    assert inside.wait(5)
    with pytest.raises(UsageError, match="an answer is in progress: expected one at a time"):
        talk.ask("Why?")
    go_on.set()
    reader.join()
    assert lines(talk) == ["user: Hi", "assistant: Yes."]


def test_a_full_context_loses_its_oldest_turns_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every turn takes 3 + 5, the system message 6; 60 hold 5 turns and room for an answer."""
    told: list[int] = []
    stub = Stub(n_context=60, max_tokens=14)
    talk = talk_with(stub, system="Brief", on_left_out=told.append)
    left_out = []
    for at in range(12):
        follow(talk.ask(f"q{at:x}"))
        left_out.append(talk.n_left_out)
        assert stub.asked[-1] == [talk.messages[0], *talk.messages[1 + talk.n_left_out : -1]]
    assert left_out == [0, 0, 0, 0, 0, 6, 6, 6, 12, 12, 12, 18]
    assert told == [6, 12, 18]
    assert len(talk.messages) == 25
    assert not caplog.records
    talk.on_left_out = None
    for _ in range(3):
        follow(talk.ask("qq"))
    assert "no longer sees the first 24 messages of the conversation" in caplog.text
    talk.clear()
    follow(talk.ask("Hi"))
    assert (talk.n_left_out, len(stub.asked[-1])) == (0, 2)


def test_the_last_answer_stays_if_it_fits_at_all() -> None:
    stub = Stub(["a" * 10], ["b" * 40], n_context=100, max_tokens=30)
    talk = talk_with(stub)
    follow(talk.ask("c" * 20))
    follow(talk.ask("d" * 10))
    follow(talk.ask("e" * 10))  # with the last turn 63 are used, more than half
    assert (talk.n_left_out, len(stub.asked[-1])) == (2, 3)
    follow(talk.ask("f" * 75))  # which leaves no room for anything else
    assert (talk.n_left_out, len(stub.asked[-1])) == (6, 1)


def test_a_question_longer_than_the_context_changes_nothing() -> None:
    told: list[int] = []
    talk = talk_with(Stub(n_context=60), system="Brief", on_left_out=told.append)
    follow(talk.ask("Hi"))
    before = lines(talk)
    with pytest.raises(
        ContextError, match="question takes 67 tokens, the context holds 60 .* with -c 323"
    ):
        talk.ask("x" * 60)
    assert (lines(talk), talk.n_left_out, told) == (before, 0, [])


def test_another_session_reads_from_the_beginning() -> None:
    talk = talk_with(Stub(n_context=40))
    for _ in range(4):
        follow(talk.ask("question"))
    assert talk.n_left_out > 0
    larger = Stub()
    talk.session = larger  # type: ignore[assignment]
    follow(talk.ask("More?"))
    assert (talk.n_left_out, larger.asked[0]) == (0, talk.messages[:-1])


def test_an_answer_before_any_question_is_seen_until_there_is_no_room() -> None:
    stub = Stub(n_context=40)
    talk = talk_with(stub)
    talk.messages.append({"role": "assistant", "content": "Welcome."})
    follow(talk.ask("Hi"))
    assert (talk.n_left_out, len(stub.asked[0])) == (0, 2)
    for _ in range(3):
        follow(talk.ask("Hi"))
    assert talk.n_left_out == 3


@given(
    st.integers(20, 120),
    st.integers(1, 60),
    st.text("s", max_size=12),
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=14),
)
def test_whatever_is_asked_the_model_sees_an_end_of_the_transcript_that_fits(
    n_context: int, max_tokens: int, system: str, turns: list[tuple[int, int]]
) -> None:
    told: list[int] = []
    script = [["a" * n_answer] for _, n_answer in turns]
    stub = Stub(*script, n_context=n_context, max_tokens=max_tokens)
    talk = talk_with(stub, system=system, on_left_out=told.append)
    n_system, room = len(talk.messages), min(max_tokens, n_context // 4)
    for n_question, _ in turns:
        before, left_before, n_told = list(talk.messages), talk.n_left_out, len(told)
        asked = [*before, {"role": "user", "content": "q" * n_question}]
        whole = [*asked[:n_system], *asked[n_system + left_before :]]
        try:
            follow(talk.ask("q" * n_question))
        except ContextError:
            alone = [*asked[:n_system], asked[-1]]
            assert len(stub.prompt(alone)) >= n_context
            assert (talk.messages, talk.n_left_out) == (before, left_before)
            stub._script.pop(0)
            continue
        seen = stub.asked[-1]
        assert seen == [*asked[:n_system], *asked[n_system + talk.n_left_out :]]
        assert seen[n_system]["role"] == "user"
        assert len(stub.prompt(seen)) < n_context
        if len(stub.prompt(whole)) + room <= n_context:
            assert talk.n_left_out == left_before
        assert told[n_told:] == ([talk.n_left_out] if talk.n_left_out > left_before else [])


def test_a_conversation_is_saved_and_goes_on_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "fox é.json"
    talk = talk_with(Stub(["Hé", "llo", Cancelled("stopped")]), system="Be brief.")
    with pytest.raises(Cancelled):
        follow(talk.ask("Hi 🦊"))
    talk.save(str(file))
    talk.save(file)
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert saved == {"schema": "edgespec.conversation/1", "messages": talk.messages}
    assert "🦊" in file.read_text(encoding="utf-8")
    other = talk_with(Stub(["Again."]), system="Something else.")
    other.load(file)
    assert other.messages == talk.messages
    assert follow(other.again()) == "Again."
    assert [one.name for one in tmp_path.iterdir()] == ["fox é.json"]


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    talk = talk_with(Stub())
    follow(talk.ask("Hi"))
    talk.save("~/a.json")
    talk.load("~/a.json")
    assert (tmp_path / "a.json").exists()


GOOD = {"role": "user", "content": "Hi"}
CAPITALS = json.dumps({"schema": SCHEMA, "messages": [GOOD, GOOD]})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (CAPITALS[:-9], "delimiter: line 1|Expecting|Unterminated"),
        ("", "Expecting value"),
        ("\xff", "codec can't decode"),
        ("[" * 100_000, "recursion"),
        ("[]", "its schema is None, not 'edgespec.conversation/1'"),
        ('{"schema": "edgespec.run/1"}', "its schema is 'edgespec.run/1'"),
        ({"messages": 7}, "no list of messages"),
        ({"messages": [GOOD, "Hi"]}, "message 1 is 'Hi', not a role and a text"),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, "message 0 is .*, not a role"),
        ({"messages": [GOOD, {"role": "king", "content": "x"}]}, "message 1 has the role 'king'"),
        ({"messages": [GOOD, {"role": "tool", "content": "x"}]}, "message 1 has the role 'tool'"),
        ({"messages": [GOOD, {"role": "system", "content": ""}]}, "1 has the role 'system'"),
        ({"messages": [{"role": [], "content": "x"}]}, r"message 0 has the role \[\]"),
    ],
)
def test_a_file_that_is_no_conversation_leaves_this_one_as_it_was(
    tmp_path: Path, data: str | dict[str, Any], why: str
) -> None:
    talk = talk_with(Stub(), system="Be brief.")
    follow(talk.ask("Hi"))
    before, file = list(talk.messages), tmp_path / "x.json"
    text = json.dumps({"schema": SCHEMA, **data}) if isinstance(data, dict) else data
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=why) as raised:
        talk.load(file)
    assert "expected a conversation that was saved; name another file" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert talk.messages == before


def test_a_file_that_cannot_be_read_or_is_too_large_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = talk_with(Stub())
    for name, why in (("none.json", "No such file"), ("", "directory"), ("a\0b", "null")):
        with pytest.raises(UsageError, match=why):
            talk.load(tmp_path / name)
    with pytest.raises(UsageError, match=r"~nobody-here/x: .*home"):
        talk.load("~nobody-here/x")
    monkeypatch.setattr(conversation, "MOST_BYTES", 10)
    (tmp_path / "x.json").write_text(CAPITALS)
    with pytest.raises(UsageError, match=r"cannot be read \(it is too large\)"):
        talk.load(tmp_path / "x.json")


class FullDisk:
    """A file that takes ten bytes."""

    def __init__(self, part: Path, mode: str, **_: object) -> None:
        self._file = open(part, mode)  # noqa: SIM115

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._file.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.json"
    talk = talk_with(Stub())
    follow(talk.ask("Hi"))
    talk.save(file)
    before = file.read_bytes()
    follow(talk.ask("Why?"))
    monkeypatch.setattr(files, "open", FullDisk, raising=False)
    with pytest.raises(UsageError, match="x.json: No space left on device: expected a file to"):
        talk.save(file)
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]
    assert file.read_bytes() == before


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    talk = talk_with(Stub())
    follow(talk.ask("Hi"))
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for name in ("none/x.json", "folder", "a\0b"):
        with pytest.raises(UsageError, match="expected a file to write; name another"):
            talk.save(tmp_path / name)
    assert [one.name for one in tmp_path.iterdir()] == ["folder"]
    talk.messages.append({"role": "tool", "content": "x"})
    with pytest.raises(UsageError, match="message 2 has the role 'tool'"):
        talk.save(tmp_path / "x.json")


# With real models.

QUESTIONS = ("Tell me a story about a little fox.", "Why did the fox do that?", "And then?")


@pytest.fixture(params=["demo", "demo-foreign"])
def session(request: pytest.FixtureRequest, home: None) -> Iterator[Session]:
    """A target with a drafter of its own vocabulary, and with one of another."""
    with load(
        pair=request.param, speculative="on", draft_tokens=4, threads=1, max_tokens=40,
        ctx_size=256, device="cpu",
    ) as one:  # fmt: skip
        yield one


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder for all tests of a run."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path_factory.getbasetemp() / "home"))


def recorded(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """The tokens of every extend and forward of a model from now on."""
    calls: list[tuple[str, list[int]]] = []

    def spy(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(tokens: Sequence[int], *rest: Any, **named: Any) -> Any:
            calls.append((name, list(tokens)))
            return real(tokens, *rest, **named)

        return call

    for name in ("extend", "forward"):
        monkeypatch.setattr(model, name, spy(name, getattr(model, name)))
    return calls


@pytest.mark.slow
def test_a_second_turn_reads_only_what_is_new_in_both_models(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Conversation(session)
    theirs = recorded(session.target, monkeypatch)
    ours = recorded(session.pair.draft_model, monkeypatch)
    held: list[int] = []  # what the target's cache has of the turns before
    for question in QUESTIONS:
        theirs.clear()
        ours.clear()
        follow(talk.ask(question))
        prompt = list(session.prompt(talk.messages[:-1]))
        assert prompt[: len(held)] == held
        n_new = len(prompt) - len(held)
        assert theirs[0] == ("extend", prompt[len(held) : -1])
        assert {len(tokens) for _, tokens in theirs[1:]} <= {1, 2, 3, 4, 5}
        assert session.stats.n_prompt == n_new
        spelled = prompt
        if session.pair.translation is not None:
            spelled = session.pair.translation.spelled(talk.messages[:-1])
        read = ours[0][1]  # with the first token to draft
        if session.pair.translation is not None and not held:  # which its first token did not await
            read = read[: len(spelled)]
        assert spelled[-len(read) :] == read
        # A question takes up to twice as many of its tokens; and what was refused last.
        assert len(read) <= 2 * n_new + 5
        held = prompt + session.turns.output[:-1]
    assert len(held) > 100


def test_tokens_that_the_tokenizer_would_not_choose_are_read_anew(
    home: None,
) -> None:
    """Sampled hot, a model spells words in pieces; the transcript is text and knows none of it."""
    options: dict[str, Any] = {"pair": "demo", "threads": 1, "device": "cpu", "ctx_size": 256}
    question = {"role": "user", "content": QUESTIONS[0]}
    with load(**options, speculative="on", max_tokens=30) as one:
        talk = Conversation(one)
        said = follow(one.chat([question], temperature=5.0, seed=1))
        talk.messages[:] = [question, {"role": "assistant", "content": said}]
        held = [*one.prompt([question])] + one.turns.output[:-1]
        follow(talk.ask(QUESTIONS[1]))
        prompt, output = one.prompt(talk.messages[:3]), one.turns.output
        same = next(at for at, one_id in enumerate(held) if prompt[at] != one_id)
        assert same < len(held) - 5
        assert one.stats.n_prompt == len(prompt) - same
    with load(**options, speculative="off", max_tokens=30) as plain:
        follow(plain.chat(talk.messages[:3]))
        assert plain.turns.output == output


@pytest.mark.slow
def test_many_turns_in_a_small_context(home: None) -> None:
    told: list[int] = []
    with load(
        pair="demo", speculative="on", draft_tokens=4, threads=1, max_tokens=24, ctx_size=160,
        device="cpu",
    ) as one:  # fmt: skip
        talk = Conversation(one, system="You tell stories.", on_left_out=told.append)
        n_read, reused = [], []
        for at in range(12):
            n_left = talk.n_left_out
            assert follow(talk.ask(QUESTIONS[at % 3])).strip()
            n_read.append(one.stats.n_prompt)
            reused.append(talk.n_left_out == n_left)
        assert told == sorted(set(told))
        assert talk.n_left_out == told[-1] > 10
        assert reused.count(True) >= 6
        assert max(n for n, kept in zip(n_read, reused, strict=True) if kept) < 25
        assert len(talk.messages) == 25
        with pytest.raises(ContextError, match="with -c"):
            talk.ask("Why? " * 200)
        assert follow(talk.again()).strip()


@pytest.mark.slow
def test_a_stopped_answer_of_a_real_session_is_kept_and_answered_again(session: Session) -> None:
    talk = Conversation(session)
    whole = follow(talk.ask(QUESTIONS[0]))
    said = ""
    pieces = talk.again()
    with pytest.raises(EdgeSpecError, match="stopped"):
        for piece in pieces:
            said += piece.text
            if len(said) > 20:
                session.cancel()
    assert talk.messages[-1] == {"role": "assistant", "content": said}
    assert whole.startswith(said)
    assert said != whole
    assert follow(talk.again()) == whole
    assert session.stats.n_prompt == 1
    assert len(talk.messages) == 2


def test_an_answer_that_was_dropped_keeps_nobody_waiting(session: Session) -> None:
    talk = Conversation(session)
    for _ in talk.ask("Tell me a story."):
        break
    assert not session.turns.running
    assert [message["role"] for message in talk.messages] == ["user", "assistant"]
