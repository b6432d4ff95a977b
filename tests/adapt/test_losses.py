"""Every loss: its slope against finite differences and against torch, and what the tail means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_adapter import slope

from edgespec.adapt import losses
from edgespec.adapt.labels import Labels, labels, only_pieces
from edgespec.adapt.losses import FLOOR, LOSSES, coarse, hybrid, nll, reverse_kl, reward
from edgespec.adapt.schedule import Scheduled

DIVERGENCES = ["forward-kl", "jsd", "reverse-kl", "tvd"]
N = 12


def drawn(seed, m=6, k=4, dtype=np.float64):
    """Logits [m, N] and labels of all sorts: whole, partly used, a piece only, a tail of 0."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.standard_normal((m, N)).astype(dtype)
    ids = np.array([rng.permutation(N)[:k] for _ in range(m)])
    probs = rng.dirichlet(np.ones(k + 1), m)[:, :k].astype(dtype)
    ids[0, 2:], probs[0, 2:] = -1, 0
    ids[1], probs[1] = -1, 0
    probs[2] /= probs[2].sum()
    piece = np.full(m, -1)
    piece[[1, 3]] = rng.integers(0, N, 2)
    drafted = rng.integers(0, N, m)
    drafted[0] = -1
    return z, Labels(ids, probs, piece, drafted, rng.random(m) < 0.5)


def value(name, z, given):
    """The function of z whose slope the loss gives; TVD++ holds q and its rewards fixed."""
    if name != "tvd++":
        return lambda: float(LOSSES[name](z, given).loss.sum())
    w = coarse(z, given).q * even_rewards(z, given)
    return lambda: float(-(w * coarse(z, given).log_q).sum())


def even_rewards(z, given):
    """a of TVD++ [m, K + 1], by the definition."""
    c, known = coarse(z, given), (given.ids >= 0).any(axis=1)
    weights = c.q[known] / known.sum()
    rewards = (c.p > c.q).astype(float)
    mean = (weights * rewards[known]).sum()
    deviation = np.sqrt((weights * (rewards[known] - mean) ** 2).sum())
    return (rewards - mean) / deviation * known[:, None]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_slopes_agree_with_finite_differences(name, seed):
    z, given = drawn(seed)
    exact = LOSSES[name](z, given)
    numeric = slope(value(name, z, given), z)
    assert exact.loss.shape == (6,) and exact.dz.shape == z.shape
    assert abs(exact.dz).max() > 0.01
    assert np.allclose(exact.dz, numeric, rtol=1e-4, atol=1e-7)


def in_torch(name, torch, z, given):
    """The loss by torch's own functions over all columns, the target's law spread out and fixed."""
    log_q = torch.log_softmax(z, 1)
    q = log_q.exp()
    chosen = {"nll": given.piece, "reward": given.drafted}
    if name in chosen:
        column, gain = torch.tensor(chosen[name]), torch.tensor(given.accepted).double()
        found = torch.nn.functional.nll_loss(log_q, column, ignore_index=-1, reduction="none")
        return found if name == "nll" else found * gain
    divergence = {"hybrid": "reverse-kl", "covering": "forward-kl"}.get(name)
    if divergence is not None:
        pieces = in_torch("nll", torch, z, given)
        return in_torch(divergence, torch, z, given) + 0.2 * pieces
    used = torch.tensor(given.ids >= 0)
    ids, probs = torch.tensor(given.ids).clamp(min=0), torch.tensor(given.probs).double()
    named = torch.zeros_like(z, dtype=torch.double).scatter_add(1, ids, used.double()) > 0
    tail = (1 - probs.sum(1, keepdim=True)).clamp(min=FLOOR if name == "reverse-kl" else 0)
    free = torch.where(named, 0, q)
    p = free / free.sum(1, keepdim=True) * tail
    p = (p + torch.zeros_like(p).scatter_add(1, ids, probs)).detach()
    log_p = p.clamp(min=1e-300).log()
    mean = ((p + q) / 2).log()
    known = torch.tensor((given.ids >= 0).any(axis=1))[:, None]
    if name == "tvd++":
        rewards = (p > q).double() * known
        weights = (q * known / known.sum()).detach()
        centre = (weights * rewards).sum()
        deviation = (weights * (rewards - centre) ** 2).sum().sqrt()
        return -(q.detach() * known * (rewards - centre) / deviation * log_q).sum(1)
    terms = {
        "forward-kl": p * (log_p - log_q),
        "reverse-kl": q * (log_q - log_p),
        "jsd": (p * (log_p - mean) + q * (log_q - mean)) / 2,
        "tvd": abs(p - q) / 2,
    }
    return terms[name].sum(1)


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_agree_with_torch(name):
    torch = pytest.importorskip("torch", reason="torch is not installed: the extra `train` has it")
    z, given = drawn(5, m=32, dtype=np.float32)
    there = torch.tensor(z, dtype=torch.double, requires_grad=True)
    loss = in_torch(name, torch, there, given)
    loss.sum().backward()
    here, dz = LOSSES[name](z, given), there.grad.numpy()
    assert abs(here.dz - dz).max() < 1e-4 * abs(dz).max()
    if name != "tvd++":  # the tail's log q is another one there; the slope is the same
        assert np.allclose(here.loss, loss.detach().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*DIVERGENCES, "tvd++"])
