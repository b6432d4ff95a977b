"""Ties and bugs told apart by doing the runs again, on tables whose logits depend on widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.check.lossless import check_greedy
from edgespec.check.replay import row_at
from edgespec.decode.engine import Engine
from edgespec.drafters.paced import Paced, Plain
from edgespec.pace.controller import FixedController
from edgespec.types import Draft, FloatArray, Round, SamplingParams, Step, Verdict

V = 6
PARAMS = SamplingParams(max_tokens=12)


def law_after(prefix: tuple[int, ...]) -> FloatArray:
    """The next higher token is sure but for 1 in e ** 2, which the one after it has."""
    logits = np.full(V, -9.0, np.float32)
    logits[[(prefix[-1] + 1) % V, (prefix[-1] + 2) % V]] = 0, -2
    law: FloatArray = np.exp(logits) / np.exp(logits).sum()
    return law


def law_of_rows(prefix: tuple[int, ...]) -> FloatArray:
    """The same, but the one after it where the last two tokens do not follow each other."""
    astray = len(prefix) > 1 and (prefix[-2] + 1) % V != prefix[-1]
    return law_after((prefix[-1] + astray,))


class Moving(TableModel):
    """In forwards of width `at` the second best logit rises by `up`, the best falls by as much."""

    at, up = 4, 0.0

    def forward(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> FloatArray:
        logits = super().forward(tokens, parents)
        if len(tokens) == self.at:
            order = np.argsort(logits, axis=1)
            rows = np.arange(len(logits))
            logits[rows, order[:, -2]] += self.up
            logits[rows, order[:, -1]] -= self.up
        return logits


class Remembering(TableModel):
    """The second best logit rises by 1.5 and the best falls, once a token came in a wide batch."""

    wide = False

    def truncate(self, n: int) -> None:
        super().truncate(n)
        self.wide = self.wide and n > 0

    def forward(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> FloatArray:
        logits = super().forward(tokens, parents)
        if self.wide:
            order = np.argsort(logits[0])[-2:]
            logits[0, order] += 1.5, -1.5
        self.wide = self.wide or len(tokens) > 1
        return logits


class Careless(TableModel):
    """Keeps the row before the one it was told to, wherever it was told two."""

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        if len(rows) == 2:
            self._tokens[-1] = self._tokens[-2]


class Chain:
    """Drafts the next higher tokens, the second one wrong."""

    name, n_leaves = "chain", 2

    def draft(self, context, k, drawing=None):  # type: ignore[no-untyped-def]
        return Draft(tuple((context[-1] + i) % V for i in (1, 5, 2)[:k]))

    def observe(self, done: Round) -> None:
        """Learns nothing."""

    def close(self) -> None:
        """Holds nothing."""


class Fork(Chain):
    """Drafts both likely tokens, the best last, and one more below it."""

    def draft(self, context, k, drawing=None):  # type: ignore[no-untyped-def]
        if k < 3:
            return Draft()
        second, best = (context[-1] + 2) % V, (context[-1] + 1) % V
        return Draft((second, best, (best + 1) % V), (-1, -1, 1))


def stream(model: TableModel, drafter: Chain | None):  # type: ignore[no-untyped-def]
    def start(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        speculator = Paced(drafter, FixedController(3)) if drafter else Plain()
        return Engine(model, speculator).stream(prompt, params)

    return start


def judged(model: TableModel, drafter: Chain, params: SamplingParams = PARAMS):  # type: ignore[no-untyped-def]
    return check_greedy(model, stream(model, None), stream(model, drafter), [[0]], params)


def kinds(report) -> list[str]:  # type: ignore[no-untyped-def]
    return [one["kind"] for one in report["divergences"]]


def moving(up: float) -> Moving:
    model = Moving(law_after, V)
    model.up = up
    return model


@pytest.mark.parametrize("drafter", [Chain(), Fork()])
def test_two_logits_that_move_by_less_than_their_margin_each_are_a_tie(drafter: Chain) -> None:
    report = judged(moving(1.2), drafter)
    assert kinds(report) == ["tie"]
    assert report["divergences"][0]["margin"] == pytest.approx(2.0)
    assert report["noise"] == pytest.approx(1.2)


@pytest.mark.parametrize("stop", [1, 2])
def test_a_stop_token_that_one_width_prefers_is_a_tie(stop: int) -> None:
    """The first token is 1 alone and 2 in a batch: either text may be the one that ends."""
    report = judged(moving(1.2), Chain(), replace(PARAMS, stop_tokens=frozenset({stop})))
    assert kinds(report) == ["tie"]


def test_a_wrong_token_nearer_than_the_noise_is_a_bug() -> None:
    model = moving(9.0)
    model.at = 5  # a width that neither run has

    def wrong(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        for step in stream(model, Chain())(prompt, params):
            *kept, last = step.verdict.tokens
            yield Step(replace(step.verdict, tokens=(*kept, (last + 1) % V)), step.draft)

    report = check_greedy(model, stream(model, None), wrong, [[0]], PARAMS)
    assert report["divergences"][0]["margin"] < report["noise"]
    assert kinds(report) == ["bug"]


def test_a_cache_filled_at_other_widths_explains_a_tie() -> None:
    assert kinds(judged(Remembering(law_after, V), Chain())) == ["tie"]


def test_a_cache_that_keeps_the_wrong_row_is_a_bug() -> None:
    """Done again it goes as wrong as before, hence the bound on how far logits can have moved."""
    report = judged(Careless(law_of_rows, V), Chain())
    assert report["noise"] == 0
    assert kinds(report) == ["bug"]


@pytest.mark.parametrize("tokens", [(2, 3), (1, 2, 3)])
def test_rounds_that_emit_what_they_did_not_draft_have_no_logits(tokens: tuple[int, ...]) -> None:
    model = TableModel(law_after, V)
    step = Step(Verdict(tokens, (0,), 1), Draft((1,)))
    assert row_at(model, [0], [step], 0) is None


def test_every_token_of_a_run_is_found_with_its_logits() -> None:
    model = TableModel(law_after, V)
    steps = list(stream(model, Fork())([0, 1, 2], PARAMS))
    text = [0, 1, 2, *(token for step in steps for token in step.verdict.tokens)]
    for at in range(12):
        row = row_at(model, [0, 1, 2], steps, at)
        assert row == pytest.approx(np.log(law_after(tuple(text[: 3 + at]))))
    assert row_at(model, [0, 1, 2], steps, 12) is None
