"""The loop keeps the target's law with every drafter: enumeration over dyadic table models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgespec.backends.fake import TableModel
from edgespec.decode import round as round_module
from edgespec.decode.engine import Engine
from edgespec.drafters.mixed import Mixed
from edgespec.drafters.model import ModelDrafter
from edgespec.drafters.ngram import NgramDrafter
from edgespec.drafters.paced import Paced, Plain
from edgespec.errors import ContextError, UsageError
from edgespec.pace.controller import FixedController
from edgespec.types import Draft, SamplingParams

# Quarters and halves: every threshold is a border of the grid's cells, so midpoints are exact.
P_ROWS = np.float32([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0], [0.75, 0.25]])
Q_ROWS = np.float32([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])


def p_table(prefix):
    return P_ROWS[(sum(prefix) + 2 * len(prefix)) % 4]


def q_table(prefix):
    return Q_ROWS[(sum(prefix) + len(prefix)) % 4]


def random_table(seed: int, n_vocab: int):
    """A law after every prefix that depends on its last three ids, so that n-grams recur."""

    def table(prefix):
        rng = np.random.default_rng([seed, *prefix[-3:]])
        return rng.dirichlet(np.full(n_vocab, 0.3)).astype(np.float32)

    return table


class TreeDrafter:
    """Every path of depth 2 over a small vocabulary, as a branching draft."""

    name, n_leaves = "tree", 16

    def __init__(self, n_vocab: int) -> None:
        self.n_vocab = n_vocab

    def draft(self, context, k, drawing=None):
        if k < 2:
            return Draft()
        v = self.n_vocab
        tokens = (*range(v), *(t for _ in range(v) for t in range(v)))
        parents = (*[-1] * v, *(parent for parent in range(v) for _ in range(v)))
        return Draft(tokens[: max(k, 2)], parents[: max(k, 2)])

    def observe(self, done):
        pass

    def close(self):
        pass


class GridNoise:
    """Hands out given uniforms in order: the first round's, then the next one's."""

    def __init__(self, values) -> None:
        self.values = list(values)

    def take(self, position, n):
        row = [self.values.pop(0) if self.values else 0.5 for _ in range(3 * n)]
        return np.array(row).reshape(n, 3)


def ids(engine: Engine, prompt, params) -> list[int]:
    return [token for step in engine.stream(prompt, params) for token in step.verdict.tokens]


@pytest.mark.parametrize(
    "rule",
    ["rejection", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("block", "match"))],
)
def test_two_tokens_have_the_targets_law_exactly(monkeypatch, rule):
    """All uniforms of the first rounds on a grid of quarters; k = 1, drafted from q."""
    grid = (np.arange(4) + 0.5) / 4
    counts = np.zeros((2, 2))
    params = SamplingParams(temperature=1.0, max_tokens=3, verification=rule)
    for first in itertools.product(grid, repeat=3):
        for bonus_or_next in itertools.product(grid, repeat=3):
            # Round 1 takes 6 values (draft, accept, pick for two rows); of row 2 only the pick
            # matters. If it emits one token, round 2 is governed by the same three values.
            values = [*first, 0.5, 0.5, bonus_or_next[2], *bonus_or_next, 0.5, 0.5, 0.5]
            monkeypatch.setattr(round_module, "uniforms_of", lambda _, v=values: GridNoise(v))
            drafter = ModelDrafter(TableModel(q_table, 2))
            engine = Engine(TableModel(p_table, 2), Paced(drafter, FixedController(1)))
            out = ids(engine, [0], params)
            counts[out[0], out[1]] += 1
    expected = np.array([[p_table((0,))[a] * p_table((0, a))[b] for b in (0, 1)] for a in (0, 1)])
    assert counts / counts.sum() == pytest.approx(expected, abs=1e-12)


def speculators(seed: int, k: int):
    """By name, each always drafting k tokens."""
    drafters = {
        "model": ModelDrafter(TableModel(random_table(seed + 50, 4), 4)),
        "same model": ModelDrafter(TableModel(random_table(seed, 4), 4)),
        "ngram": NgramDrafter(),
        "tree": TreeDrafter(4),
        "ngram tree": NgramDrafter(tree=True),
    }
    both = [NgramDrafter(), ModelDrafter(TableModel(random_table(seed, 4), 4))]
    paced = {name: Paced(one, FixedController(k)) for name, one in drafters.items()}
    return paced | {"mixed": Mixed(both, FixedController(k))}


@pytest.mark.parametrize("name", list(speculators(0, 4)))
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_matched_text_is_that_of_plain_decoding_for_every_drafter(name, temperature):
    n_accepted = 0
    for seed in range(6):
        table = random_table(seed, 4)
        params = SamplingParams(temperature=temperature, seed=seed, max_tokens=40)
        plain = ids(Engine(TableModel(table, 4), Plain()), [1, 2, 3], params)
        for k in (1, 2, 4):
            engine = Engine(TableModel(table, 4), speculators(seed, k)[name])
            assert ids(engine, [1, 2, 3], params) == plain
            n_accepted += engine.stats.n_accepted
    assert n_accepted > 0


def test_a_drafter_equal_to_the_target_is_accepted_whole():
    table = random_table(3, 5)
    drafter = ModelDrafter(TableModel(table, 5))
    engine = Engine(TableModel(table, 5), Paced(drafter, FixedController(3)))
    params = SamplingParams(temperature=1.0, max_tokens=32, verification="rejection")
    ids(engine, [0], params)
    assert engine.stats.acceptance_rate == 1
    assert engine.stats.block_efficiency == 4


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_stop_token_inside_a_draft_ends_the_text_there(stop):
    table = random_table(1, 4)
    params = SamplingParams(max_tokens=30, stop_tokens=frozenset({stop}))
    plain = ids(Engine(TableModel(table, 4), Plain()), [2], params)
    target = TableModel(table, 4)
    engine = Engine(target, Paced(ModelDrafter(TableModel(table, 4)), FixedController(4)))
    out = ids(engine, [2], params)
    assert out == plain
    assert stop not in out[:-1]
    assert target.length == len(out)  # the prompt and all but the last token
    again = SamplingParams(max_tokens=5)
    fresh = Engine(TableModel(table, 4), Plain())
    assert ids(engine, [2, *out], again) == ids(fresh, [2, *out], again)


def test_a_consumer_may_stop_at_any_round_and_go_on():
    table = random_table(4, 4)
    params = SamplingParams(max_tokens=20)
    whole = ids(Engine(TableModel(table, 4), Plain()), [1], params)
    engine = Engine(
        TableModel(table, 4),
        Paced(ModelDrafter(TableModel(random_table(9, 4), 4)), FixedController(3)),
    )
    rounds = engine.stream([1], params)
    begun = list(next(rounds).verdict.tokens)
    rounds.close()
    rest = SamplingParams(max_tokens=20 - len(begun))
    assert begun + ids(engine, [1, *begun], rest) == whole


def test_a_second_prompt_reads_only_what_is_new():
    engine = Engine(TableModel(random_table(0, 4), 4), Plain())
    first = ids(engine, [1, 2, 3], SamplingParams(max_tokens=4))
    assert engine.stats.n_prompt == 3
    ids(engine, [1, 2, 3, *first, 0, 0], SamplingParams(max_tokens=1))
    assert engine.stats.n_prompt == 3  # the last token of before and the two new ones


@pytest.mark.parametrize("length", [1, 7, 8])
def test_a_prompt_up_to_the_contexts_length_is_answered(length):
    table = random_table(2, 4)
    target = TableModel(table, 4, n_context=8)
    drafter = ModelDrafter(TableModel(table, 4, n_context=8))
    engine = Engine(target, Paced(drafter, FixedController(3)))
    out = ids(engine, [1] * length, SamplingParams(max_tokens=50))
    assert len(out) == 9 - length
    plain = Engine(TableModel(table, 4, n_context=8), Plain())
    assert out == ids(plain, [1] * length, SamplingParams(max_tokens=50))


def test_bad_prompts_end_in_one_line():
    engine = Engine(TableModel(p_table, 2, n_context=8), Plain())
    with pytest.raises(UsageError, match="no tokens"):
        ids(engine, [], SamplingParams())
    with pytest.raises(ContextError, match="9 tokens, the context holds 8"):
        ids(engine, [0] * 9, SamplingParams())


def test_exactly_max_tokens_are_emitted():
    table = random_table(5, 4)
    for n in (0, 1, 2, 5):
        engine = Engine(
            TableModel(table, 4), Paced(ModelDrafter(TableModel(table, 4)), FixedController(4))
        )
        assert len(ids(engine, [1], SamplingParams(max_tokens=n))) == n


def test_counts_add_up():
    table = random_table(6, 4)
    drafter = ModelDrafter(TableModel(random_table(7, 4), 4))
    engine = Engine(TableModel(table, 4), Paced(drafter, FixedController(3)))
    out = ids(engine, [1], SamplingParams(max_tokens=40))
    stats = engine.stats
    assert stats.n_tokens == len(out) == 40
    assert stats.n_accepted == sum(stats.accepted_by_position) <= stats.n_tested <= stats.n_drafted
    assert stats.n_tested == sum(stats.tested_by_position)
    assert stats.overhead_s >= 0 and stats.ttft_s <= stats.wall_s


def test_penalties_see_the_drafted_tokens():
    """With a repeat penalty the law after a drafted token depends on that token."""
    table = random_table(8, 4)
    params = SamplingParams(max_tokens=30, repeat_penalty=1.7, presence_penalty=0.5)
    plain = ids(Engine(TableModel(table, 4), Plain()), [1], params)
    drafter = ModelDrafter(TableModel(table, 4))
    same = Engine(TableModel(table, 4), Paced(drafter, FixedController(4)))
    assert ids(same, [1], params) == plain
