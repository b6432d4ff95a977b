"""What a planner knows, as numbers for a reader or a record: costs, survival, worth by source."""

from __future__ import annotations

from itertools import accumulate
from operator import mul
from typing import Any

from edgespec.pace.planner import AutoPlanner
from edgespec.pace.source import Prices, best_to_come


def explained(planner: AutoPlanner) -> dict[str, Any]:
    """Costs by width, and of every source its score, in JSON's types.

    costs_s: a target forward of 1, 2, .. tokens now. gain: tokens per second lately over plain
    decoding, at least 1. acceptance: of tested tokens, lately. survival: that a token and all
    before it are accepted, by position, before anything is drafted. width, worth: the draft that is
    worth most, and how many tokens that is beyond what its time would give otherwise.
    """
    arms = {name: _score(planner, name) for name in planner.sources}
    return {"costs_s": list(planner.costs.seconds), "gain": planner.gain, "arms": arms}


def _score(planner: AutoPlanner, name: str) -> dict[str, Any]:
    known = planner.sources[name]
    survival = list(accumulate(known.to_come((), planner.most), mul))
    step_s, rate = known.step_s or 0.0, planner.gain / planner.plain_s
    prices = Prices(planner.rounds_s, rate, step_s)
    width, worth, _ = best_to_come(known.to_come((), planner.most), prices)
    return {
        "acceptance": known.rate,
        "n_tested": known.n_tested,
        "survival": survival,
        "step_s": step_s,
        "fixed_s": known.fixed_s,
        "width": width,
        "worth": worth - rate * known.fixed_s if width else 0.0,
        "paused": known.paused,
    }
