"""GPTQ: what is rounded by what was seen, what is left alone; the paper's own words as oracle."""

from __future__ import annotations

import numpy as np
import pytest
from edgespec.export.quant.blocks import best_scales, codes_of, rounded
from edgespec.export.quant.gptq import DAMPING, ROWS, Moments, calibrated, halves, in_blocks

N_OUT, N_IN = 24, 128


def case(seed: int = 3, n_out: int = N_OUT, n_in: int = N_IN) -> tuple[np.ndarray, np.ndarray]:
    """Weights [n_out, n_in] and correlated inputs [512, n_in]."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((512, 24)) @ rng.standard_normal((24, n_in))
    inputs = mixed + rng.standard_normal((512, n_in))
    return rng.standard_normal((n_out, n_in)).astype(np.float32), inputs.astype(np.float32)


def seen(inputs: np.ndarray) -> Moments:
    return Moments(np.arange(inputs.shape[1]), inputs.T @ inputs)


def loss(blocks, weights: np.ndarray, inputs: np.ndarray) -> float:
    """Squared difference of the outputs."""
    off = blocks.floats()[:, : weights.shape[1]] - weights
    return float(np.square(inputs @ off.T).sum())


def by_the_paper(
    weights: np.ndarray, sums: np.ndarray, scales: np.ndarray, block: int
) -> np.ndarray:
    """Codes of each weight in turn, the inverse of what is left computed anew each time."""
    left, codes = weights.astype(np.float64), np.zeros(weights.shape, np.uint8)
    damped = sums.astype(np.float64) + DAMPING * sums.diagonal().mean() * np.eye(len(sums))
    for i in range(weights.shape[1]):
        scale = scales[:, i // block]
        codes[:, i] = np.clip(np.rint(left[:, i] / scale) + 8, 0, 15)
        error = left[:, i] - (codes[:, i] - 8.0) * scale
        inverse = np.linalg.inv(damped[i:, i:])
        left[:, i:] -= error[:, None] * inverse[0] / inverse[0, 0]
    return codes


@pytest.mark.parametrize("block", [32, 128])
def test_codes_are_those_of_the_paper(block):
    weights, inputs = case()
    found = calibrated(weights, seen(inputs), 4, block)
    expected = by_the_paper(weights, inputs.T @ inputs, found.scales, block)
    # A value half way between two codes falls by float32 here and by float64 there.
    assert (found.codes.reshape(N_OUT, -1) != expected).mean() < 0.002


@pytest.mark.parametrize(("bits", "block", "most"), [(4, 32, 0.5), (4, 128, 0.5), (8, 32, 0.6)])
def test_outputs_change_less_than_by_plain_rounding(bits, block, most):
    weights, inputs = case()
    plain = loss(rounded(weights, bits, block), weights, inputs)
    assert loss(calibrated(weights, seen(inputs), bits, block), weights, inputs) < most * plain


def test_inputs_without_correlation_feed_no_error_on():
    weights, _ = case()
    moments = Moments(np.arange(N_IN), np.eye(N_IN, dtype=np.float32))
    found = calibrated(weights, moments, 4, 32)
    np.testing.assert_array_equal(found.codes, codes_of(in_blocks(weights, 32), found.scales, 4))
    least = rounded(weights, 4, 32)
    off, off_least = (np.square(b.floats() - weights).sum() for b in (found, least))
    assert off < 1.02 * off_least  # other scales are tried, which are about as good


def test_scales_are_float16_numbers():
    weights, inputs = case()
    moments = seen(inputs)
    moments.sums[:32], moments.sums[:, :32] = 0, 0  # one block is rounded plainly
    scales = calibrated(weights, moments, 4, 32).scales
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
    assert scales.dtype == np.float32


def test_columns_without_weights_stay_zero_and_carry_no_error():
    weights, inputs = case()
    weights[:, 5:60] = 0
    found = calibrated(weights, seen(inputs), 4, 32)
    assert not found.floats()[:, 5:60].any()
    rest = np.r_[0:5, 60:N_IN]
    # As if the columns were not there: but for damping, which is by the mean of those that are.
    without = Moments(rest, inputs[:, rest].T @ inputs[:, rest])
    np.testing.assert_array_equal(found.codes, calibrated(weights, without, 4, 32).codes)


def test_rows_without_weights_stay_zero():
    weights, inputs = case()
    weights[7:] = 0
    found = calibrated(weights, seen(inputs), 4, 32)
    assert not found.floats()[7:].any() and found.floats()[:7].any()


def test_blocks_whose_inputs_never_move_are_rounded_plainly():
    weights, inputs = case()
    inputs[:, 64:] = 0
    found = calibrated(weights, seen(inputs), 4, 32)
    scales = halves(best_scales(in_blocks(weights, 32), 4))
    plain = codes_of(in_blocks(weights, 32), scales, 4)
    np.testing.assert_array_equal(found.codes[:, 2:], plain[:, 2:])
    np.testing.assert_array_equal(found.scales[:, 2:], scales[:, 2:])
    assert (found.codes[:, :2] != plain[:, :2]).any()


def test_a_still_column_among_moving_ones_is_still_near_its_weights():
    weights, inputs = case()
    weights[:, 40] *= 4  # would be cut off by scales that suit its neighbours alone
    inputs[:, 40] = 0
    off = calibrated(weights, seen(inputs), 4, 32).floats() - weights
    assert np.abs(off[:, 40]).max() < 0.3 * np.abs(weights[:, 40]).max()


def test_rows_are_rounded_each_on_its_own():
    weights, inputs = case(n_out=ROWS + 5, n_in=64)
    whole = calibrated(weights, seen(inputs), 4, 32)
    part = calibrated(weights[ROWS - 4 :], seen(inputs), 4, 32)
    assert (whole.codes[ROWS - 4 :] == part.codes).mean() > 0.999
    assert np.abs(whole.floats() - weights).max() < 2


def test_a_last_block_may_be_short():
    weights, inputs = case(n_in=40)
    found = calibrated(weights, seen(inputs), 4, 32)
    assert found.codes.shape == (N_OUT, 2, 32)
    assert not found.floats()[:, 40:].any()
    plain = loss(rounded(weights, 4, 32), weights, inputs)
    assert loss(found, weights, inputs) < 0.5 * plain


def test_nothing_seen_is_plain_rounding():
    weights, _ = case()
    none = Moments(np.empty(0, np.intp), np.empty((0, 0), np.float32))
    still = Moments(np.arange(N_IN), np.zeros((N_IN, N_IN), np.float32))
    expected = halves(best_scales(in_blocks(weights, 32), 4))
    for moments in (none, still):
        found = calibrated(weights, moments, 4, 32)
        np.testing.assert_array_equal(found.scales, expected)
        assert np.isfinite(found.floats()).all() and found.floats().any()
