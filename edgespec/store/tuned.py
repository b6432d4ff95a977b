"""Tuned pairs: a name for models and for how they run best here, as `edgespec tune` found it.

One TOML file each, in pairs/ beside config.toml: option values, as in config.toml, and a table
[measured] with what they were chosen by. `--pair NAME` puts them below config.toml, but for the
models, which stand where the pair is named.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgespec.config import Config, Layer, config_file, laid, with_values
from edgespec.errors import UsageError
from edgespec.files import text_of, write_whole
from edgespec.option import MODELS
from edgespec.store import pairs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TunedPair:
    """values: of Config's options. measured: numbers and texts, for who wants to know why."""

    name: str
    values: Mapping[str, Any]
    measured: Mapping[str, Any] = field(default_factory=dict)


def folder() -> Path:
    """Where tuned pairs lie."""
    return config_file().parent / "pairs"


def names() -> list[str]:
    """Names of all tuned pairs, sorted."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(name: str) -> TunedPair | None:
    """The tuned pair of that name, None if there is none. Raises: UsageError naming its file."""
    path = folder() / f"{name}.toml"
    if not NAME.fullmatch(name) or not path.is_file():
        return None
    try:
        values = tomllib.loads(text_of(path, expected="a TOML file"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}: tune the pair again") from error
    measured = values.pop("measured", {})
    with_values(Config(), values, str(path))
    return TunedPair(name, values, measured)


def check_name(name: str) -> None:
    """Raises: UsageError for a name that a tuned pair cannot have."""
    if not NAME.fullmatch(name):
        raise UsageError(f"--name {name!r}: expected letters, digits, dots and dashes")
    if name in (*pairs.names(), *pairs.ALIASES):
        raise UsageError(f"--name {name}: a pair of EdgeSpec's own has it: expected another")


def save(pair: TunedPair) -> Path:
    """The file it is written to, in place of an earlier one of its name. Raises: UsageError."""
    check_name(pair.name)
    lines = [f"{key} = {_toml(value)}" for key, value in pair.values.items()]
    lines += ["", "[measured]", *(f"{k} = {_toml(v)}" for k, v in pair.measured.items())]
    path = folder() / f"{pair.name}.toml"
    write_whole(path, "\n".join([*lines, ""]).encode(), ours=True)
    return path


def remove(name: str) -> int:
    """Delete a tuned pair, not its models; the bytes this frees."""
    path = folder() / f"{name}.toml"
    freed = path.stat().st_size
    path.unlink()
    return freed


def applied(said: Sequence[Layer], base: Config) -> Config:
    """`base` with what the user says over it, and if that names a tuned pair and no model, with
    what was tuned: settings where base has the usual ones, below all that is said; models where
    the pair is named.

    Raises: UsageError.
    """
    config = laid(base, said)
    pair = None if config.model or config.hf_repo else find(config.pair)
    if pair is None:
        return config
    named = {key: value for key, value in pair.values.items() if key in ("pair", *MODELS)}
    settled = {
        key: value for key, value in pair.values.items()
        if key not in named and getattr(base, key) == getattr(Config, key)
    }  # fmt: skip
    models: Layer = {"pair": base.pair, **named}, f"pair {pair.name}"
    opened = list[Layer]()
    for values, source in said:
        if values.get("pair") == config.pair:
            opened.append(models)
            values = {key: value for key, value in values.items() if key != "pair"}
        opened.append((values, source))
    below = with_values(base, settled, f"pair {pair.name}")
    return laid(replace(below, settled=frozenset(settled)), opened)


def _toml(value: Any) -> str:
    """A text, number, truth value, list or table in TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + "".join(f"\n  {_toml(one)}," for one in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)  # TOML's strings have JSON's escapes


def _key(name: str) -> str:
    """A key of a table, quoted where it must be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
