"""Drafters by name; each is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgespec.config import DRAFTERS
from edgespec.errors import UsageError


def find_drafter(name: str) -> Any:
    """The class a name stands for. Raises: UsageError listing the names it knows."""
    if name not in DRAFTERS:
        raise UsageError(f"drafter {name!r}: expected one of {', '.join(DRAFTERS)}")
    return getattr(import_module(f"edgespec.drafters.{name}"), DRAFTERS[name])
