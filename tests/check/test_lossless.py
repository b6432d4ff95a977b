"""lossless.py on a model whose law is known: a right engine passes, a wrong one is called a bug."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.check.kept import Parting
from edgespec.check.lossless import check_greedy, first_difference, float_error_of, parting_of
from edgespec.check.sampled import check_sampling, least_certain
from edgespec.decode.engine import Engine
from edgespec.drafters.paced import Paced, Plain
from edgespec.errors import ContextError
from edgespec.pace.controller import FixedController
from edgespec.types import Draft, FloatArray, Round, SamplingParams, Step, Verdict

V = 6
PARAMS = SamplingParams(max_tokens=12)
SAMPLED = SamplingParams(temperature=1.0)
PROMPTS = [[1], [2, 3], [4, 0, 5]]


def law_after(prefix: tuple[int, ...]) -> FloatArray:
    """A fixed law per last token, no two tokens equally likely."""
    last = prefix[-1] if prefix else 0
    weights = np.array([1.0 + (i * 7 + last * 5) % 11 + 0.1 * i for i in range(V)])
    return (weights / weights.sum()).astype(np.float32)


class Guess:
    """Drafts by a law of its own, uniform over all tokens."""

    name, n_leaves = "guess", 1

    def draft(self, context, k, drawing=None):  # type: ignore[no-untyped-def]
        if drawing is None:
            return Draft(tuple(int(law_after((*context,)).argmax()) for _ in range(k)))
        rows = np.full((k, V), 1 / V, np.float32)
        return Draft(tuple(drawing.chances.pick(row) for row in rows), probs=rows)

    def observe(self, done: Round) -> None:
        """Learns nothing."""

    def close(self) -> None:
        """Holds nothing."""


class Wobbly(TableModel):
    """Adds `noise` to one logit of every row of a batch wider than one."""

    noise = 0.0

    def forward(self, tokens: Sequence[int], parents: Sequence[int] | None = None) -> FloatArray:
        logits = super().forward(tokens, parents)
        if len(tokens) > 1:
            logits[:, 2] += self.noise
        return logits


def wobbly(noise: float) -> Wobbly:
    model = Wobbly(law_after, V)
    model.noise = noise
    return model


class Only:
    """A constraint: the i-th token is of the i-th set, then the text has to end."""

    def __init__(self, *sets: set[int]) -> None:
        self.sets = sets

    def allowed(self, generated, ids):  # type: ignore[no-untyped-def]
        n = len(generated)
        return np.isin(ids, list(self.sets[n]) if n < len(self.sets) else [])


def stream(model: TableModel, drafter: Guess | None):  # type: ignore[no-untyped-def]
    """Streams by a new engine each, so that each starts from an empty cache."""

    def start(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        speculator = Paced(drafter, FixedController(3)) if drafter else Plain()
        return Engine(model, speculator).stream(prompt, params)

    return start


def test_a_right_engine_is_identical_and_ok() -> None:
    model = TableModel(law_after, V)
    greedy = check_greedy(model, stream(model, None), stream(model, Guess()), PROMPTS, PARAMS)
    assert greedy == {
        "n_prompts": 3, "n_tokens": 36, "n_identical": 3, "divergences": [], "noise": 0.0,
        "n_tested": greedy["n_tested"],
    }  # fmt: skip
    assert greedy["n_tested"] > 24
    sampling = check_sampling(model, stream(model, Guess()), [1], SAMPLED, 600, lambda n: None)
    assert sampling["kind"] == "ok"
    assert sampling["n_tested"] > sampling["n_accepted"] > 0
    assert sampling["tests"]["second"]["n_cells"] > 20


def test_a_wrong_greedy_token_is_a_bug_with_its_margin() -> None:
    model = TableModel(law_after, V)
    plain = stream(model, None)

    def wrong(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        for at, step in enumerate(plain(prompt, params)):
            tokens = tuple((t + (at == 5)) % V for t in step.verdict.tokens)
            yield Step(replace(step.verdict, tokens=tokens), step.draft)

    report = check_greedy(model, plain, wrong, [[1]], PARAMS)
    (found,) = report["divergences"]
    assert (found["prompt"], found["position"], found["kind"]) == (0, 5, "bug")
    context = [1, *(t for step in plain([1], PARAMS) for t in step.verdict.tokens)]
    law = law_after(tuple(context[:6]))
    expected = np.log(law[context[6]]) - np.log(law[(context[6] + 1) % V])
    assert found["margin"] == pytest.approx(expected, abs=1e-5)


def test_a_text_that_ends_early_is_a_bug() -> None:
    model = TableModel(law_after, V)
    short = replace(PARAMS, max_tokens=4)
    plain = stream(model, None)
    report = check_greedy(model, plain, lambda p, _: plain(p, short), [[1]], PARAMS)
    assert [one["kind"] for one in report["divergences"]] == ["bug"]


def test_what_the_widths_explain_is_a_tie() -> None:
    model = wobbly(3.0)
    assert float_error_of(model, list(range(V)) * 3) == pytest.approx(3.0, abs=1e-5)
    greedy = check_greedy(model, stream(model, None), stream(model, Guess()), PROMPTS, PARAMS)
    assert greedy["noise"] == pytest.approx(3.0, abs=1e-5)
    assert [one["kind"] for one in greedy["divergences"]] == ["tie"] * 3


def test_what_differs_of_an_exact_target_is_a_bug_even_if_widths_explain_it() -> None:
    model = wobbly(3.0)
    streams = stream(model, None), stream(model, Guess())
    greedy = check_greedy(model, *streams, PROMPTS, PARAMS, exact=True)
    assert [one["kind"] for one in greedy["divergences"]] == ["bug"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("token", [0, 1])
def test_a_wrong_law_of_either_token_is_a_bug(token: int) -> None:
    """The engine is handed a target whose law is off after the prompt, or one token later."""

    def off(prefix: tuple[int, ...]) -> FloatArray:
        law = law_after(prefix).copy()
        if len(prefix) == 1 + token:
            law[[0, 1]] = law[[1, 0]]
        return law

    model, wrong = TableModel(law_after, V), TableModel(off, V)
    report = check_sampling(model, stream(wrong, Guess()), [1], SAMPLED, 600, lambda n: None)
    assert report["kind"] == "bug"
    assert report["tests"]["second"]["p_value"] < 1e-4
    assert (report["tests"]["first"]["p_value"] < 1e-4) == (token == 0)


@pytest.mark.parametrize("n_draws", [1, 12, 60])
def test_draws_too_few_for_two_cells_are_no_test_and_as_many_as_told_are(n_draws: int) -> None:
    model = TableModel(law_after, V)

    def drawn(n: int):  # type: ignore[no-untyped-def]
        return check_sampling(model, stream(model, Guess()), [1], SAMPLED, n, lambda n: None)

    report = drawn(n_draws)
    assert report["kind"] == "untested"
    assert report["tests"]["second"]["n_cells"] == 1
    needed = report["n_draws_needed"]
    assert drawn(needed - 1)["kind"] == "untested"
    assert drawn(needed)["kind"] == "ok"


def test_a_sure_next_token_is_no_test_however_often_drawn() -> None:
    model = TableModel(lambda prefix: np.eye(V, dtype=np.float32)[prefix[-1]], V)
    report = check_sampling(model, stream(model, Guess()), [1], SAMPLED, 100, lambda n: None)
    assert (report["kind"], report["n_draws_needed"]) == ("untested", None)


def test_a_drafter_that_never_drafts_leaves_the_law_untested() -> None:
    model = TableModel(law_after, V)
    report = check_sampling(model, stream(model, None), [1], SAMPLED, 600, lambda n: None)
    assert (report["kind"], report["n_tested"]) == ("untested", 0)


def test_the_least_certain_place_is_found() -> None:
    """Sure everywhere but after token 2, where all tokens are equally likely."""

    def law(prefix: tuple[int, ...]) -> FloatArray:
        sure = np.zeros(V, np.float32)
        sure[(prefix[-1] + 1) % V] = 1
        return np.full(V, 1 / V, np.float32) if prefix[-1] == 2 else sure

    model = TableModel(law, V)
    place = least_certain(model, stream(model, None), [[4], [3]], SAMPLED)
    assert place == [4, 5, 0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("n_prompt", [5, 6, 7, 8])
def test_the_law_is_tested_where_two_more_tokens_fit(n_prompt: int) -> None:
    """The least certain place is at the end of the context, as all are equally uncertain but it."""

    def law(prefix: tuple[int, ...]) -> FloatArray:
        return np.full(V, 1 / V, np.float32) if len(prefix) >= 7 else law_after(prefix)

    model = TableModel(law, V, n_context=8)
    plain = stream(model, None)
    place = least_certain(model, plain, [[1] * n_prompt, [2]], SAMPLED)
    assert len(place) == 7
    report = check_sampling(model, stream(model, Guess()), place, SAMPLED, 600, lambda n: None)
    assert report["kind"] == "ok"


def test_a_prompt_with_room_for_one_token_is_no_place_to_sample_at() -> None:
    model = TableModel(law_after, V, n_context=8)
    with pytest.raises(ContextError, match="8 tokens.*holds 8: .* two more; .* -c 10"):
        check_sampling(model, stream(model, Guess()), [1] * 8, SAMPLED, 9, lambda n: None)
    with pytest.raises(ContextError, match="no prompt leaves room"):
        least_certain(model, stream(model, None), [[1] * 8], SAMPLED)


@pytest.mark.slow
def test_sampling_under_a_grammar_is_compared_with_the_law_under_it() -> None:
    """Tokens 1, 2 or the end, then 3 or 4, then the end: its law begins where the text does."""
    model = TableModel(law_after, V)
    only = Only({1, 2, 5}, {3, 4}, {5})
    params = replace(SAMPLED, constraint=only, stop_tokens=frozenset({5}))
    place = least_certain(model, stream(model, None), [[1], [2]], params)
    assert place in ([1], [2])
    report = check_sampling(model, stream(model, Guess()), place, params, 600, lambda n: None)
    assert report["kind"] == "ok"
    assert [report["tests"][name]["n_cells"] for name in ("first", "second")] == [3, 5]


def test_first_difference_of_shorter_texts() -> None:
    assert first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([1, 2, 3], [1, 5, 3]) == 1


def test_margin_counts_the_penalties_of_the_sampling_chain() -> None:
    model = TableModel(law_after, V)
    params = replace(PARAMS, logit_bias={3: 10.0})
    plain, other = ([Step(Verdict((token,), (), 0), Draft())] for token in (3, 4))
    found = parting_of(model, [1], plain, other, params)
    law = law_after((1,))
    margin = pytest.approx(np.log(law[3]) + 10 - np.log(law[4]), abs=1e-5)
    assert found == Parting(0, margin, False, False)
    assert found.kind(0.0) == "bug"


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("first", [(2,), (1, 2, 4), (0, 3)])
def test_answers_that_follow_a_grammar_have_the_law_it_leaves(
    first: tuple[int, ...], temperature: float
) -> None:
    model = TableModel(law_after, V)
    stop = frozenset({0})
    params = replace(
        SAMPLED, constraint=Only(set(first), {0}), stop_tokens=stop, temperature=temperature
    )
    plain, drafted = stream(model, None), stream(model, Guess())
    greedy = check_greedy(model, plain, drafted, PROMPTS, params)
    assert greedy["n_identical"] == 3
    place = least_certain(model, plain, PROMPTS, params)
    report = check_sampling(model, drafted, place, params, 300, lambda n: None)
    assert report["kind"] == ("untested" if first == (2,) or not temperature else "ok")


@pytest.mark.slow
def test_the_end_of_a_text_is_a_token_of_its_law() -> None:
    """Token 1 ends a text, so nothing follows it; an engine that went on would be wrong."""
    model, ends = TableModel(law_after, V), replace(SAMPLED, stop_tokens=frozenset({1}))
    right, wrong = stream(model, Guess()), stream(model, Guess())

    def drawn(engine):  # type: ignore[no-untyped-def]
        return check_sampling(model, engine, [1], ends, 600, lambda n: None)["kind"]

    assert drawn(right) == "ok"
    assert drawn(lambda ids, p: wrong(ids, replace(p, stop_tokens=frozenset()))) == "bug"


@pytest.mark.slow
@pytest.mark.parametrize("verification", ["block", "match", "rejection", "auto"])
def test_sampling_is_checked_by_the_rule_that_is_configured(verification: str) -> None:
    model, seen = TableModel(law_after, V), set[str]()

    def watched(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        seen.add(params.verification)
        return stream(model, Guess())(prompt, params)

    params = replace(SAMPLED, verification=verification)
    report = check_sampling(model, watched, [1], params, 600, lambda n: None)
    assert report["kind"] == "ok"
    assert seen == {report["verification"]}
    assert report["verification"] == verification.replace("auto", "rejection")


def test_the_least_certain_place_has_room_for_two_tokens() -> None:
    model = TableModel(law_after, V, n_context=6)
    place = least_certain(model, stream(model, None), [[1]], SAMPLED)
    assert len(place) < 6
    report = check_sampling(model, stream(model, Guess()), place, SAMPLED, 600, lambda n: None)
    assert report["kind"] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("token", [0, 1])
def test_one_impossible_token_is_a_bug_though_no_test_would_notice(token: int) -> None:
    """Token 0 is banned; one of 600 texts has it nevertheless."""
    model, banned = TableModel(law_after, V), replace(SAMPLED, logit_bias={0: -np.inf})

    def wrong(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        for at, step in enumerate(stream(model, Guess())(prompt, params)):
            tokens = list(step.verdict.tokens)
            if params.seed == 7 and at == 0:
                tokens[token:] = [0]
            yield Step(replace(step.verdict, tokens=tuple(tokens)), step.draft)

    report = check_sampling(model, wrong, [1], banned, 600, lambda n: None)
    assert (report["n_impossible"], report["kind"]) == (1, "bug")
    assert min(test["p_value"] for test in report["tests"].values()) > 1e-3


def test_a_token_next_to_the_last_that_top_k_keeps_is_not_impossible() -> None:
    """A batch may let them change places."""
    model, few = TableModel(law_after, V), replace(SAMPLED, top_k=2)
    nearly = replace(few, top_k=3)
    drafted = stream(model, Guess())

    def other(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        return drafted(prompt, nearly if params.seed == 7 else params)

    report = check_sampling(model, other, [1], few, 600, lambda n: None)
    assert (report["n_impossible"], report["kind"]) == (0, "ok")
