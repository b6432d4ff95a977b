"""search.py with answers that take what a table says, on a clock that only they move."""

from __future__ import annotations

from random import Random

import pytest

from edgespec.tune.search import Race, Way, best
from edgespec.types import Stats

SPEEDS = {  # seconds per token by kind
    "plain": {"talk": 1.0, "code": 1.0},
    "lookup": {"talk": 1.0, "code": 0.5},
    "model": {"talk": 0.6, "code": 2.9},
    "slow": {"talk": 3.0, "code": 3.0},
}


class Device:
    """Answers of ten tokens; question: (kind, number)."""

    def __init__(self, speeds: dict[str, dict[str, float]] = SPEEDS) -> None:
        self.speeds, self.now, self.asked = speeds, 0.0, list[tuple[str, tuple[str, int]]]()

    def clock(self) -> float:
        return self.now

    def answer(self, name: str, question: tuple[str, int]) -> Stats:
        self.asked.append((name, question))
        took = 10 * self.speeds[name][question[0]]
        self.now += took
        return Stats(n_tokens=10, decode_s=took)


class Wavering(Device):
    """Whose answers take 5 % more or less."""

    def __init__(self, speeds: dict[str, dict[str, float]]) -> None:
        super().__init__(speeds)
        self.n_forgotten, self._chance = 0, Random(0)

    def answer(self, name: str, question: tuple[str, int]) -> Stats:
        took = super().answer(name, question).decode_s
        off = took * self._chance.gauss(0, 0.05)
        self.now += off
        return Stats(n_tokens=10, decode_s=took + off)

    def forget(self) -> None:
        self.n_forgotten += 1


def raced(device: Device, budget_s: float, n: int = 5) -> list[Way]:
    questions = {kind: [(kind, number) for number in range(n)] for kind in ("talk", "code")}
    forget = device.forget if isinstance(device, Wavering) else None
    race = Race(questions, device.answer, lambda _: None, device.clock, forget)
    return race.run(list(device.speeds), budget_s)


def test_the_fastest_over_all_kinds_is_chosen_if_it_is_slower_on_none() -> None:
    ways = raced(Device(), 1000)
    assert best(ways).name == "lookup"
    assert best(ways).gains(ways[0]) == pytest.approx(2**0.5)
    assert ways[2].gain(ways[0], "talk") == pytest.approx(1 / 0.6)


def test_a_way_that_is_faster_on_the_whole_but_slower_on_a_kind_is_not_chosen() -> None:
    speeds = {"plain": SPEEDS["plain"], "model": {"talk": 0.2, "code": 1.2}}
    ways = raced(Device(speeds), 1000)
    assert ways[1].gains(ways[0]) > 2
    assert best(ways).name == "plain"


def test_of_ways_that_are_as_fast_the_ablest_is_chosen() -> None:
    same = {"talk": 0.5, "code": 0.5}
    little = {"talk": 0.504, "code": 0.504}
    ways = raced(Device({"plain": SPEEDS["plain"], "lookup": same, "both": little}), 1000)
    assert best(ways).name == "both"
    more = {"talk": 0.51, "code": 0.51}
    ways = raced(Device({"plain": SPEEDS["plain"], "lookup": same, "both": more}), 1000)
    assert best(ways).name == "lookup"


def test_ways_far_behind_are_tried_on_one_prompt_of_every_kind_only() -> None:
    device = Device()
    raced(device, 1000)
    assert sum(name == "slow" for name, _ in device.asked) == 2
    assert sum(name == "lookup" for name, _ in device.asked) == 10
    assert sum(name == "plain" for name, _ in device.asked) == 10  # never left out


def test_every_way_answers_a_prompt_before_the_next_one_is_asked() -> None:
    device = Device()
    raced(device, 1)  # less than one pass takes
    assert [question for _, question in device.asked] == [("talk", 0)] * 4 + [("code", 0)] * 4
    assert device.asked[0][0] != device.asked[4][0]  # another begins


def test_the_budget_ends_a_race_before_the_pass_that_would_exceed_it() -> None:
    device = Device({"plain": SPEEDS["plain"], "lookup": SPEEDS["lookup"]})
    raced(device, 80)  # a pass takes 35
    assert device.now == 70


def test_prompts_are_asked_again_while_a_difference_is_in_doubt() -> None:
    device = Wavering({"plain": SPEEDS["plain"], "lookup": {"talk": 0.96, "code": 0.96}})
    ways = raced(device, 8000)
    assert device.n_forgotten > 1
    assert device.now < 2000  # no longer than needed
    assert ways[1].doubt(ways[0]) < 0.015
    assert best(ways).name == "lookup"


def ways_of(**seconds: list[float]) -> list[Way]:
    """Ways that took so long for ten tokens, of both kinds."""
    ways = list[Way]()
    for name, took in seconds.items():
        answers = [Stats(n_tokens=10, decode_s=one) for one in took]
        ways.append(Way(name, {"talk": answers, "code": answers}))
    return ways


EVEN, FASTER = [1.0] * 4, [0.9] * 4


def test_the_ablest_is_chosen_where_the_fastest_beats_it_by_chance() -> None:
    by_chance = ways_of(plain=EVEN, lookup=FASTER, both=[0.8, 0.9, 0.9, 1.15])
    assert by_chance[2].gains(by_chance[0]) == pytest.approx(1 / 0.9375)
    assert best(by_chance).name == "both"
    assert best(ways_of(plain=EVEN, lookup=FASTER, both=[0.9375] * 4)).name == "lookup"


def test_plain_decoding_stays_unless_another_way_is_faster_for_sure() -> None:
    ways = ways_of(plain=EVEN, lookup=[0.8, 0.9, 1.0, 1.15], both=[0.8, 0.9, 1.0, 1.17])
    assert ways[1].gains(ways[0]) == pytest.approx(1 / 0.9625)
    assert best(ways).name == "plain"
    assert best(ways_of(plain=EVEN, lookup=[0.9625] * 4)).name == "lookup"


def test_a_way_that_was_left_out_is_not_chosen_for_its_first_prompts() -> None:
    assert best(ways_of(plain=EVEN, lookup=FASTER, both=[0.5, 0.6])).name == "lookup"
    assert best(ways_of(plain=EVEN[:2], lookup=FASTER[:2], both=[0.5, 0.6])).name == "both"


def test_without_a_way_to_forget_every_prompt_is_asked_once() -> None:
    device = Device({"plain": SPEEDS["plain"], "lookup": {"talk": 0.96, "code": 0.96}})
    raced(device, 8000)
    assert len(device.asked) == len(set(device.asked)) == 20
