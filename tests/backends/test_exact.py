"""The same prompt gives the same text, whatever is drafted and whatever was read before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from width_model import WidthModel

from edgespec.backends import exact as exact_module
from edgespec.backends import widths
from edgespec.backends.exact import Exact, in_words
from edgespec.backends.widths import find_widths
from edgespec.decode.engine import Engine
from edgespec.drafters.paced import Plain
from edgespec.errors import BackendError, ContextError, ShapeError
from edgespec.types import Draft, SamplingParams

FEW, MANY = (lambda n: n > 7), (lambda n: n)  # classes: 1 to 7 and the rest; each its own


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch):
    monkeypatch.setattr(exact_module, "PART", 8)


class Guesser:
    """Drafts so many tokens each round, right and wrong ones."""

    name, n_leaves, reason, most = "guesser", 1, "", 12

    def __init__(self, lengths, right):
        self._lengths, self._right, self._at = lengths or [0], right, 0

    def propose(self, context, room, drawing):
        self._at += 1
        k = min(self._lengths[self._at % len(self._lengths)], room)
        guess = [self._at % 7] * k
        return Draft(tuple([*self._right[len(context) :], *guess][: max(k - 1, 0)] + guess[:1]))

    def observe(self, done):
        """It knows better."""

    def close(self):
        """It holds nothing."""


def text_of(engine, prompt, n=20, **params):
    params = SamplingParams(max_tokens=n, **params)
    return [token for step in engine.stream(prompt, params) for token in step.verdict.tokens]


def plain_text(class_of, widths, prompt, **params):
    return text_of(Engine(Exact(WidthModel(class_of), widths), Plain()), prompt, **params)


def test_without_it_a_text_depends_on_what_is_drafted():
    prompt = [1, 2, 3, 4, 5]
    texts = [
        text_of(Engine(WidthModel(MANY), Guesser([k], [])), prompt) for k in (0, 1, 2)
    ]  # fmt: skip
    assert len({tuple(text) for text in texts}) == 3


CLASSES = st.sampled_from([(FEW, tuple(range(1, 8))), (MANY, (4,)), (MANY, (1,)), (FEW, (8, 12))])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    CLASSES,
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.lists(st.integers(0, 6), min_size=1, max_size=20),
            st.lists(st.integers(0, 12), max_size=4),
            st.integers(1, 12),
            st.sampled_from([None, 5]),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_a_text_is_a_function_of_its_prompt(chosen, questions):
    """Questions: tokens kept of the text so far, new ones, draft lengths, rounds read, a seed."""
    class_of, of_class = chosen
    model = WidthModel(class_of)
    engine, text = Engine(Exact(model, of_class), Plain()), []
    for n_kept, new, lengths, n_rounds, seed in questions:
        prompt = [*text[:n_kept], *new]
        how = {} if seed is None else {"temperature": 1.0, "seed": seed}
        expected = plain_text(class_of, of_class, prompt, **how)
        engine.use(Guesser(lengths, [*prompt, *expected]))
        assert text_of(engine, prompt, **how) == expected
        stream = engine.stream(prompt, SamplingParams(max_tokens=20, **how))
        seen = [t for _, step in zip(range(n_rounds), stream, strict=False)
                for t in step.verdict.tokens]  # fmt: skip
        assert seen == expected[: len(seen)]
        text = [*prompt, *seen]
    assert set(model.widths) <= set(of_class)


def test_a_long_prompt_is_read_again_from_its_last_whole_part_on():
    model = WidthModel(FEW)
    exact = Exact(model, (1, 2, 3))
    exact.extend(list(range(7)) * 3)
    exact.truncate(19)
    exact.extend([1])
    exact.forward([1])
    exact.keep((0,))
    exact.truncate(18)
    exact.forward([1])
    assert model.read == [8, 8, 5, 4, 2]


def test_the_same_prompt_is_not_read_twice():
    model = WidthModel(FEW)
    exact = Exact(model, (1, 2, 3))
    exact.extend([1, 2, 3])
    for _ in range(3):
        exact.forward([1, 2])
        exact.truncate(3)
    model.extend = None
    exact.forward([1])


def test_an_undone_forward_leaves_the_decoded_text():
    exact = Exact(WidthModel(FEW), (1, 2, 3))
    exact.extend([1, 2, 3])
    exact.forward([4, 5])
    before = exact.forward([6]).copy()
    exact.keep(())
    exact.forward([3, 3])
    exact.keep(())
    assert np.array_equal(exact.forward([6]), before)


def test_what_was_read_of_an_interrupted_prompt_does_not_count():
    class Stops(WidthModel):
        n_left = 2

        def extend(self, tokens):
            self.n_left -= 1
            if self.n_left < 0:
                raise KeyboardInterrupt
            super().extend(tokens)

    model = Stops(FEW)
    exact, text = Exact(model, (1, 2, 3)), [1, 2, 3, 4] * 10
    with pytest.raises(KeyboardInterrupt):
        exact.extend(text)
    assert exact.length == 0
    model.n_left = 99
    exact.extend(text)
    fresh = Exact(WidthModel(FEW), (1, 2, 3))
    fresh.extend(text)
    assert np.array_equal(exact.forward([1]), fresh.forward([1]))


def test_there_is_room_for_what_fills_a_forward_up():
    exact = Exact(WidthModel(MANY, n_context=32), (4, 8))
    assert exact.n_context == 29
    exact.extend([1] * 28)
    exact.forward([1])
    with pytest.raises(ContextError, match=r"29 \+ 1 tokens"):
        exact.forward([1])


def test_a_tree_or_a_path_not_from_the_top_is_refused():
    exact = Exact(WidthModel(FEW), (1, 2, 3))
    with pytest.raises(ShapeError, match="reads no trees"):
        exact.forward([1, 2, 3], [-1, 0, 0])
    exact.forward([1, 2])
    with pytest.raises(ShapeError, match="expected a path from the top"):
        exact.keep((1,))
    with pytest.raises(ShapeError, match="cannot truncate 2 tokens to 3"):
        exact.truncate(3)


@pytest.mark.parametrize(
    ("class_of", "placed", "expected"),
    [
        (FEW, (), tuple(range(1, 8))),
        (lambda n: 0, (), tuple(range(1, 18))),
        (MANY, (), (4,)),
        (lambda n: 0 if n == 1 else 1 + n // 8, (), tuple(range(2, 8))),
        (MANY, range(4, 99), (3,)),
        (lambda n: n // 4, (), (1, 2, 3)),
        (lambda n: max(2, n) // 4 + n // 2, (5, *range(6, 99)), (4,)),
    ],
)
def test_a_class_is_found_with_room_and_without_filling_if_there_is_one(class_of, placed, expected):
    """Each forward takes a second, and a tenth for each of its tokens."""
    model, now = WidthModel(class_of, n_context=512, placed=placed), [0.0]

    def clock():
        now[0] += 0.5 + 0.05 * model.widths[-1] if model.widths else 0.0
        return now[0]

    assert find_widths(model, clock=clock) == expected


def test_a_model_without_a_class_is_refused():
    model = WidthModel(MANY, n_context=512, placed=range(2, 99))
    steps = iter(range(10**6))
    model._class_of = lambda n: next(steps)  # no forward is like any other
    with pytest.raises(BackendError, match="leave --exact out"):
        find_widths(model)


def test_widths_are_kept_and_damaged_ones_found_again(tmp_path):
    file = tmp_path / "widths" / "x.json"
    assert widths.load(file) is None
    widths.save((1, 2, 3), file)
    assert widths.load(file) == (1, 2, 3)
    for damaged in ("[]", "[2, 1]", '{"a": 1}', "[", "[0.5]", "3"):
        file.write_text(damaged)
        assert widths.load(file) is None


def test_widths_are_named_in_runs():
    assert in_words((1, 2, 3, 4)) == "1-4"
    assert in_words((4, 8, 9)) == "4, 8-9"
