"""What training goes on from: checkpoints are whole, and a damaged one is said and not used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgespec.export.align.recipes import Recipe
from test_align import Toy, a_lesson

torch: Any = pytest.importorskip("torch", reason="the extra `train` is not installed")

RECIPE = Recipe(epochs=2, rate=0.05, tokens=48)
LESSONS = [a_lesson(1 + i % 6, n_pieces=i % 2) for i in range(20)]
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "begun": lambda data: data[:200],
    "cut": lambda data: data[:-300],
    "another file": lambda data: b"damaged",
    "overwritten": lambda data: data[:100] + 400 * b"?" + data[500:],
}


def taught(file: Path) -> tuple[Any, list[float]]:
    """The table of a network that was taught, and the shares that training told of."""
    from edgespec.export.align.train import teach

    network, told = Toy(), list[float]()
    teach(network, LESSONS, RECIPE, file, lambda what, share: told.append(share), of="toy")
    return network.state()["table"], told


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_said_and_training_begins_anew(
    name: str, tmp_path: Path, caplog
) -> None:
    file = tmp_path / "checkpoint.pt"
    table, told = taught(file)
    assert taught(file)[1] == []
    file.write_bytes(DAMAGE[name](file.read_bytes()))
    again, told_again = taught(file)
    assert told_again == told
    assert (again == table).all()
    assert caplog.messages == [f"{file} cannot be read: training begins anew"]


@pytest.mark.parametrize("part", ["adapters", "optimizer", "step"])
def test_a_checkpoint_of_other_sizes_changes_nothing(part: str, tmp_path: Path, caplog) -> None:
    file = tmp_path / "checkpoint.pt"
    table, told = taught(file)
    state = torch.load(file, weights_only=True)
    others = {"adapters": {"table": torch.ones(2, 2)}, "optimizer": {"state": {}}, "step": "last"}
    torch.save({**state, part: others[part]}, file)
    again, told_again = taught(file)
    assert told_again == told
    assert (again == table).all()
    assert "training begins anew" in caplog.text


def test_a_checkpoint_that_is_not_written_to_its_end_leaves_the_one_before(
    tmp_path: Path, monkeypatch
) -> None:
    from edgespec.export.align import train

    file = tmp_path / "checkpoint.pt"
    taught(file)
    before = file.read_bytes()

    def stopped(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(train.torch, "save", stopped)
    network = Toy()
    with pytest.raises(KeyboardInterrupt):
        train.keep(network, torch.optim.AdamW(network.parameters), file, "toy", 1)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_judging_is_told_as_it_goes() -> None:
    from edgespec.export.align.train import scores

    told = list[float]()
    scores(Toy(), LESSONS, 24, told.append)
    assert len(told) > 5
    assert told == sorted(told) and told[-1] == 1


def test_spelling_is_told_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgespec.export.align.gather import lessons
    from test_align import ASKED, demo
    from test_lessons import written

    told = list[tuple[str, float]]()
    answers = [(messages, written((1, 2, 3, 4), 2)) for messages in ASKED]
    progress = lambda what, share: told.append((what, share))  # noqa: E731
    assert len(list(lessons(demo("drafter"), demo("target"), answers, progress))) == 3
    assert [share for _, share in told] == pytest.approx([1 / 3, 2 / 3, 1])
    assert {what for what, _ in told} == {"spelling answers"}
