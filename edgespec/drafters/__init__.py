"""Drafters by name; each is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgespec import config
from edgespec.errors import UsageError

DRAFTERS = {**config.DRAFTERS, "mixed": "edgespec.drafters.mixed:MixedDrafter"}


def find_drafter(name: str) -> Any:
    """The class a name stands for. Raises: UsageError listing the names it knows."""
    place = DRAFTERS.get(name)
    if place is None:
        raise UsageError(f"drafter {name!r}: expected one of {', '.join(DRAFTERS)}")
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
