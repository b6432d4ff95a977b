"""The command line with a trained model of 260K parameters: what is printed where, and exit codes.

Most commands run in this process through `main`; where a process, a pipe or a terminal matters
a real one is used.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from edgespec import cli
from edgespec.cli import COMMANDS, main
from edgespec.cli.export import ARTEFACTS
from edgespec.cli.output import write_json
from edgespec.cli.repeats import Repeat, compare
from edgespec.cli.verify import untested
from edgespec.errors import UsageError
from edgespec.store import pairs
from edgespec.types import Stats

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ["--raw", "-n", "24"]
STORY = "Once upon a time"


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for all tests of a run: a model file is tried out in it only once."""
    folder = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("EDGESPEC_HOME", str(folder))
    monkeypatch.setenv("COLUMNS", "100")
    return folder


@pytest.fixture
def model(stories260k: Path) -> list[str]:
    return ["-m", str(stories260k), "-c", "256", "-t", "1"]


def process(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m edgespec` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "edgespec", *words], cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*COMMANDS, *(f"export {name}" for name in ARTEFACTS)])
def test_help_fits_a_screen_and_shows_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = name.split()
    if name == "export":
        assert main([name, "--help"]) == 0
    else:
        with pytest.raises(SystemExit, match="^0$"):
            main([*words, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 100
    assert any(line.startswith(f"example: edgespec {name}") for line in lines)


def test_general_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name}" in printed for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["caht"], "no command 'caht': expected one of chat, generate"),
        (["chat", "--tmep", "1"], "--tmep.*see `edgespec chat --help`"),
        (["chat", "-p", ""], "the question is empty"),
        (["chat", "-p", "x", "-t", "-1"], "'-1': expected a whole number, 0 or more"),
        (["chat", "-p", "x", "-m", "/no/such.gguf"], "/no/such.gguf"),
        (["chat", "-p", "x", "--config", "/no/such.toml"], "/no/such.toml: No such file"),
        (["generate"], "one of the arguments -p/--prompt --prompts is required"),
        (["generate", "--prompts", "/no/such"], "/no/such: No such file"),
        (["bench", "--repeats", "0"], "--repeats is 0: expected at least 1"),
        (["bench", "-n", "0"], "--max-tokens is 0: expected at least 1"),
        (["bench", "--set", "json,poems"], "no set is called 'poems': expected some of stories"),
        (["bench", "--first", "0"], "--first is 0: expected at least 1 prompt"),
        (["verify", "--draws", "x"], "'x': expected a whole number"),
        (["models", "show"], "expected `edgespec models list`, or"),
        (["models", "show", "dmeo"], "no pair is called 'dmeo': did you mean demo"),
        (["export", "cake"], "no export is called 'cake': expected one of pad, trim"),
    ],
)
def test_bad_usage_is_one_line_and_code_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith("edgespec: ")
    assert seen.err.count("\n") == 1
    assert_found(expected, seen.err)


def assert_found(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("onnx", 2, "the package onnx is not installed: expected it"),
        ("edgespec_extra", 2, "the package edgespec_extra is not installed: expected it"),
        ("edgespec.export.cake", 1, "No module named 'edgespec.export.cake': this is a fault in"),
        ("edgespec", 1, "No module named 'edgespec': this is a fault in EdgeSpec"),
    ],
)
def test_a_missing_package_is_named_and_a_missing_module_of_ours_is_a_fault(
    name: str, code: int, expected: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def dispatch(words: list[str]) -> int:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(cli, "dispatch", dispatch)
    assert main(["models", "list"]) == code
    assert_found(expected, capsys.readouterr().err)


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "none", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not JSON"),
        ("[1]", r"'\[1\]': expected an object with \"prompt\", \"messages\", \"turns\" or"),
        ('{"text": "x"}', "'text': expected an object"),
        ('{"prompt": 7}', '"prompt" is 7: expected a text'),
        ('{"turns": []}', '"turns" is .*expected a list of texts'),
        ('{"messages": [{"role": "user"}]}', "message 0 is .*expected an object with role"),
    ],
)
def test_a_bad_prompt_line_is_named_by_file_and_line(
    tmp_path: Path, line: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "fine"}\n\n' + line + "\n", encoding="utf-8")
    assert main(["generate", "--prompts", str(file)]) == 2
    assert_found(f"^edgespec: {file}:3: .*{expected}", capsys.readouterr().err)


def test_generate_streams_text_to_stdout_and_stats_to_stderr(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for drafter in (["--speculative", "off"], ["--drafter", "ngram"]):
        assert main(["generate", "-p", STORY, *PLAIN, *model, *drafter]) == 0
        seen = capsys.readouterr()
        texts.append(seen.out)
        assert_found(r"\[24 tokens, [\d.]+ tokens/s", seen.err)
    assert texts[0] == texts[1]
    assert len(texts[0]) > 20


def test_all_kinds_of_prompt_lines_are_answered(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "prompts.jsonl", tmp_path / "run.json"
    lines = (
        {"prompt": "A"}, {"question": "B"}, {"turns": ["C", "D"]},
        {"messages": [{"role": "user", "content": "E\u2028F"}]},
    )  # fmt: skip
    file.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in lines), "utf-8")
    assert main(["generate", "--prompts", str(file), "-n", "5", *model, "--json", str(out)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.strip().split("\n")]
    assert [one["prompt"] for one in answers] == [1, 2, 3, 4]
    assert [len(one["texts"]) for one in answers] == [1, 1, 2, 1]
    (row,) = json.loads(out.read_text())["runs"]
    assert (row["n_prompts"], row["n_tokens"]) == (5, 25)


def test_raw_refuses_a_conversation(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"turns": ["C", "D"]}')
    assert main(["generate", "--raw", "--prompts", str(file), *model]) == 2
    assert_found("prompt 1: a conversation of several turns", capsys.readouterr().err)


def test_json_to_stdout_is_all_that_is_printed_there(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "-p", STORY, *PLAIN, *model, "--drafter", "ngram", "--json", "-"]
    assert main(words) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "edgespec.run/1"
    assert data["drafter"]["backend"] == "ngram"
    assert data["target"]["n_params"] > 200_000
    assert (data["runs"][0]["method"], data["params"]["max_tokens"]) == ("auto", 24)


def test_a_record_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, pipe = tmp_path / "run.json", tmp_path / "pipe"
    write_json({"n": 1}, str(file))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UsageError, match="--json .*run.json: No space left: expected a file"):
        write_json({"n": 2}, str(file))
    assert [one.read_text() for one in tmp_path.iterdir()] == ['{"n": 1}\n']
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_json({"n": 3}, str(pipe))
    assert os.read(reader, 99) == b'{"n": 3}\n'
    os.close(reader)


def test_a_json_file_that_cannot_be_written_is_named(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "-p", "a", "-n", "1", *model, "--json", "/no/dir/x"]) == 2
    assert_found("--json /no/dir/x: No such file", capsys.readouterr().err)


def test_chat_answers_one_question_from_a_pipe(
    model: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Tell me a story.\n"))
    assert main(["chat", "-n", "8", *model]) == 0
    piped = capsys.readouterr().out
    assert main(["chat", "-n", "8", *model, "-p", "Tell me a story."]) == 0
    assert capsys.readouterr().out == piped


def test_a_full_context_is_said(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--raw", "-p", STORY, *model, "-c", "64"]) == 0
    assert_found("the context is full: the answer ends here", capsys.readouterr().err)


def test_verify_reports_and_passes(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verify.json"
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "Tell me a story."}\n' * 3)
    words = ["verify", "-n", "12", "--draws", "60", "--prompts", str(asked), "--json", str(file)]
    assert main([*words, "--draft-model", model[1], *model]) == 1
    printed = capsys.readouterr().out
    assert_found("result: UNTESTED", printed)
    assert_found("60 draws give a test one cell, which tests nothing", printed)
    data = json.loads(file.read_text())
    assert list(data) == ["greedy", "sampling"]
    greedy = ["n_prompts", "n_tokens", "n_identical", "divergences", "noise", "n_tested"]
    assert list(data["greedy"]) == [*greedy, "n_skipped"]
    assert (data["greedy"]["n_prompts"], data["sampling"]["n_draws"]) == (3, 60)
    assert 0 < data["greedy"]["noise"] < 0.1
    assert data["sampling"]["n_tested"] > 0


@pytest.mark.slow
def test_verify_goes_on_where_it_was(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, kept, file = tmp_path / "asked.jsonl", tmp_path / "kept.jsonl", tmp_path / "record.json"
    asked.write_text('{"prompt": "Tell me a story."}\n{"prompt": "Tell me of a fox."}\n')
    words = ["verify", "-n", "8", "--draws", "60", "--drafter", "ngram", "--prompts", str(asked)]
    words += ["--resume", str(kept), "--json", str(file), *model]
    main(words)
    lines, record = kept.read_text().splitlines(keepends=True), json.loads(file.read_text())
    assert kinds_of(lines) == ["of", "text", "text", "place", "draws", "draws"]
    for n in (6, 5, 2):  # nothing is done twice, and what is missing is done
        kept.write_text("".join(lines[:n]))
        main(words)
        again, found = kept.read_text().splitlines(keepends=True), json.loads(file.read_text())
        assert (again[:n], kinds_of(again)) == (lines[:n], kinds_of(lines))
        for key in ("n_prompts", "n_identical", "n_tokens"):
            assert found["greedy"][key] == record["greedy"][key]
        assert found["sampling"]["n_draws"] == 60
    before = kept.read_text()
    assert main([*words, "-n", "9"]) == 2
    assert_found("a check with another sampling or length", capsys.readouterr().err)
    assert kept.read_text() == before


def kinds_of(lines: list[str]) -> list[str]:
    return [next(iter(json.loads(line))) for line in lines]


@pytest.mark.slow
def test_verify_samples_by_a_grammar_and_the_rule_that_is_configured(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--grammar", 'root ::= "yes" | "no"', "--verification", "block"]
    main(["verify", "-n", "12", "--draws", "200", "--draft-model", model[1], *words, *model])
    printed = capsys.readouterr().out
    assert_found("drafted tokens accepted by block", printed)
    assert_found("result: ok", printed)


@pytest.mark.parametrize(
    ("kind", "margin", "n_tested", "code", "said"),
    [
        ("bug", 2.5, 5, 1, "result: BUG"),
        ("bug", 2.5, 0, 1, "result: BUG"),
        ("tie", 1e-5, 5, 0, "result: ok"),
        ("tie", 1e-5, 0, 1, "greedy: no drafted token was tested"),
    ],
)
def test_verify_fails_on_a_bug_or_without_a_test_and_not_on_a_tie(
    kind: str, margin: float, n_tested: int, code: int, said: str, model: list[str],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = {"prompt": 3, "position": 7, "margin": margin, "kind": kind}
    greedy = {"n_prompts": 16, "n_tokens": 9, "n_identical": 15, "divergences": [found]}
    greedy |= {"noise": 1e-4, "n_tested": n_tested}
    monkeypatch.setattr("edgespec.cli.verify.check_greedy", lambda *_, **__: greedy)
    assert main(["verify", "--draws", "0", "--drafter", "ngram", *model]) == code
    printed = capsys.readouterr().out
    assert said in printed
    assert f"prompt 3, token 7: {kind}, the two tokens are {margin:.2g} apart" in printed


@pytest.mark.parametrize(
    ("n_tested", "needed", "said"),
    [
        (9, None, "raise --temp"),
        (9, 263_793, "raise --temp"),
        (9, 4321, "type --draws 4321"),
        (0, 70, "no drafted token"),
    ],
)
def test_verify_says_what_a_test_of_sampling_lacked(
    n_tested: int, needed: int | None, said: str
) -> None:
    sampling = {"n_draws": 60, "n_tested": n_tested, "n_draws_needed": needed, "kind": "untested"}
    (line,) = untested({"greedy": {"n_tested": 1}, "sampling": sampling})
    assert said in line


def test_verify_without_a_drafter_is_refused(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--drafter", "none", *model]) == 2
    assert_found("expected a drafter to verify", capsys.readouterr().err)


def test_bench_prints_a_table_and_one_json_line_last(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "-n", "6", "--repeats", "3", "--set", "stories", "--methods", "ngram,fixed-2"]
    assert main([*words, *model]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    data = json.loads(lines[-1])
    assert [row["method"] for row in data["runs"]] == ["plain", "ngram", "fixed-2"]
    assert {row["n_tokens"] for row in data["runs"]} == {48}
    assert len({row["outputs_sha256"] for row in data["runs"]}) == 1
    assert [one["n_outputs_differing"] for one in data["bench"]["ratios"]] == [0, 0, 0]
    plain = data["bench"]["ratios"][0]
    assert (plain["min"], plain["median"], plain["max"]) == (1.0, 1.0, 1.0)
    assert any(line.startswith("plain ") for line in lines)


def test_bench_explains_what_was_drafted(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "-n", "24", "--repeats", "1", "--set", "stories", "--first", "2"]
    words += ["--methods", "auto,fixed-2", "--explain", "--drafter", "ngram"]
    assert main([*words, *model]) == 0
    out = capsys.readouterr().out
    data = json.loads(out.strip().splitlines()[-1])
    plain, auto, fixed = data["runs"]
    assert (plain["explained"], fixed["explained"], plain["arms"]) == (None, None, {})
    known = auto["explained"]
    assert len(known["costs_s"]) == 17 and known["gain"] >= 1
    assert set(known["arms"]) <= {"ngram"}
    assert sum(fixed["rounds_by_length"]) == fixed["n_rounds"]
    assert fixed["arms"]["ngram"]["n_accepted"] == fixed["n_accepted"]
    assert all(one["said"] for one in data["bench"]["ratios"])
    assert "  costs    one token " in out and "  times plain: said " in out
    assert "  rounds by tokens verified  0:" in out


@pytest.mark.slow
def test_a_baseline_of_any_name_has_a_row_and_costs_of_its_own(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = tmp_path / "target.gguf"
    baseline.symlink_to(model[1])
    words = ["bench", "-n", "4", "--repeats", "1", "--set", "stories", "--methods", "plain"]
    assert main([*words, "--baseline", str(baseline), *model]) == 0
    data = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert [row["method"] for row in data["runs"]] == ["plain@target", "plain"]
    assert {name: len(s) for name, s in data["bench"]["costs"].items()} == {
        "plain@target": 16, "target": 16,
    }  # fmt: skip


def test_texts_over_another_bridge_are_compared_with_plain_decoding() -> None:
    """Those of the baseline are another model's, and have nothing to be compared with."""
    stats = Stats(n_tokens=2, n_rounds=2, decode_s=1.0)
    said = {"plain": (1, 2), "fixed-4@tli": (1, 3), "plain@other": (4, 5)}
    results = {name: [Repeat(stats, (tokens,))] for name, tokens in said.items()}

    def differing(name: str) -> int:
        return int(compare(name, "plain@other", results, "set")["n_outputs_differing"])

    assert [differing(name) for name in said] == [0, 1, 0]


@pytest.mark.slow
def test_json_answers_are_measured_and_recorded(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    schema = '{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}'
    words = ["bench", "-n", "40", "--repeats", "1", "--set", "stories", "--methods", "fixed-2"]
    assert main([*words, "-j", schema, *model]) == 0
    data = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert len({row["outputs_sha256"] for row in data["runs"]}) == 1
    assert (data["params"]["constraint"], data["params"]["json_schema"]) == (True, schema)
    assert data["params"]["kv_type"] == "f16"
    assert main(["generate", "-p", "Hello", "-j", schema, *model]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"ok"}
    assert main(["generate", "-p", "Hello", "-j", "{", *model]) == 2
    assert_found("the schema '{' is not JSON", capsys.readouterr().err)


def test_an_unknown_method_is_named(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--methods", "fast", *model]) == 2
    assert_found("no method is called 'fast': expected plain, auto", capsys.readouterr().err)


def test_devices_and_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["devices"]
    assert data["waiting_onnx"].startswith("spinning for 50 microseconds")
    assert data["device"]["n_cores"] >= 1
    assert main(["models", "list"]) == 0
    assert_found("(?m)^demo .*stories", capsys.readouterr().out)
    assert main(["models", "show", "padded"]) == 0
    assert_found("costs what a model of its size costs", capsys.readouterr().out)


def test_every_pair_is_listed_in_two_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "72")
    assert main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 60 < max(map(len, lines)) <= 72
    at = 2 + max(map(len, pairs.names()))
    assert [line[:at].strip() for line in lines if line[0] != " "] == pairs.names()
    assert all(line[at - 1] == " " != line[at] for line in lines)
    told = " ".join(line[at:] for line in lines)
    assert all(pairs.find(name).about in told for name in pairs.names())


def test_import_loads_the_standard_library_and_numpy_only() -> None:
    code = "import sys, edgespec; edgespec.Stats; print(*{m.split('.')[0] for m in sys.modules})"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    foreign = set(out.stdout.split()) - set(sys.stdlib_module_names) - {"numpy", "edgespec"}
    assert {name for name in foreign if not name.startswith(("_", "sitecustom"))} == set()


@pytest.mark.slow
def test_a_one_shot_command_loads_no_terminal_library(model: list[str]) -> None:
    code = (
        "import sys; from edgespec.cli import main; main(sys.argv[1:]); "
        "sys.exit(bool({'rich', 'prompt_toolkit', 'onnxruntime', 'gguf'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, "chat", "-p", "Hi", "-n", "2", *model]
    assert subprocess.run(words, cwd=ROOT, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_a_reader_who_leaves_is_no_error(model: list[str]) -> None:
    words = [sys.executable, "-m", "edgespec", "generate", "--raw", "-p", STORY, *model]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(words, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_a_missing_model_is_one_line_and_code_2_in_a_process() -> None:
    done = process("chat", "-p", "x", "-m", "/no/such.gguf")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def terminal(*words: str) -> pexpect.spawn[str]:
    """A command in a real pseudo-terminal."""
    environ = {**os.environ, "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"}
    return pexpect.spawn(
        sys.executable, ["-m", "edgespec", *words], cwd=str(ROOT), env=environ, timeout=60,
        encoding="utf-8", dimensions=(40, 120),
    )  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_with_code_130(model: list[str]) -> None:
    words = ["-n", "100000", *model, "-c", "100000"]
    child = terminal("generate", "--raw", "-p", STORY, *words)
    child.expect("time|there|was")
    child.sendintr()
    child.expect("edgespec: stopped")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
