"""A draft model opened beside its target."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from edgespec.backends import ModelOptions
from edgespec.errors import Cancelled, UsageError
from edgespec.session import meanwhile as module
from edgespec.session.meanwhile import Meanwhile


class Model:
    """Remembers how it was opened."""

    def __init__(self, path: Path, options: ModelOptions) -> None:
        self.options, self.closed = options, False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """Those that were opened."""
    opened: list[Model] = []

    def open_model(path: Path, options: ModelOptions) -> Any:
        if path.name == "bad":
            raise UsageError("bad: expected good")
        opened.append(Model(path, options))
        return opened[-1]

    monkeypatch.setattr(module, "open_model", open_model)
    return opened


def begun(name: str = "m") -> Meanwhile:
    one = Meanwhile(Path(name), ModelOptions(n_threads=3), None)
    one.begin(99, 7)
    return one


def test_it_has_the_context_that_its_target_told(models: list[Model]) -> None:
    assert begun().take() is models[0]
    options = models[0].options
    assert (options.n_context, options.counted_by, options.n_threads) == (99, 7, 3)


def test_what_was_taken_stays_open_and_what_was_not_is_closed(models: list[Model]) -> None:
    first, second = begun(), begun()
    first.take()
    first.drop()
    second.drop()
    assert [model.closed for model in models] == [False, True]


def test_what_is_dropped_loads_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    began = Event()

    def open_model(_: Path, options: ModelOptions) -> Any:
        began.set()
        while options.progress is not None:  # for ever, if nobody ends it
            options.progress(0.5)

    monkeypatch.setattr(module, "open_model", open_model)
    one = begun()
    assert began.wait(5)
    one.drop()
    with pytest.raises(Cancelled, match="stopped while loading"):
        one.take()


def test_what_was_never_begun_is_nothing(models: list[Model]) -> None:
    one = Meanwhile(Path("m"), ModelOptions(), None)
    assert one.take() is None
    one.drop()


def test_its_failure_is_raised_where_it_is_taken(models: list[Model]) -> None:
    one = begun("bad")
    with pytest.raises(UsageError, match="bad: expected good"):
        one.take()
    one.drop()
