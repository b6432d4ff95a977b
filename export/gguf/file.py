"""GGUF files as a whole: opened with clear errors, metadata copied, replaced in one step.

Knows metadata and free disk space; knows nothing of architectures or of what a tensor means.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
from gguf import GGUFValueType

from edgespec.errors import ModelFileError, UsageError

# Facts about one file's bytes, wrong in a file made from it; the writer states its own.
OWN_KEYS = (
    "GGUF.",
    "split.",
    "general.alignment",
    "general.architecture",
    "general.file_type",
    "general.parameter_count",
    "general.quantization_version",
    "general.size_label",
)
STALE_S = 3600  # a running export writes every second; a partial file this old was left by a crash


def open_gguf(path: Path) -> gguf.GGUFReader:
    """A reader with metadata parsed and tensors mapped. Raises: ModelFileError."""
    try:
        return gguf.GGUFReader(path)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror or error}): expected a GGUF file, "
            "check the path"
        ) from error
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelFileError(
            f"{path} is not a complete GGUF file ({error}): download or export it again"
        ) from error


def metadata(reader: gguf.GGUFReader, key: str, default: Any) -> Any:
    """The value stored under `key`, or `default`."""
    field = reader.get_field(key)
    return default if field is None else field.contents()


def copy_metadata(
    reader: gguf.GGUFReader,
    writer: gguf.GGUFWriter,
    changed: Mapping[str, tuple[Any, GGUFValueType]],
    *,
    without: tuple[str, ...] = (),
) -> None:
    """Give `writer` all metadata of `reader` but what is in `changed`, and that too.

    without: beginnings of keys that are left out.
    """
    for field in reader.fields.values():
        if field.name in changed or field.name.startswith((*OWN_KEYS, *without)):
            continue
        is_array = field.types[0] == GGUFValueType.ARRAY
        if is_array and len(field.types) == 1:
            continue  # empty: the writer refuses it, and llama.cpp takes it for an absent one
        sub_type = field.types[-1] if is_array else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub_type)
    for key, (value, value_type) in changed.items():
        writer.add_key_value(key, value, value_type)


@contextmanager
def replacing(target: Path, n_bytes: int) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place at the end, or is gone after an error.

    n_bytes: room that the file will need, looked for first.
    Raises: UsageError when there is no such folder, no room or no right to write.
    """
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    check_room(target, n_bytes)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # a power cut must not leave a short file under the final name
        os.replace(partial, target)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({error.strerror or error}): choose another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def check_room(target: Path, n_bytes: int) -> None:
    """Raises: UsageError unless the folder of `target` exists and has `n_bytes` free."""
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder: create it or choose another target")
    free = shutil.disk_usage(target.parent).free
    if free < n_bytes:
        raise UsageError(
            f"{target.parent} has {free / 1e9:.2f} GB free, {target.name} needs "
            f"{n_bytes / 1e9:.2f} GB: free some space or choose another folder"
        )


def remove_stale(folder: Path) -> None:
    """Delete what interrupted exports left in `folder`."""
    for partial in folder.glob("*.gguf.*.part"):
        try:
            if time.time() - partial.stat().st_mtime > STALE_S:
                partial.unlink()
        except OSError:
            continue  # another process was faster, or still has it open
