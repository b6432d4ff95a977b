"""Commands and turns of a conversation, with a model of 260K parameters and no terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgespec.export import lora
from edgespec.export.read.gguf import open_gguf_checkpoint
from hf_maker import write_adapter

from edgespec.cli.output import show_progress
from edgespec.cli.terminal.charts import answer_line, bars, session_chart, sparkline
from edgespec.cli.terminal.commands import COMMANDS, complete, named
from edgespec.cli.terminal.line import Plainly, is_open, kept_in, lines_of, unquoted
from edgespec.cli.terminal.loop import converse, take_turn
from edgespec.cli.terminal.plain import Silent
from edgespec.cli.terminal.talk import Leave, Talk
from edgespec.config import PER_CALL, Config, with_values
from edgespec.errors import BackendError, Cancelled, ModelFileError
from edgespec.session.opening import file_named
from edgespec.session.session import Session
from edgespec.store import tuned
from edgespec.types import Arm, Piece, Progress, Stats

CTRL_C, CTRL_C_ON_TEXT, CTRL_D = "^C", "text^C", "^D"


class Script:
    """Lines in place of a keyboard; the end is Ctrl-D."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)
        self.is_empty = True

    def read(self) -> str:
        line = self._lines.pop(0) if self._lines else CTRL_D
        if line == CTRL_D:
            raise EOFError
        if line.endswith(CTRL_C):
            self.is_empty = line == CTRL_C
            raise KeyboardInterrupt
        return line