def test_slopes_do_not_move_mass_within_the_tail(name):
    z, given = drawn(1)
    dz, law = LOSSES[name](z, given).dz, coarse(z, given).law
    outside = [[j for j in range(N) if j not in ids] for ids in given.ids]
    for line, columns in enumerate(outside):
        ratio = dz[line, columns] / law[line, columns]
        assert np.ptp(ratio) < 1e-9 * max(1, abs(ratio).max())


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_of_a_law_add_up_to_nothing(name):
    z, given = drawn(2)
    assert abs(LOSSES[name](z, given).dz.sum(axis=1)).max() < 1e-9


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_drafter_that_says_what_the_target_says_has_nothing_to_learn(name):
    z = np.log(np.array([[0.5, 0.3, 0.1, 0.06, 0.04]]))
    given = labels(np.array([[1, 0]]), np.array([[0.3, 0.5]]))
    found = LOSSES[name](z, given)
    assert abs(found.loss).max() < 1e-12
    if name != "tvd":  # which has an edge there
        assert abs(found.dz).max() < 1e-9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(-50, 50))
def test_losses_ignore_a_constant_in_all_logits(seed, constant):
    z, given = drawn(seed)
    for name in LOSSES:
        moved = LOSSES[name](z + constant, given)
        assert np.allclose(moved.dz, LOSSES[name](z, given).dz, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_divergences_are_never_negative(seed):
    z, given = drawn(seed)
    for name in DIVERGENCES:
        assert LOSSES[name](z, given).loss.min() > -1e-4  # reverse KL: p above FLOOR adds to 1 + it


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_give_finite_slopes(name):
    z, given = drawn(3, dtype=np.float32)
    z[:, 0], z[:, 1] = 300, -300
    found = LOSSES[name](z, given)
    assert np.isfinite(found.loss).all() and np.isfinite(found.dz).all()
    assert found.dz.dtype == np.float32


def test_the_hybrid_adds_a_fifth_of_the_pieces_to_the_reverse_divergence():
    z, given = drawn(4)
    parts = reverse_kl(z, given).dz + 0.2 * nll(z, given).dz
    assert np.allclose(hybrid(z, given).dz, parts)
    alone = only_pieces(given.piece)
    assert np.allclose(hybrid(z, alone).dz, 0.2 * nll(z, alone).dz)


def test_the_hybrid_looks_at_pieces_only_where_there_are_some(monkeypatch):
    seen = []

    def spied(z, given):
        seen.append(z.shape)
        return nll(z, given)

    monkeypatch.setattr(losses, "nll", spied)
    z, given = drawn(4)
    hybrid(z, given)
    hybrid(z, labels(given.ids, given.probs))
    assert seen == [(2, N)]


def test_a_refused_token_loses_and_an_accepted_one_gains():
    z, given = np.zeros((2, 3)), labels(np.full((2, 1), -1), np.zeros((2, 1)))
    given.drafted[:], given.accepted[:] = 1, [True, False]
    dz = reward(z, given, baseline=0.5).dz
    assert dz[0, 1] < 0 < dz[1, 1]


def test_the_schedule_begins_with_the_divergence_and_ends_with_half_the_reward():
    z, given = drawn(6)
    loss = Scheduled(first=2, rise=2)
    shares = []
    for _ in range(6):
        shares.append(loss.share)
        assert loss(z, given).dz.shape == z.shape
    assert shares == [0, 0, 0, 0.25, 0.5, 0.5]
    assert loss.baseline == pytest.approx(given.accepted[given.drafted >= 0].mean())
    expected = reverse_kl(z, given).dz + reward(z, given, baseline=loss.baseline).dz
    assert np.allclose(loss(z, given).dz, expected / 2)
