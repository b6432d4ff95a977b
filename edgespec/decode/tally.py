"""Counts and times of one generation while it runs; `stats()` freezes them."""

from __future__ import annotations

import time

from edgespec.types import Arm, Draft, Round, Spent, Stats, Verdict


class Tally:
    """Adds up rounds; all times in seconds on one monotonic clock."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.n_prompt = self.n_tokens = self.n_rounds = 0
        self.n_drafted = self.n_tested = self.n_accepted = 0
        self.accepted_by_position: list[int] = []
        self.tested_by_position: list[int] = []
        self.rounds_by_length: list[int] = []
        self._n_lone, self._last = 0, 0  # tokens verified in the last round
        self.arms: dict[str, Arm] = {}
        self.ttft_s = self.decode_s = self.target_s = self.draft_s = 0.0
        self._single_s, self._n_single = 0.0, 0  # of rounds of one token
        self._rest_s = 0.0  # neither target's, drafter's nor spent on learning
        self.spent = Spent()
        self.ended = self.started

    def observe(self, done: Round, learn_s: float = 0.0) -> None:
        """One round; called last of all that learn from it, which took learn_s, part of it."""
        self._count(done.draft, done.verdict)
        if not len(done.draft) and (self._last or done.is_felt):
            self._n_lone += 1
        self._last = len(done.draft)
        times, end = done.times, time.perf_counter()
        self.ttft_s = self.ttft_s or end - self.started
        self.draft_s += times.draft_s
        self.spent = self.spent.plus(done.draft.spent)
        self.target_s += times.target_s
        self.decode_s += times.want_s + times.ask_s + times.target_s + end - times.told
        self.ended = end
        rest_s = times.want_s + end - times.told - times.law_s - learn_s
        self._rest_s += rest_s
        if len(done.verdict.tokens) == 1:
            self._single_s, self._n_single = self._single_s + rest_s, self._n_single + 1

    def _count(self, draft: Draft, verdict: Verdict) -> None:
        n_accepted = len(verdict.accepted)
        self.n_tokens += len(verdict.tokens)
        self.n_rounds += 1
        self.n_drafted += len(draft) + draft.n_cut
        while len(self.rounds_by_length) <= len(draft):
            self.rounds_by_length.append(0)
        self.rounds_by_length[len(draft)] += 1
        self.n_tested += verdict.n_tested
        self.n_accepted += n_accepted
        if draft.sources:
            did = Arm(1, len(draft) + draft.n_cut, verdict.n_tested, n_accepted)
            self.arms[draft.sources[0]] = self.arms.get(draft.sources[0], Arm()).plus(did)
        while len(self.tested_by_position) < verdict.n_tested:
            self.tested_by_position.append(0)
            self.accepted_by_position.append(0)
        for i in range(verdict.n_tested):
            self.tested_by_position[i] += 1
            self.accepted_by_position[i] += i < n_accepted

    def stats(self, note: str = "") -> Stats:
        """What was counted so far."""
        return Stats(
            n_prompt=self.n_prompt,
            n_tokens=self.n_tokens,
            n_rounds=self.n_rounds,
            n_drafted=self.n_drafted,
            n_tested=self.n_tested,
            n_accepted=self.n_accepted,
            accepted_by_position=tuple(self.accepted_by_position),
            tested_by_position=tuple(self.tested_by_position),
            rounds_by_length=tuple(self.rounds_by_length),
            n_lone=self._n_lone,
            arms=dict(self.arms),
            wall_s=self.ended - self.started,
            ttft_s=self.ttft_s,
            decode_s=self.decode_s,
            target_s=self.target_s,
            draft_s=self.draft_s,
            spent=self.spent,
            single_s=self._single_s / self._n_single
            if self._n_single
            else self._rest_s / max(self.n_tokens, 1),
            note=note,
        )


def decided(stats: Stats) -> list[str]:
    """What drafting did, a line each: rounds by the tokens verified, and every source."""
    widths = [f"{k}: {n:,}" for k, n in enumerate(stats.rounds_by_length) if n]
    lines = ["rounds by tokens verified  " + "  ".join(widths)] if stats.n_drafted else []
    return lines + [
        f"{name} drafted in {arm.n_rounds:,} rounds, {arm.n_accepted:,} of {arm.n_tested:,} "
        "tested tokens accepted"
        for name, arm in stats.arms.items()
    ]
