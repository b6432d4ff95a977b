"""How likely a drafted token is accepted, those before it being so: learned token by token.

Knows nothing of times (cost.py) or of what is worth drafting (planner.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import exp

MAX_WIDTH = 16
# Variances of what is believed before anything was tested, and their growth per tested token: a
# bias is that of the last few hundred. On devices simulated at acceptances of 0.3 to 0.95 faster
# growth loses up to 3 % to chance, and slower growth as much after a change.
BIAS, SLOPE, OWN = 0.4, 0.02, 0.05
BIAS_DRIFT, SLOPE_DRIFT, OWN_DRIFT = 2e-4, 2e-5, 1e-4
CHANCE = 0.25  # variance of chances, of that of what comes of them, at least
NOISE = 0.1  # weight of one in what is known of that; not of itself, or some would count more
RECENT = 0.93  # weight of a tested token's surprise one token later
# Deviations of the recent ones together from which on acceptance has changed; for the better it is
# noticed sooner, because a source that is hardly used is hardly tested.
SURPRISE, GOOD_SURPRISE = 3.5, 2.5
CHANGED = 1.0  # the bias's variance then
HOME = 0.02  # weight of one tested token in what the bias is in the long run
RENEWED, TEXT = 0.2, 64  # variance of a bias in another text; tokens of a text
FARTHEST = 4.0  # log odds that are told apart


class AcceptanceHead:
    """P(accepted) = logistic(bias + that of the position + slope * feature).

    An extended Kalman filter with a diagonal covariance, one step per tested token; where recent
    tokens surprise together, the bias is learned anew. The feature is a log odds, 0 without one.
    Source: a head that stops a draft by its acceptance is SpecDec++'s (arXiv 2405.19715, section
    3), there a network on hidden states, trained beforehand.
    """

    def __init__(self, bias: float, slope: float) -> None:
        self.bias, self.slope, self.own = bias, slope, [0.0] * MAX_WIDTH
        self._home = bias  # the bias in the long run
        self._bias, self._slope, self._own = BIAS, SLOPE, [OWN] * MAX_WIDTH  # variances
        self._noise = 0.0  # not known
        self._off = self._usual = 0.0  # what was recently unexpected, and its usual variance

    def p(self, position: int, feature: float = 0.0) -> float:
        """Of the token at this position, 0 being the first."""
        return 1 / (1 + exp(-self.bias - self.own[position] - self.slope * feature))

    def learn(self, position: int, feature: float, accepted: float) -> None:
        """One tested token. accepted: 1 or 0, or the chance that it would have been."""
        p = self.p(position, feature)
        off, spread = accepted - p, p * (1 - p) + 0.01
        # What is left of a verdict's variance where its chance is told: all of it for 1 and 0.
        left = max(1 - accepted * (1 - accepted) / spread, CHANCE)
        noise = self._noise or left
        self._noise = noise + NOISE * (left - noise)
        self._notice(off, noise * spread)
        bias = self._bias + BIAS_DRIFT
        slope = min(self._slope + SLOPE_DRIFT, SLOPE)
        own = min(self._own[position] + OWN_DRIFT, OWN)
        gain = 1 / (noise + spread * (bias + slope * feature * feature + own))
        step = off * gain
        self.bias += bias * step
        self.slope += slope * feature * step
        self.own[position] += own * step
        lost = spread * gain
        self._bias = bias - bias * bias * lost
        self._slope = slope - (slope * feature) ** 2 * lost
        self._own[position] = own - own * own * lost
        self._home += HOME * (self.bias - self._home)

    def renew(self, n: int) -> None:
        """After a text of n tokens another begins, perhaps of another kind: back to the long run.

        Half way after TEXT tokens; what a few words have taught is hardly forgotten for the next.
        """
        share = n / (n + TEXT)
        self.bias += share * (self._home - self.bias)
        self._bias = max(self._bias, share * RENEWED)

    def _notice(self, off: float, spread: float) -> None:
        self._off = RECENT * self._off + off
        self._usual = RECENT**2 * self._usual + spread
        bound = SURPRISE if self._off < 0 else GOOD_SURPRISE
        if self._off * self._off > bound * bound * self._usual:
            self._bias = max(self._bias, CHANGED)
            self._off = self._usual = 0.0

    def saved(self) -> dict[str, object]:
        """What was learned, for a file."""
        return {"bias": self._home, "slope": self.slope, "own": self.own}

    def load(self, saved: dict[str, object]) -> None:
        """Begin with what was saved. Raises: KeyError, TypeError, ValueError for what was not."""
        bias, slope, own = (saved[key] for key in ("bias", "slope", "own"))
        values = [float(x) for x in (bias, slope, *own)]  # type: ignore[misc]
        if len(values) != 2 + MAX_WIDTH or not all(abs(x) < 20 for x in values):
            raise ValueError(f"{len(values)} values, or one beyond 20")
        self.bias = self._home = values[0]
        self.slope, self.own = values[1], values[2:]


def log_odds(p: float) -> float:
    """Of a probability, within FARTHEST either way."""
    if not 0 < p < 1:
        return FARTHEST if p >= 1 else -FARTHEST
    return max(-FARTHEST, min(FARTHEST, math.log(p / (1 - p))))


def features(confidence: Sequence[float]) -> list[float]:
    """Cumulative confidences as the log odds of each token given those before it."""
    out, before = [], 1.0
    for one in confidence:
        out.append(log_odds(one / before) if before > 0 else -FARTHEST)
        before = one
    return out


def last_said(confidence: Sequence[float]) -> float:
    """The log odds of the last token given those before it."""
    before = confidence[-2] if len(confidence) > 1 else 1.0
    return log_odds(confidence[-1] / before) if before > 0 else -FARTHEST
