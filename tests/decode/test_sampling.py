"""The sampling chain as tables: probabilities in, probabilities out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgespec.decode.sampling import Laws, check_params, law_of, penalized, probabilities, support
from edgespec.errors import UsageError
from edgespec.types import Draft, SamplingParams

LOGITS = np.log(np.float32([0.1, 0.2, 0.3, 0.4]))


@pytest.mark.parametrize(
    "params, expected",
    [
        ({}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_k": 1}, [0, 0, 0, 1]),
        ({"top_k": 3}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"top_k": 9}, [0.1, 0.2, 0.3, 0.4]),
        ({"top_p": 0.4}, [0, 0, 0, 1]),
        ({"top_p": 0.71}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"top_p": 0.65}, [0, 0, 3 / 7, 4 / 7]),
        ({"min_p": 0.49}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"min_p": 0.51}, [0, 0, 3 / 7, 4 / 7]),
        ({"temperature": 0.5}, np.array([1, 4, 9, 16]) / 30),
        ({"temperature": 0.5, "top_k": 2}, [0, 0, 9 / 25, 16 / 25]),
        ({"temperature": 0.0}, [0, 0, 0, 1]),
        ({"temperature": 0.0, "top_k": 2, "top_p": 0.1}, [0, 0, 0, 1]),
    ],
)
def test_chain(params, expected):
    row = probabilities(LOGITS, SamplingParams(**{"temperature": 1.0, **params}))
    assert row == pytest.approx(np.array(expected), abs=1e-6)


def test_greedy_takes_the_lowest_id_among_equals():
    row = probabilities(np.float32([1, 3, 3, 0]), SamplingParams())
    assert row.tolist() == [0, 1, 0, 0]


def test_top_k_keeps_k_of_equal_logits():
    assert support(np.zeros(5, np.float32), SamplingParams(top_k=2)).tolist() == [0, 1]


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=8),
    st.integers(0, 9),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0.01, 5),
)
def test_every_chain_gives_a_law_that_holds_the_likeliest_token(
    logits, top_k, top_p, min_p, temperature
):
    array = np.array(logits, np.float32)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    row = probabilities(array, params)
    assert row.sum() == pytest.approx(1, abs=1e-5)
    assert row.max() == row[int(array.argmax())] > 0


def test_bias_and_penalties_follow_their_formulas():
    logits = np.float32([2.0, -2.0, 1.0, 0.0])
    params = SamplingParams(
        repeat_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25, logit_bias={3: 5.0}
    )
    out = penalized(logits, [0, 0, 1], params)
    assert out.tolist() == [2 / 2 - 2 * 0.5 - 0.25, -2 * 2 - 0.5 - 0.25, 1.0, 5.0]
    assert logits.tolist() == [2.0, -2.0, 1.0, 0.0]  # the view of the backend stays as it was


def test_penalties_look_back_only_so_far():
    params = SamplingParams(presence_penalty=1.0, penalty_last_n=2)
    assert penalized(np.zeros(3, np.float32), [0, 1, 2], params).tolist() == [0, -1, -1]


def test_without_penalties_the_logits_are_not_copied():
    assert penalized(LOGITS, [1], SamplingParams()) is LOGITS


def test_rows_after_draft_nodes_are_penalised_for_their_path():
    params = SamplingParams(temperature=1.0, presence_penalty=9.0)
    draft = Draft((0, 1, 2), (-1, -1, 0))
    rows = Laws(law_of(params), np.zeros((4, 4), np.float32), [3], draft)
    assert [int((rows[i] > 0.1).sum()) for i in range(4)] == [3, 2, 2, 1]


@pytest.mark.parametrize(
    "params, message",
    [
        ({"temperature": -1.0}, "--temp is -1.0"),
        ({"temperature": float("nan")}, "--temp is nan"),
        ({"top_p": 0.0}, "--top-p is 0.0"),
        ({"min_p": 1.5}, "--min-p is 1.5"),
        ({"top_k": -1}, "--top-k is -1"),
        ({"repeat_penalty": 0.0}, "--repeat-penalty is 0.0"),
        ({"verification": "maybe"}, "expected one of auto, match"),
    ],
)
def test_parameters_out_of_range_are_named(params, message):
    with pytest.raises(UsageError, match=message):
        check_params(SamplingParams(**params))


@pytest.mark.parametrize("changes", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_k": 2}])
def test_a_ban_of_every_token_is_refused(changes: dict[str, float]) -> None:
    banned = SamplingParams(logit_bias=dict.fromkeys(range(4), -np.inf), **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="logit_bias leaves none of 4 tokens: expected at least"):
        law_of(banned)(np.zeros(4, np.float32), [0])


def test_a_row_that_was_asked_for_is_known_as_it_was_when_the_context_has_grown():
    params = SamplingParams(temperature=1.0, repeat_penalty=2.0)
    logits, context = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 2, np.float32)), [3]
    rows = Laws(law_of(params), logits, context, Draft((1,)))
    seen = rows[0]
    context += [1, 2]
    np.testing.assert_array_equal(rows.known(0), seen)
    with pytest.raises(KeyError):
        rows.known(1)  # of a context that is no longer there
