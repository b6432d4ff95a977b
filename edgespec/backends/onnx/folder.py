"""The folder of an exported ONNX model: what its edgespec.json says, and what lies beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError
from edgespec.files import sha256_of
from edgespec.types import FloatArray

DESCRIPTION, FORMAT, GRAPH = "edgespec.json", 1, "model.onnx"
NEEDED = ("kind", "architecture", "name", "n_vocab", "n_embd", "n_context", "n_params", "quant",
          "tokenizer", "token_ids")  # fmt: skip
COUNTS = ("n_vocab", "n_embd", "n_context", "n_params")
KINDS = ("dynamic", "static")
CHANNEL = "int8-channel"  # the quant of a graph whose products are of two parts of its inputs


def folder_of(path: Path) -> Path:
    """The folder that a path of -m means: itself, or where its model.onnx or edgespec.json lies."""
    return path.parent if path.name in (GRAPH, DESCRIPTION) else path


def description(path: Path) -> dict[str, Any]:
    """What the folder's edgespec.json says. Raises: ModelFileError."""
    try:
        about: dict[str, Any] = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}")
        missing = [key for key in NEEDED if key not in about]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
        wrong = [key for key in COUNTS if type(about[key]) is not int or about[key] < 1]
        wrong += [] if about["kind"] in KINDS else ["kind"]
        if wrong:
            raise ValueError(f"{wrong[0]} {about[wrong[0]]!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{path} is no exported model ({type(error).__name__}: {error}): expected a folder "
            "that `edgespec export onnx` wrote; export it again"
        ) from error
    return about


def token_ids(path: Path, about: Mapping[str, Any]) -> NDArray[np.int32] | None:
    """The ids [K] of a trimmed head's columns, None for a whole head. Raises: ModelFileError."""
    name = about["token_ids"]
    if name is None:
        return None
    try:
        if Path(name).name != name:  # a folder must not be able to have another one read
            raise ValueError(f"{name!r} is elsewhere")
        ids = np.load(path / name)
        if ids.ndim != 1 or ids.dtype.kind != "i" or not 0 < len(ids) <= about["n_vocab"]:
            raise ValueError(f"an array {ids.shape} of {ids.dtype}")
        if ids.min() < 0 or ids.max() >= about["n_vocab"]:
            raise ValueError(f"ids {ids.min()} to {ids.max()}, beyond the vocabulary")
        return np.asarray(ids, np.int32)
    except (OSError, ValueError, TypeError, EOFError, AttributeError) as error:
        raise ModelFileError(f"{path}: {error}: expected its token ids; export it again") from error


def head_rows(path: Path, about: Mapping[str, Any], tokens: Sequence[int]) -> FloatArray | None:
    """Rows [n, n_embd] of the whole head of a trimmed graph; None where the folder has none.

    They are the input's, in the file of weights. Raises: ModelFileError.
    """
    place = about.get("table")
    if place is None:
        return None
    file, shape = path / f"{GRAPH}.data", (int(about["n_vocab"]), int(about["n_embd"]))
    try:
        kind = np.dtype({"float16": "<f2", "float32": "<f4"}[place["type"]])
        table = np.memmap(file, kind, "r", int(place["offset"]), shape)
        if not 0 < (scale := float(place["scale"])) < inf:
            raise ValueError(f"scale {scale}")
        return table[list(tokens)].astype(np.float32) / np.float32(scale)
    except (OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        raise ModelFileError(
            f"{path}: {type(error).__name__}: {error}: expected its table; export it again"
        ) from error


def hash_of(path: Path) -> str:
    """SHA-256 over the folder's graphs and weights, in order of their names."""
    return sha256_of(*sorted(file for file in path.iterdir() if file.suffix in (".onnx", ".data")))


def size_of(path: Path) -> int:
    """Bytes of all files."""
    return sum(file.stat().st_size for file in path.iterdir())
