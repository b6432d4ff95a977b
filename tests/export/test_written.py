"""A target's answers: what prompts begin with is read once, and what does not fit is said first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import hybrid_maker
import pytest
from edgespec.export.align.gather import Asked, gather, n_at_once
from edgespec.export.align.written import Alone, write
from test_align import ASKED, V, counting, demo, silent

import edgespec
from edgespec.backends.fake import TableModel
from edgespec.backends.llamacpp.shared import SharedSequence
from edgespec.backends.preview import with_vocabulary
from edgespec.errors import UsageError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of the test's own."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))


def test_a_prompt_that_does_not_fit_is_said_before_anything_is_read():
    model = TableModel(counting, V, 20)
    answers = write(Alone(model), [[3], list(range(15))], 6, {0})
    assert next(answers) == (1, None)
    assert model.length == 0


def test_what_prompts_begin_with_alike_is_read_once(monkeypatch):
    model, n_read = TableModel(counting, V, 40), []
    extend = model.extend
    monkeypatch.setattr(model, "extend", lambda ids: (n_read.append(len(ids)), extend(ids)))
    prompts = [[7, 7, 7, 7, 1], [7, 7, 7, 7, 2], [7, 7, 7, 7, 3, 3]]
    found = dict(write(Alone(model), prompts, 3, {0}))
    assert n_read == [4, 0, 1]
    assert [found[i].ids for i in range(3)] == [
        (7, 7, 7, 7, 1, 2, 3, 4), (7, 7, 7, 7, 2, 3, 4, 5), (7, 7, 7, 7, 3, 3, 4, 5, 6)
    ]  # fmt: skip


def test_texts_that_are_written_together_copy_what_they_begin_with(tmp_path: Path, monkeypatch):
    n_read, extend = [], SharedSequence.extend

    def counted(text: SharedSequence, ids: Sequence[int]) -> None:
        n_read.append(len(ids))
        extend(text, ids)

    monkeypatch.setattr(SharedSequence, "extend", counted)
    found = gather(Asked(demo("target"), ASKED, 8, 3), tmp_path / "answers", silent)
    first, *others = [written.n_prompt - 1 for _, written in found]
    assert n_read[0] == first
    assert all(n < n_alone for n, n_alone in zip(n_read[1:], others, strict=True))


def test_prompts_that_do_not_fit_are_counted_before_any_is_read(tmp_path: Path, monkeypatch):
    told = list[float]()
    long = ({"role": "user", "content": 900 * "a fox and "},)
    asked = Asked(demo("target"), (*ASKED[:2], long), 8, 2)
    found = gather(asked, tmp_path, lambda what, share: told.append(share))
    assert [messages for messages, _ in found] == list(ASKED[:2])
    assert told == [0.5, 1.0]
    monkeypatch.setattr("edgespec.export.align.gather.open_target", None)
    with pytest.raises(UsageError, match="2 of 3 prompts fit into 1024 tokens with 8 of an answer"):
        gather(asked, tmp_path / "others", silent, fewest=3)


def test_what_cannot_be_shared_reads_one_text_at_a_time(tmp_path: Path):
    with closing(with_vocabulary(demo("target"))) as side:
        assert n_at_once(side, 4) == 4
        assert n_at_once(replace(side, backend="onnx"), 4) == 1
    recurrent = hybrid_maker.make(tmp_path / "recurrent.gguf", "mamba2")
    with closing(with_vocabulary(recurrent)) as side:
        assert n_at_once(side, 4) == 1


@pytest.mark.slow
def test_a_recurrent_target_answers_too(tmp_path: Path):
    recurrent = hybrid_maker.make(tmp_path / "recurrent.gguf", "mamba2")
    found = gather(Asked(recurrent, ASKED[:2], 6, 4), tmp_path / "answers", silent)
    with edgespec.load(recurrent, speculative="off", temperature=0.0, max_tokens=6) as session:
        for messages, written in found:
            prompt = session.prompt(list(messages))
            alone = [token for step in session.steps(prompt, session.params())
                     for token in step.verdict.tokens]  # fmt: skip
            assert list(written.said) == alone
