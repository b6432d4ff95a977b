"""A model's folder: written aside and put in place at the end, with the tokenizer it needs."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import gguf

from edgespec.backends.hf_tokenizer import COMPANIONS
from edgespec.backends.onnx.folder import DESCRIPTION
from edgespec.backends.vocabulary import GGUF, HF
from edgespec.errors import ModelFileError, UsageError

from ..gguf.file import check_room, copy_metadata, metadata, open_gguf


@contextmanager
def new_folder(target: Path, n_bytes: int) -> Iterator[Path]:
    """A folder beside `target` that takes its place at the end, or is gone after an error.

    n_bytes: room that it will need, looked for first.
    Raises: UsageError for a target that holds something else, or without room or right to write.
    """
    if target.exists() and not (target / DESCRIPTION).is_file():
        raise UsageError(f"{target} is there and is no exported model: choose another folder")
    check_room(target, n_bytes)
    mark = uuid.uuid4().hex[:8]
    partial, old = (target.with_name(f"{target.name}.{mark}.{end}") for end in ("part", "old"))
    try:
        partial.mkdir()
        yield partial
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(partial, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({error.strerror or error}): choose another folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_vocabulary(source: Path, folder: Path) -> str:
    """Give `folder` the tokenizer of `source` (a GGUF, or a folder) and return its file's name.

    Raises: ModelFileError if `source` has none.
    """
    if source.is_dir():
        for name in (HF, *COMPANIONS):
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        if not (folder / HF).is_file():
            raise ModelFileError(f"{source} has no {HF}: expected a tokenizer; fetch it too")
        return HF
    reader = open_gguf(source)
    architecture = str(metadata(reader, "general.architecture", ""))
    with closing(gguf.GGUFWriter(str(folder / GGUF), architecture)) as writer:
        copy_metadata(reader, writer, {})
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
    return GGUF
