"""Several texts in one context: each gets the tokens it would get alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.llamacpp.shared import SharedModel
from edgespec.decode.engine import Engine
from edgespec.decode.round import Decoding
from edgespec.drafters.ngram import NgramDrafter
from edgespec.drafters.paced import Paced
from edgespec.errors import ContextError, ShapeError, UsageError
from edgespec.pace.controller import FixedController
from edgespec.types import SamplingParams

PROMPTS = ("Once upon a time, there was a little girl", "Tom and Tom and Tom and Tom and")
PARAMS = SamplingParams(max_tokens=60)


@pytest.fixture
def model(stories260k: Path):
    options = ModelOptions(n_context=512, n_threads=1, device="cpu")
    opened = LlamaCppModel(stories260k, options, loading="map")
    yield opened
    opened.close()


def lookup() -> Paced:
    return Paced(NgramDrafter(), FixedController(3))


def driven(shared: SharedModel, prompts: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """The ids after each prompt, one loop driving all; and how many texts each pass served."""
    machines = [
        Decoding(prompt, PARAMS, lookup(), sequence)
        for prompt, sequence in zip(prompts, shared.sequences, strict=True)
    ]
    for machine, sequence in zip(machines, shared.sequences, strict=True):
        sequence.extend(machine.context[:-1])
    served = []
    pairs = list(zip(machines, shared.sequences, strict=True))
    while asked := [(m, s, a) for m, s in pairs if (a := m.ask())]:
        rows = shared.forward([(sequence, ask.tokens) for _, sequence, ask in asked])
        for (machine, _, _), logits in zip(asked, rows, strict=True):
            machine.tell(logits, 0.001)
        served.append(len(asked))
    return [m.context[len(p) :] for m, p in zip(machines, prompts, strict=True)], served


def test_two_decodings_driven_in_turn_emit_what_each_emits_alone(model: LlamaCppModel):
    prompts = [model.tokenizer.encode(text, bos=True) for text in PROMPTS]
    alone = []
    for prompt in prompts:
        steps = Engine(model, lookup()).stream(prompt, PARAMS)
        alone.append([token for step in steps for token in step.verdict.tokens])
        model.truncate(0)
    together, served = driven(SharedModel(model, 2), prompts)
    assert together == alone  # 32 bits: no two logits are near enough for a tie
    assert served.count(2) >= 20
    assert len(served) < 2 * PARAMS.max_tokens - 20  # drafts were accepted


def test_a_text_is_cut_without_touching_the_other(model: LlamaCppModel):
    one, other = SharedModel(model, 2).sequences
    one.extend([1, 5, 9, 20])
    other.extend([1, 300, 7])
    expected = one.forward([40])[0].copy()
    one.truncate(4)
    other.truncate(1)
    other.extend([8, 8, 8])
    assert np.array_equal(one.forward([40])[0], expected)
    one.keep([])
    assert one.length == 4


def test_what_does_not_fit_is_refused_before_it_is_read(model: LlamaCppModel):
    shared = SharedModel(model, 2)
    one = shared.sequences[0]
    assert one.n_context == 256
    with pytest.raises(ContextError, match="0 . 257 tokens: expected at most the 256"):
        shared.forward([(one, [1] * 257)])
    with pytest.raises(ShapeError, match="no trees"):
        one.forward([1, 2], [-1, -1])
    with pytest.raises(UsageError, match="9 sequences: expected 1 to 8"):
        SharedModel(model, 9)
    assert one.length == 0


def test_a_part_of_a_prompt_is_read_along_without_logits(model: LlamaCppModel):
    shared = SharedModel(model, 3)
    one, other, third = shared.sequences
    one.extend([1, 5, 9])
    expected = one.forward([20, 21])[:2].copy()
    other.extend([1, 300])
    after = other.forward([7])[0].copy()
    one.truncate(3)
    other.truncate(2)
    rows = shared.forward([(one, [20, 21]), (other, [7])], [(third, [1, 5, 9, 20])])
    assert [len(row) for row in rows] == [2, 1]
    assert np.allclose(rows[0], expected, atol=1e-4)
    assert np.allclose(rows[1][0], after, atol=1e-4)
    assert np.allclose(third.forward([21])[0], expected[1], atol=1e-4)


def test_what_is_held_is_read_with_the_next_forward(model: LlamaCppModel):
    one, other = SharedModel(model, 2).sequences
    one.extend([1, 5, 9, 20])
    expected = one.forward([40])[0].copy()
    other.extend([1])
    other.hold([5, 9, 8])
    other.truncate(3)
    other.hold([20])
    assert other.length == 4
    rows = other.forward([40])
    assert rows.shape == (1, model.n_vocab) and other.length == 5
    assert np.allclose(rows[0], expected, atol=1e-4)
    other.keep([])
    other.hold([9, 9])
    other.drop_held()
    assert np.allclose(other.forward([40])[0], expected, atol=1e-4)
    assert len(other.forward([5] * 70, n_rows=1)) == 1  # more than rows of logits fit


def test_a_text_takes_over_what_another_has_read(model: LlamaCppModel):
    one, other = SharedModel(model, 2).sequences
    one.extend([1, 5, 9, 20])
    other.extend([1, 300, 7, 7, 7, 7])
    other.copy(one, 3)
    assert other.length == 3
    one.extend([40])
    expected = one.forward([41])[0].copy()
    one.truncate(1)
    assert np.allclose(other.forward([20, 40, 41])[2], expected, atol=1e-4)
    with pytest.raises(ShapeError, match="cannot copy 2 of 1 tokens"):
        other.copy(one, 2)
