"""The model that an export starts from, whichever form it lies in."""

from __future__ import annotations

from pathlib import Path

from edgespec.errors import ModelFileError

from .checkpoint import Checkpoint


def open_checkpoint(path: Path) -> Checkpoint:
    """The GGUF file or the Hugging Face folder `path`. Raises: ModelFileError."""
    if path.is_dir():
        from .hf import open_hf

        return open_hf(path)
    if not path.exists():
        raise ModelFileError(f"{path} is not there: expected a GGUF file or a Hugging Face folder")
    from .gguf import open_gguf_checkpoint

    return open_gguf_checkpoint(path)
