"""The public pairs by name: found, judged, formatted, translated, and losslessly greedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgespec
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.check import lossless
from edgespec.check.lossless import check_greedy
from edgespec.cli import main
from edgespec.cli.prompts import ASSISTANT, built_in
from edgespec.cli.verify import fresh
from edgespec.session.prompt import Prompt
from edgespec.store import pairs, shelf
from edgespec.text.template import ChatTemplate
from edgespec.types import Step

pytestmark = pytest.mark.real

ASKED = [{"role": "user", "content": "Hi"}]
SYSTEMS = {
    "qwen": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    "smol": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}


@pytest.fixture(scope="package")
def plain(session: edgespec.Session) -> list[tuple[Prompt, list[Step]]]:
    """Three prompts and the rounds of plain decoding that answer them."""
    stream = fresh(session, session.pair.methods.named("plain"))
    asked = [built_in(name)[0] for name in ("questions", "code", "rewriting")]
    prompts = [session.prompt(prompt.messages) for prompt in asked]
    return [(prompt, list(stream(prompt, session.params()))) for prompt in prompts]


@pytest.mark.parametrize("kind", ["auto", "fixed-3"])
def test_greedy_text_is_the_targets_own_but_for_numerical_ties(
    session: edgespec.Session,
    plain: list[tuple[Prompt, list[Step]]],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lossless, "N_NOISE_TOKENS", 8)
    monkeypatch.setattr(lossless, "WIDTHS", (4, 8))  # one of either class, for time's sake
    prompts, said = [prompt for prompt, _ in plain], [steps for _, steps in plain]
    report = check_greedy(
        session.target,
        lambda prompt, _: iter(said[prompts.index(prompt)]),
        fresh(session, session.pair.methods.named(kind)),
        prompts,
        session.params(),
    )
    print(kind, report)
    assert {one["kind"] for one in report["divergences"]} <= {"tie"}
    assert report["n_identical"] + len(report["divergences"]) == len(prompts)
    assert report["n_tokens"] > 40
    assert report["n_tested"] > (20 if kind == "fixed-3" else 0)


def test_every_prompt_for_assistants_fits_a_small_context(session: edgespec.Session) -> None:
    asked = [prompt for name in ASSISTANT for prompt in built_in(name)]
    longest = max(len(session.prompt(prompt.messages)) for prompt in asked)
    assert 200 < longest < 512


def test_the_target_reads_a_question_in_its_own_format(session: edgespec.Session) -> None:
    text = session.template.text(ASKED)
    assert text == turns(SYSTEMS["qwen"])
    answer = "".join(piece.text for piece in session.chat(ASKED, max_tokens=12))
    assert answer.startswith("Hello! How can I")


def turns(system: str) -> str:
    """What both families write."""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_drafter_has_a_format_that_renders(pair: str, home: Path) -> None:
    path = pairs.bundled(pairs.find(pair).drafter)
    tokenizer = LlamaCppTokenizer.open(path)
    system = SYSTEMS["smol" if "smol" in pair else "qwen"]
    assert ChatTemplate(tokenizer, own=True).text(ASKED) == turns(system)


def test_a_foreign_drafter_can_say_nearly_all_that_the_target_reads(
    session: edgespec.Session, pair: str
) -> None:
    translation = session.pair.translation
    if "smol" not in pair:
        assert translation is None
        return
    assert translation is not None
    assert translation.about() == (
        "39,235 of the drafter's 49,152 tokens are tokens of the target's 151,936, "
        "9,889 split into several"
    )


def test_doctor_judges_the_pair(
    pair: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That of one vocabulary by its files alone, for time's sake."""
    file = tmp_path / "doctor.json"
    quick = [] if "smol" in pair else ["--quick"]
    assert main(["doctor", "--pair", pair, "-c", "512", "--json", str(file), *quick]) == 0
    report = json.loads(file.read_text())
    print(capsys.readouterr().out)
    assert report["works"] and not report["problems"]
    assert report["overlap"]["kind"] == ("other" if "smol" in pair else "same")
    assert report["target"]["quant"].startswith("Q4_K")
    assert report["recommendation"]
    if quick:
        assert report["measured"] is None
        return
    measured = report["measured"]
    assert len(measured["verify_s"]) >= 8
    assert measured["draft_step_s"] > 0
    assert measured["trial"]["n_tested"] > 0


def test_the_files_are_found_in_the_users_folder(
    pair: str, home: Path, real_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for entry in pairs.find(pair).entries:
        held = pairs.held(entry)
        assert held is not None
        assert (held.place, held.path.parent) == (shelf.VARIABLE, real_models)
    assert main(["models", "show", pair]) == 0
    assert capsys.readouterr().out.count(f"in {shelf.VARIABLE} at {real_models}") == 2
