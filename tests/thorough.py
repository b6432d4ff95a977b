"""How much a long check does: all where EDGESPEC_THOROUGH is set, else what CI has time for."""

from __future__ import annotations

import os


def of(whole: int, usual: int) -> int:
    """How many."""
    return whole if os.environ.get("EDGESPEC_THOROUGH") else usual
