"""What a pair has learned is saved by its method, and by nobody who merely measures."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgespec
from edgespec.adapt.learned import Learned, file_of

ASK = [{"role": "user", "content": "Tell me a story about a little dog."}]


class Count:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def save(self, *, at_least: int = 1) -> None:
        self.asked.append(at_least)


def test_every_kind_is_saved_between_answers_if_worth_it_and_at_the_end():
    one, other = Count(), Count()
    learned = Learned([one, other])
    learned.save_if_worth()
    learned.save()
    assert one.asked == other.asked == [32, 1]


def test_a_file_is_named_by_kind_and_both_fingerprints(tmp_path: Path):
    found = file_of(tmp_path, "ngrams", "a" * 64, "b" * 64, ".bin")
    assert found == tmp_path / "ngrams" / f"{'a' * 12}-{'b' * 12}.bin"


@pytest.mark.slow
def test_a_method_that_is_measured_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    with edgespec.load(pair="demo-foreign", speculative="off", max_tokens=80) as session:
        session.use(session.pair.methods.named("fixed-4"))
        assert sum(1 for _ in session.chat(ASK)) > 20
    assert list(tmp_path.rglob("*.bin")) == []
    with edgespec.load(pair="demo-foreign", speculative="on", max_tokens=80) as session:
        assert sum(1 for _ in session.chat(ASK)) > 20
    assert len(list(tmp_path.rglob("*.bin"))) == 1
