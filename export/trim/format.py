"""The formats a trimmed drafter can have, each with what the rest of trimming asks of it.

GGUF from GGUF, its rows as they are stored; ONNX from a GGUF or a Hugging Face folder, through the
ONNX export. Which rows, and what they are worth, is decided elsewhere.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Protocol

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.backends.onnx.folder import DESCRIPTION
from edgespec.backends.vocabulary import HF, open_tokenizer
from edgespec.errors import UsageError
from edgespec.files import sha256_of

from ..gguf.file import check_room
from ..read.checkpoint import Checkpoint
from ..read.source import open_checkpoint
from .file import Ids, open_source, write_model, write_vocabulary
from .head import check_target, trim, vocabulary_path


class Format(Protocol):
    """A source that can be trimmed to one format. n_params: of the whole model."""

    path: Path
    architecture: str
    n_vocab: int
    n_params: int
    sha256: str

    def check_out(self, out: Path) -> None:
        """Raises: UsageError if `out` is no place to write to."""
        ...

    def n_params_of(self, n_kept: int) -> int:
        """Parameters with so many rows."""
        ...

    def whole(self, folder: Path) -> Path:
        """The untrimmed model in this format; made in `folder` if it is not there already."""
        ...

    def trial(self, folder: Path, ids: Ids) -> Path:
        """The model with these rows, made in `folder` to be timed and thrown away."""
        ...

    def write(self, out: Path, ids: Ids) -> list[Path]:
        """The model with these rows, checked; what was written, first what is to be opened."""
        ...


def format_of(source: Path, to: str, precision: str, block: int) -> Format:
    """The source, opened to be trimmed to `to` (gguf, onnx). Raises: UsageError, ModelFileError."""
    if to == "onnx":
        return OnnxFormat(source, precision, block)
    if source.is_dir():
        raise UsageError(
            f"{source} is a folder: expected a GGUF file; convert it to one, or use --to onnx"
        )
    return GgufFormat(source)


class GgufFormat:
    """A GGUF file cut by rows."""

    def __init__(self, path: Path) -> None:
        """Raises: ModelFileError for a model that cannot be trimmed."""
        source = self._source = open_source(path)
        self.path, self.architecture, self.sha256 = path, source.architecture, source.sha256
        self.n_vocab, self.n_params = source.n_vocab, source.n_params

    def check_out(self, out: Path) -> None:
        """See Format."""
        check_target(out, self.path)
        check_room(out, 0)

    def n_params_of(self, n_kept: int) -> int:
        """See Format."""
        return self._source.n_params_of(n_kept)

    def whole(self, folder: Path) -> Path:
        """See Format."""
        return self.path

    def trial(self, folder: Path, ids: Ids) -> Path:
        """See Format. All trials share one vocabulary file."""
        path, vocabulary = folder / f"trial-{len(ids)}.gguf", folder / "trial.vocab.gguf"
        check_room(path, self._source.n_bytes_of(len(ids)) + self.path.stat().st_size)
        if not vocabulary.exists():
            write_vocabulary(vocabulary, self._source)
        write_model(path, self._source, ids, vocabulary.name, vocabulary.stat().st_size)
        return path

    def write(self, out: Path, ids: Ids) -> list[Path]:
        """See Format."""
        trim(self._source, out, ids)
        return [out, vocabulary_path(out)]


class OnnxFormat:
    """A GGUF or Hugging Face model as an ONNX folder, its head cut by rows."""

    def __init__(self, path: Path, precision: str, block: int) -> None:
        """Raises: ModelFileError for a model that cannot be exported."""
        checkpoint = open_checkpoint(path)
        self._checkpoint: Checkpoint = checkpoint
        from edgespec.export.onnx.graph import GraphOptions  # pulls onnx

        self._options = GraphOptions(precision=precision, block=block)
        self.path, self.architecture = path, checkpoint.decoder.architecture
        self.n_vocab: int = checkpoint.decoder.n_vocab
        self.sha256 = sha256_of(path / "config.json" if path.is_dir() else path)
        sizes = {name: checkpoint[name].shape for name in checkpoint.tensors}
        self.n_params: int = sum(math.prod(shape) for shape in sizes.values())

    def check_out(self, out: Path) -> None:
        """See Format."""
        if out.exists() and out.samefile(self.path):
            raise UsageError(f"{out} is the model to trim: choose another name for the result")
        check_room(out, 0)

    def n_params_of(self, n_kept: int) -> int:
        """See Format. What a token reads: all but the input vectors of the other tokens."""
        n_embd: int = self._checkpoint.decoder.n_embd
        return self.n_params - (self.n_vocab - n_kept) * n_embd

    def whole(self, folder: Path) -> Path:
        """See Format."""
        path = folder / "whole"
        if not path.exists():
            self._export(self._checkpoint, path)
        return path

    def trial(self, folder: Path, ids: Ids) -> Path:
        """See Format."""
        path = folder / f"trial-{len(ids)}"
        self._export(self._checkpoint.with_head(ids), path)
        return path

    def write(self, out: Path, ids: Ids) -> list[Path]:
        """See Format."""
        self._export(self._checkpoint.with_head(ids), out)
        return [out]

    def _export(self, checkpoint: Checkpoint, out: Path) -> None:
        from edgespec.export.onnx.export import export  # pulls onnx

        export(checkpoint, out, self._options)


def tokenizer_of(path: Path, n_vocab: int = 0) -> Any:
    """The tokenizer of a model in any format, to be used as a protocols.Tokenizer.

    Raises: ModelFileError.
    """
    if not path.is_dir():
        return LlamaCppTokenizer.open(path)
    about = path / DESCRIPTION
    name = json.loads(about.read_text(encoding="utf-8"))["tokenizer"] if about.exists() else HF
    return open_tokenizer(path, name, n_vocab=n_vocab)