class Said(Silent):
    """Remembers every answer."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def begin(self) -> None:
        self.texts.append("")

    def piece(self, text: str, *, drafted: bool) -> None:
        self.texts[-1] += text


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path_factory.getbasetemp() / "home"))


@pytest.fixture
def config(stories260k: Path) -> Config:
    values = {"model": str(stories260k), "ctx_size": 256, "threads": 1, "max_tokens": 6}
    return with_values(Config(), {**values, "speculative": "off"}, "test")


@pytest.fixture
def talk(config: Config) -> Iterator[Talk]:
    talk = Talk(Session(config), Said())
    yield talk
    talk.session.close()


def told(talk: Talk, capsys: pytest.CaptureFixture[str], *lines: str) -> str:
    """What is said on stderr when these lines are typed."""
    capsys.readouterr()
    script = Script(*lines)
    for _ in lines:
        take_turn(talk, script)
    return capsys.readouterr().err


def test_a_question_is_answered_and_a_quiet_line_follows(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(talk, capsys, "Tell me a story.")
    assert "tokens/s · cut at 6 tokens · target on CPU" in said
    assert talk.printer.texts[0] == talk.conversation.messages[1]["content"]
    assert len(talk.answers) == 1


def test_what_runs_where_is_said_when_it_changes(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(talk, capsys, "Hi", "And then?", "/spec on", "And then?", "And then?")
    lines = [line for line in said.split("\n") if "tokens/s" in line]
    assert ["target on CPU" in line for line in lines] == [True, False, True, False]


def test_regen_answers_the_last_question_again(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no question to answer again" in told(talk, capsys, "/regen")
    told(talk, capsys, "Hi", "/set max_tokens 3", "/regen")
    assert len(talk.conversation.messages) == 2
    first, second = talk.printer.texts
    assert first.startswith(second)
    assert len(second) < len(first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/regne", "no command /regne: did you mean /regen?"),
        ("/zzz", "no command /zzz: /help lists them"),
        ("/set temprature 1", "/set temprature: there is no such value: did you mean temperature?"),
        ("/set zzz 1", "/set zzz: there is no such value: expected speculative, draft_tokens"),
        ("/set threads 4", "/set threads: expected one of speculative, draft_tokens"),
        ("/set temperature hot", "temperature is 'hot': expected a number"),
        ("/set temperature", "/set temperature without a value: expected one"),
        ("/set top_p 3", "/set top_p is 3.0: expected over 0"),
        ("/set stop 'open", "No closing quotation: expected words"),
        ("/set json_schema {", "the schema '{' is not JSON"),
        ("/spec maybe", "/spec is 'maybe': expected one of auto, on, off"),
        ("/draft -3", "/draft: draft_tokens is '-3'"),
        ("/set grammar /no/such", "/set grammar /no/such: No such file"),
        ("/save", "/save without a file: expected /save FILE"),
        ("/save /no/dir/x", "/no/dir/x"),
        ("/load /no/such", "/no/such: No such file"),
        ("/read /no/such", "/read /no/such: No such file"),
        ("/read", "/read without a file"),
        ("/read /bin/sh", "not UTF-8 at byte"),
        ("/model /no/such.gguf", "/no/such.gguf: no such file"),
        ("/model dmeo", "no pair is called 'dmeo': did you mean demo"),
        (
            "/draft maybe",
            "/draft maybe: no such file: expected a draft model, its adapter, none, auto or a",
        ),
        ("word " * 300, "the context holds"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    talk: Talk, line: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told(talk, capsys, "Hi")
    before = (talk.session, talk.session.config, list(talk.conversation.messages))
    said = told(talk, capsys, line)
    assert said.startswith("edgespec: ")
    assert expected in said
    assert said.count("\n") == 1
    assert (talk.session, talk.session.config, talk.conversation.messages) == before
    told(talk, capsys, "And then?")
    assert len(talk.conversation.messages) == 4


def test_set_changes_sampling_from_the_next_answer_on(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(talk, capsys, "/set --temp 0.7", "/set top-k 5", '/set stop "a b" c', "/set seed 3",
                "/set n 9", "/set json_schema {}", "/set json_schema none")  # fmt: skip
    config = talk.session.config
    assert (config.temperature, config.top_k, config.stop) == (0.7, 5, ("a b", "c"))
    assert (config.seed, config.max_tokens, config.json_schema) == (3, 9, "")
    assert "[temperature is 0.7]" in said
    assert "[stop is 'a b' 'c']" in said
    told(talk, capsys, "/set seed none", "/set stop none", "/set verification block")
    assert talk.session.config.verification == "block"
    assert (talk.session.config.seed, talk.session.config.stop) == (None, ())
    listed = told(talk, capsys, "/set")
    assert [row.split()[0] for row in listed.splitlines()] == list(PER_CALL)
    assert "[speculation on;" in told(talk, capsys, "/set speculative on")
    assert talk.session.config.speculative == "on"


def test_a_conversation_is_saved_and_loaded(
    talk: Talk, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "talk.json"
    said = told(talk, capsys, "/system Be brief.", "Hi", f"/save {file}")
    assert "[saved 3 messages in" in said
    kept = list(talk.conversation.messages)
    assert json.loads(file.read_text())["messages"] == kept
    said = told(talk, capsys, "/new", "/system none", f"/load {file}")
    assert "[no system message]" in said
    assert talk.conversation.messages == kept
    assert talk.conversation.system == "Be brief."


def test_read_asks_with_a_file(
    talk: Talk, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "two words.txt"
    file.write_text("The fox.\n")
    told(talk, capsys, f"/read '{file}' Go on:", f"/read '{file}'")
    asked = [one["content"] for one in talk.conversation.messages[::2]]
    assert asked == ["Go on:\n\nThe fox.", "The fox."]
    told(talk, capsys, "/clear", f'/read "{file}" what\'s "red" here?')
    assert talk.conversation.messages[0]["content"] == 'what\'s "red" here?\n\nThe fox.'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user/repo", {"hf_repo": "user/repo"}),
        ("user/repo:m-Q8_0.gguf", {"hf_repo": "user/repo:m-Q8_0.gguf"}),
        ("https://hf.co/user/repo", {"hf_repo": "https://hf.co/user/repo"}),
        (
            "https://huggingface.co/user/repo/blob/main/m.gguf",
            {"hf_repo": "https://huggingface.co/user/repo/blob/main/m.gguf"},
        ),
        ("folder/m.gguf", {"model": "folder/m.gguf"}),
        ("demo", {"pair": "demo"}),
    ],
)
def test_a_model_is_named_as_on_the_command_line(text: str, expected: dict[str, str]) -> None:
    assert named(text, "model") == expected


def test_another_model_goes_on_with_the_conversation(
    talk: Talk, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(talk, capsys, "Hi")
    old = talk.session
    said = told(talk, capsys, f"/model {tiny}")
    assert str(tiny) in "".join(said.split())
    assert talk.session is not old
    assert talk.conversation.session is talk.session
    told(talk, capsys, "And then?")
    assert len(talk.conversation.messages) == 4
    assert talk.session.config.max_tokens == 6


def test_a_tuned_pair_is_opened_as_it_was_tuned_and_leaves_nothing_behind(
    talk: Talk, tiny: Path, stories260k: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned.save(tuned.TunedPair("mine", {"model": str(tiny), "draft_window": 64, "threads": 2}))
    assert complete("/model mi") == ["mine"]
    told(talk, capsys, "/model mine")
    config = talk.session.config
    assert (config.model, config.draft_window, config.threads) == (str(tiny), 64, 1)  # as said
    told(talk, capsys, f"/model {stories260k}")
    assert talk.session.config.draft_window == Config.draft_window
    tuned.remove("mine")


@pytest.mark.parametrize("typed", [[], ["/draft none"]])
def test_what_is_chosen_after_a_tuned_pair_stays_with_the_next_model(
    typed: list[str], talk: Talk, tiny: Path, stories260k: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned.save(tuned.TunedPair("mine", {"model": str(tiny), "drafter": "ngram"}))
    told(talk, capsys, "/model mine")
    assert talk.session.config.drafter == "ngram"
    told(talk, capsys, *typed, f"/model {stories260k}")
    assert talk.session.config.drafter == ("none" if typed else Config.drafter)
    tuned.remove("mine")


def test_a_model_that_cannot_be_opened_brings_the_old_one_back(
    talk: Talk, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF not really")
    path = talk.session.target.info().path
    said = told(talk, capsys, "Hi", f"/model {bad}", "And then?")
    assert said.count("edgespec: ") == 1
    assert talk.session.target.info().path == path
    assert len(talk.conversation.messages) == 4


def test_the_drafter_is_exchanged_and_paced(
    talk: Talk, stories260k: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(talk, capsys, f"/draft {stories260k}")
    assert "speculation is off: /spec auto uses it" in said
    told(talk, capsys, "/spec on", f"/draft {stories260k}", "/draft 2", "Hi")
    assert talk.session.pair.draft_model is not None
    assert talk.session.method.name == "fixed-2"
    assert talk.answers[-1].n_accepted > 0
    said = told(talk, capsys, "/spec off", "/draft none", "/draft", "/show", "/spec")
    assert talk.session.method.speculator.name == ""
    assert "no drafter" in said
    assert "[speculation off;" in said


def test_a_drafter_gets_its_adapter_while_the_talk_goes_on(
    talk: Talk, stories260k: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = open_gguf_checkpoint(stories260k)
    shape = base["blk.0.attn_output.weight"].floats().shape
    write_adapter(tmp_path / "peft", {"model.layers.0.self_attn.o_proj": shape}, alpha=999.0)
    mine, *_ = lora.export(tmp_path / "peft", base, tmp_path / "mine")
    told(talk, capsys, "/spec on", f"/draft {stories260k}", "/draft 4", "Hi")
    alone = talk.answers[-1]
    said = told(talk, capsys, f"/draft {mine}")
    assert "drafter with mine.gguf on CPU" in said
    config = talk.session.config
    assert (config.draft_model, config.lora_draft) == (str(stories260k), str(mine))
    told(talk, capsys, "/clear", "Hi")
    assert len(talk.conversation.messages) == 2
    assert talk.answers[-1].n_accepted < alone.n_accepted  # it was drawn at random
    mine.write_bytes(mine.read_bytes()[:-100])
    said = told(talk, capsys, f"/draft {mine}", "/draft")
    assert said.count("edgespec: ") == 1
    told(talk, capsys, f"/draft {stories260k}")
    assert talk.session.config.lora_draft == ""


def test_an_adapter_needs_a_draft_model(
    talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.onnx_adapter"
    said = told(talk, capsys, f"/draft {mine}")
    assert "mine.onnx_adapter: no such file: expected a draft model" in said
    mine.write_bytes(b"")
    said = told(talk, capsys, f"/draft {mine}")
    assert "is an adapter: expected a draft model for it first" in said
    assert talk.session.config.lora_draft == ""


def test_a_drafter_that_is_not_wanted_is_not_fetched(
    talk: Talk, stories260k: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    named = list[str]()

    def noted(file: str, repo: str, flag: str, *given: Any) -> Path | None:
        named.append(flag)
        return file_named(file, repo, flag, *given)

    monkeypatch.setattr("edgespec.session.opening.file_named", noted)
    told(talk, capsys, "/draft 2", f"/draft {stories260k}")  # speculation is off
    assert "-md" not in named
    told(talk, capsys, "/spec on")
    assert "-md" in named


def test_show_names_models_template_context_and_settings(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(talk, capsys, "/system Be brief.", "Hi", "/show")
    for expected in ("target ", "(llama, 0.29 M parameters", "of 256 tokens, 3 messages",
                     "chat template", "Be brief.", "temperature        0.0"):  # fmt: skip
        assert expected in said


def test_help_has_every_command_and_every_command_its_word(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(talk, capsys, "/?")
    assert [row.split()[0] for row in said.splitlines()[: len(COMMANDS)]] == [
        one.name for one in COMMANDS
    ]
    names = [name for one in COMMANDS for name in (one.name, *one.others)]
    assert len(names) == len(set(names))
    for wanted in (
        "/help",
        "/exit",
        "/bye",
        "/quit",
        "/clear",
        "/new",
        "/regen",
        "/system",
        "/set",
        "/show",
        "/save",
        "/load",
        "/read",
        "/model",
        "/draft",
        "/spec",
        "/stats",
    ):
        assert wanted in names  # fmt: skip


def test_stats_draws_what_was_answered(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no answers yet" in told(talk, capsys, "/stats")
    said = told(talk, capsys, "Hi", "Ho", "/stats")
    assert "2 answers, 12 tokens in" in said


def test_ctrl_c_at_the_prompt_forgets_the_line_and_twice_leaves(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "[Ctrl-C again leaves]" in told(talk, capsys, CTRL_C)
    assert "[Ctrl-C again leaves]" in told(talk, capsys, CTRL_C_ON_TEXT)  # there was a line
    told(talk, capsys, "/stats")
    assert "[Ctrl-C again leaves]" in told(talk, capsys, CTRL_C)  # a command was in between
    with pytest.raises(Leave, match="130"):
        told(talk, capsys, CTRL_C)


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    told(talk, capsys, "/set max_tokens 100")
    talk.printer = Stopping(talk, 5)
    assert "[stopped: Ctrl-C again leaves]" in told(talk, capsys, "Hi")
    assert talk.conversation.messages[1]["content"] == talk.printer.texts[-1]
    assert talk.answers[-1].n_tokens < 100
    told(talk, capsys, "/set max_tokens 4", "And then?")
    assert len(talk.conversation.messages) == 4
    talk.printer = Stopping(talk, 2)  # one more Ctrl-C, but not one after the other
    assert "[stopped: Ctrl-C again leaves]" in told(talk, capsys, "Go on.")
    talk.printer = Stopping(talk, 2, twice=True)
    with pytest.raises(Leave, match="130"):
        told(talk, capsys, "Hi")


def test_an_answer_stopped_before_its_first_word_is_forgotten(
    talk: Talk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told(talk, capsys, "Hi")

    def interrupted(*_: object) -> None:
        with talk.interruptible():
            signal.raise_signal(signal.SIGINT)
        raise Cancelled("stopped")  # as the library does once it sees the flag

    monkeypatch.setattr(talk.session.target, "extend", interrupted)
    said = told(talk, capsys, "And then?")
    assert said == "[stopped: Ctrl-C again leaves]\n"
    assert (len(talk.conversation.messages), len(talk.answers)) == (2, 1)
    talk.answer(stopped_at_once())
    assert len(talk.answers) == 1


def stopped_at_once() -> Iterator[Piece]:
    raise KeyboardInterrupt
    yield


def test_an_answer_without_a_word_is_said_to_be_empty(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(talk, capsys, "/set max_tokens 0", "Hi")
    assert "an empty answer, forgotten" in said
    assert talk.conversation.messages == []


class Stopping(Said):
    """Presses Ctrl-C after so many pieces of each answer."""

    def __init__(self, talk: Talk, n: int, *, twice: bool = False) -> None:
        super().__init__()
        self._talk, self._left, self._twice = talk, n, twice

    def piece(self, text: str, *, drafted: bool) -> None:
        super().piece(text, drafted=drafted)
        self._left -= 1
        if not self._left:
            with self._talk.interruptible():
                signal.raise_signal(signal.SIGINT)
                if self._twice:
                    signal.raise_signal(signal.SIGINT)


def test_a_library_that_fails_is_one_line(
    talk: Talk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BackendError("decoding failed:\nout of memory")

    monkeypatch.setattr(talk.session.target, "forward", fail)
    said = told(talk, capsys, "Hi")
    assert said == "edgespec: decoding failed: out of memory\n"
    monkeypatch.undo()
    told(talk, capsys, "Hi")
    assert len(talk.conversation.messages) == 2


@pytest.mark.parametrize("debug", [False, True])
def test_a_fault_is_one_line_and_the_conversation_goes_on(
    talk: Talk, debug: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("out of\nrange")

    monkeypatch.setattr(talk, "draw", fail)
    talk.debug = debug
    said = told(talk, capsys, "/stats")
    line = "edgespec: ValueError: out of range: this is a fault in EdgeSpec, --debug shows where\n"
    assert said.endswith(line)
    assert ("Traceback" in said) is debug
    assert debug or said == line
    told(talk, capsys, "Hi")
    assert len(talk.conversation.messages) == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ModelFileError("no room")])
def test_what_was_in_progress_when_a_command_ended_shows_no_longer(
    talk: Talk, stop: BaseException, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def made(_config: Config, progress: Progress, **_: object) -> None:
        progress("making the model", 0.5)
        raise stop

    monkeypatch.setattr("edgespec.session.opening.paths_of", made)
    told(talk, capsys, "/model demo")
    assert show_progress.what == ""


def test_a_conversation_without_a_model_says_how_to_open_one(
    talk: Talk, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told(talk, capsys, "Hi")

    def fail(*_: object, **__: object) -> None:
        raise ModelFileError("no memory left")

    monkeypatch.setattr("edgespec.cli.terminal.talk.Session", fail)
    hint = "no model is open: /model NAME opens one"
    assert hint in told(talk, capsys, f"/model {tiny}")
    assert hint in told(talk, capsys, "And then?")
    for line in ("/show", "/model", "/regen", "/set top_k 3", "/spec on"):
        assert told(talk, capsys, line) == f"edgespec: {hint}\n"
    assert hint not in told(talk, capsys, "/stats", "/help")
    monkeypatch.undo()
    said = told(talk, capsys, f"/model {tiny}", "And then?")
    assert hint not in said
    assert len(talk.conversation.messages) == 4


def test_names_from_files_do_not_steer_the_terminal(
    talk: Talk, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = told(talk, capsys, f"/save {tmp_path}/a\x1b[2Jb\x9bc.json")
    assert "a\u241b[2Jb\ufffdc.json" in said
    assert "\x1b" not in said


def test_names_in_quotes_are_those_within(
    talk: Talk, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told(talk, capsys, "Hi", f"/save '{tmp_path}/a b.json'", "/clear")
    assert [one.name for one in tmp_path.iterdir()] == ["a b.json"]
    told(talk, capsys, f'/LOAD "{tmp_path}/a b.json"')
    assert len(talk.conversation.messages) == 2
    assert "[no system message]" in told(talk, capsys, "/system Be brief.", '/system ""')


def test_a_schema_takes_the_place_of_a_grammar(
    talk: Talk, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.gbnf"
    file.write_text('root ::= "a"')
    told(talk, capsys, f"/set grammar {file}")
    assert talk.session.config.grammar == str(file)
    told(talk, capsys, "/set json_schema {}")
    assert (talk.session.config.grammar, talk.session.config.json_schema) == ("", "{}")


def test_a_full_context_is_noticed(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(talk, capsys, *["Tell me more of this long and never ending story, please."] * 12)
    assert "the model no longer sees the first" in " ".join(said.split())
    assert talk.conversation.n_left_out > 0


@pytest.mark.parametrize(("lines", "code"), [((), 0), (("/bye",), 0), ((CTRL_C, CTRL_C), 130)])
def test_leaving_closes_the_session(
    config: Config, lines: tuple[str, ...], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(config)
    monkeypatch.setattr("edgespec.cli.terminal.loop.lines_of", lambda *_: Script(*lines))
    assert converse(session, Silent()) == code
    with pytest.raises(Exception, match="closed"):
        session.chat([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    ("text", "opened", "meant"),
    [
        ("hello", False, "hello"),
        ('"""hello', True, '"""hello'),
        ('"""\ntwo\nlines\n"""', False, "two\nlines"),
        ('say """x\ny"""', False, 'say """x\ny"""'),
        ("one \\", True, "one \\"),
        ("one \\\ntwo", False, "one \ntwo"),
        ("C:\\\\", False, "C:\\\\"),
        ("C:\\dir\\", False, "C:\\dir\\"),
        ("see C:\\dir\\\n", False, "see C:\\dir\\\n"),
        ("\\", True, "\\"),
    ],
)
def test_a_message_of_several_lines(text: str, opened: bool, meant: str) -> None:
    assert is_open(text) is opened
    assert unquoted(text) == meant


def test_commands_and_their_words_are_completed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.txt").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / ".hidden").touch()
    (tmp_path / "folder" / "two words.txt").touch()
    assert complete("/s") == ["/system", "/set", "/show", "/save", "/spec", "/stats"]
    assert complete("/set te") == ["temperature"]
    assert complete("/spec o") == ["off", "on"] or complete("/spec o") == ["on", "off"]
    assert complete("/read ") == ["folder/", "one.txt"]
    assert complete("/model padded-f") == ["padded-f16", "padded-f16-foreign"]
    assert complete("/read one.txt x") == []
    assert complete("hello /s") == []
    assert complete("/read /no/such/") == []
    assert complete("/read folder/") == ["'folder/two words.txt'"]
    assert complete("/read 'folder/two w") == ["'folder/two words.txt'"]
    assert complete('/save "fol') == ['"folder/']


def test_history_is_for_its_owner_and_not_needed(tmp_path: Path) -> None:
    file = tmp_path / "state" / "history"
    kept_in(file).append_string("typed")
    assert file.read_text().endswith("+typed\n")
    assert file.stat().st_mode & 0o077 == 0
    assert list(kept_in(file).load_history_strings()) == ["typed"]
    (tmp_path / "no folder").touch()
    assert list(kept_in(tmp_path / "no folder" / "x").load_history_strings()) == []


def test_lines_without_a_screen_come_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.write(write, b'one\n"""two\nthree"""\nfour \\\nfive\n\nlast')
    os.close(write)
    with os.fdopen(read) as file:
        monkeypatch.setattr(sys, "stdin", file)
        lines = lines_of(complete, None)
        assert isinstance(lines, Plainly)
        assert [lines.read() for _ in range(5)] == ["one", "two\nthree", "four \nfive", "", "last"]
        with pytest.raises(EOFError):
            lines.read()


ANSWER = Stats(
    n_tokens=80, n_rounds=30, n_drafted=60, n_tested=50, n_accepted=40, decode_s=2.0,
    accepted_by_position=(30, 10), tested_by_position=(40, 10), plain_token_s=0.05,
)  # fmt: skip


def test_the_quiet_line_says_what_was_measured_and_nothing_else() -> None:
    assert answer_line(ANSWER, 200, where="target here") == (
        "40.0 tokens/s · 2.00x plain · 80% accepted · target here"
    )
    few = replace(ANSWER, n_tested=3, n_accepted=2)
    assert answer_line(few, 30) == "40.0 tokens/s · finding out what pays · 2 of 3 accepted"
    plain = Stats(n_tokens=80, decode_s=2.0, note="drafting paused: too dear", plain_token_s=0.05)
    assert answer_line(plain, 200, where="target here", cut="cut") == (
        "40.0 tokens/s · cut · target here · drafting paused: too dear"
    )


def test_a_session_is_drawn() -> None:
    chart = session_chart([ANSWER, Stats(n_tokens=20, decode_s=1.0)], 60).split("\n")
    assert chart[0] == "2 answers, 100 tokens in 3.0 s: 33.3 tokens/s, 2.00x plain where it drafted"
    assert chart[1] == "40 of 50 tested draft tokens accepted (80%), 3.33 tokens a round"
    assert chart[4] == "  1 " + "█" * 27 + "░" * 9 + "  75% of 40"
    assert chart[5] == "  2 " + "█" * 36 + " 100% of 10"
    assert chart[-1] == "tokens/s  █▅  20.0 to 40.0"


def test_a_session_says_who_drafted_and_how_much() -> None:
    arms = {"model": Arm(12, 36, 30, 20), "ngram": Arm(2000, 9, 8, 8)}
    drafted = Stats(n_tokens=20, n_drafted=45, rounds_by_length=(9, 0, 1002, 3), arms=arms)
    assert session_chart([drafted], 60).split("\n")[-3:] == [
        "rounds by tokens verified  0: 9  2: 1,002  3: 3",
        "model drafted in 12 rounds, 20 of 30 tested tokens accepted",
        "ngram drafted in 2,000 rounds, 8 of 8 tested tokens accepted",
    ]
    wide = replace(drafted, rounds_by_length=(1000,) * 17)
    assert max(map(len, session_chart([wide], 60).split("\n"))) <= 60


@pytest.mark.parametrize("width", [8, 20, 30, 31, 60])
def test_a_session_is_drawn_however_narrow(width: int) -> None:
    answers = [Stats(n_tokens=n, decode_s=1.0) for n in range(1, 61)]
    line = session_chart(answers, width).split("\n")[-1]
    assert len(line.split()[1]) == max(width - 30, 8)
    assert line.endswith("to 60.0")


def test_bars_and_sparklines_at_their_limits() -> None:
    assert bars((0,), (0,), 30) == ["  1 ░░░░░░░░   0% of 0"]
    assert bars((1200,), (1200,), 10) == ["  1 ████████ 100% of 1,200"]
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([1, 2, 4, 8]) == "▂▃▅█"
