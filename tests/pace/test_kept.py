"""What was learned of acceptance, from one session to the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgespec.drafters.mixed import Mixed
from edgespec.drafters.ngram import NgramDrafter
from edgespec.pace.cost import CostTable, DraftCosts
from edgespec.pace.kept import Kept
from edgespec.pace.planner import AutoPlanner
from edgespec.pace.source import outcomes
from edgespec.types import NO_DRAFT, Round, Times, Verdict


class Silent:
    name, n_leaves = "model", 1

    def draft(self, context, k, drawing=None):
        return NO_DRAFT

    def observe(self, done):
        pass

    def close(self):
        pass


def mixed() -> Mixed:
    return Mixed([NgramDrafter(), Silent()], AutoPlanner(CostTable((1.0, *[1.3] * 16))))


def taught(one: Mixed, n: int, n_hits: int) -> Mixed:
    one.planner.plan("model", (), 0.05)
    for _ in range(n):
        one.planner.learn("model", (0.6, 0.4), outcomes(2, n_hits))
        one.planner.learn("ngram", (0.6,), (0,))
    return one


def test_a_fresh_session_begins_with_what_the_last_one_learned(tmp_path: Path):
    file = tmp_path / "pace" / "pair.json"
    first = mixed()
    kept = Kept(file, first)
    assert first.planner.plan("model", (), 0.05).width > 0
    taught(first, 200, 0)
    kept.save()
    second = mixed()
    Kept(file, second)
    assert second.planner.plan("model", (), 0.05).width == 0
    second.planner.learn("ngram", (0.6,), (0,))
    assert second.saved()["planner"]["sources"] == first.saved()["planner"]["sources"]
    assert "ngram" not in json.loads(file.read_text())["planner"]["sources"]


def test_a_known_source_is_scored_when_what_that_takes_is_saved_up(tmp_path: Path):
    waited = list[int]()
    for step_s in (0.05, 0.5):
        file, first = tmp_path / f"{step_s}.json", mixed()
        first._paid[0].costs = DraftCosts(step_s)
        kept = Kept(file, first)
        taught(first, 200, 0)
        kept.save()
        one = mixed()
        Kept(file, one)
        waited.append(0)
        while not one.planner.may_score("model"):
            one.planner.observe(Round((), NO_DRAFT, Verdict((1,), (), 0), Times(0.0, 1.0)))
            waited[-1] += 1
    assert waited[0] == pytest.approx(1.15 / 0.009, abs=3)
    assert waited[1] == pytest.approx(2.5 / 0.009, abs=3)


def test_little_that_is_new_is_not_worth_writing(tmp_path: Path):
    file, one = tmp_path / "pair.json", mixed()
    kept = Kept(file, one)
    kept.save()
    taught(one, 5, 2)
    kept.save(at_least=32)
    assert not file.exists()
    kept.save()
    before = file.stat().st_mtime_ns
    kept.save()
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"planner": {"gain": 1, "sources": [1]}, "usual": 9, "steps": {}}',
        '{"planner": {"gain": 1, "sources": {"model": {}}}, "usual": 9, "steps": {}}',
        '{"planner": {"gain": NaN, "sources": {}}, "usual": -1, "steps": {}}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_as_good_as_none(text: str, tmp_path: Path, caplog):
    file = tmp_path / "pair.json"
    file.write_text(text)
    with caplog.at_level("INFO"):
        one = mixed()
        Kept(file, one)
    assert "acceptance is learned anew" in caplog.text
    assert one.saved() == mixed().saved()
    taught(one, 5, 2)
    done = Round([0, 1], NO_DRAFT, Verdict((1,), (), 0), Times(0.0, 1.0))
    one.observe(done)


def test_half_of_a_file_changes_nothing(tmp_path: Path):
    file, one = tmp_path / "pair.json", taught(mixed(), 50, 1)
    data = one.saved()
    del data["planner"]["sources"]["model"]["coming"]["own"]
    file.write_text(json.dumps(data))
    other = mixed()
    Kept(file, other)
    assert other.planner.plan("model", (), 0.05) == mixed().planner.plan("model", (), 0.05)
