"""GET /v1/models: models as OpenAI lists them, and whether they are open."""

from __future__ import annotations

from typing import Any, cast

from edgespec.server.choices import Opened
from edgespec.server.house import House, Resident


def listed(house: House) -> dict[str, Any]:
    """The models that are open and those that could be, the first one first; then what is not here.

    As OpenAI lists models; `status` and `to_fetch` are EdgeSpec's own.
    """
    choices, residents = house.choices(), house.open()
    names = [name for name, one in choices.items() if not one.missing]
    names = sorted(dict.fromkeys([*residents, *names]), key=lambda name: name != house.first)
    rows = [model_row(name, residents.get(name)) for name in names]
    absent = [{"id": one.name, "why": one.missing} for one in choices.values() if one.missing]
    return {"object": "list", "data": rows, "to_fetch": absent}


def row_of(house: House, name: str) -> dict[str, Any]:
    """One of them. Raises: Refusal."""
    name = house.named(name)
    residents = house.open()
    if name not in residents:
        house.choice(name)
    return model_row(name, residents.get(name))


def model_row(name: str, resident: Resident | None) -> dict[str, Any]:
    """A model as OpenAI lists it; resident: where it is open."""
    row = {"id": name, "object": "model", "created": 0, "owned_by": "edgespec"}
    if resident is None or resident.opened is None:
        return {**row, "status": "available"}
    length = cast(Opened, resident.opened).n_context
    return {**row, "created": resident.since, "status": "loaded", "max_model_len": length}
