"""The folder of a static ONNX model: what its edgespec.json says, and the arrays beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.errors import ModelFileError

Array = NDArray[Any]


@dataclass(frozen=True)
class StaticFolder:
    """What such a folder holds, from its edgespec.json.

    table [V, n_embd]: the tokens' vectors, mapped. rotation [2, C, head_dim]: factors of each
    position. mask: what hides a position. graphs: file by width. compiled: the same by device.
    """

    path: Path
    about: dict[str, Any]
    table: Array
    rotation: Array

    @classmethod
    def read(cls, path: Path, about: dict[str, Any]) -> StaticFolder:
        """Raises: ModelFileError if the folder is not complete."""
        try:
            if about["kind"] != "static":
                raise ValueError(f"kind {about['kind']}")
            table = np.load(path / about["table"], mmap_mode="r")
            found = cls(path, about, table, np.load(path / about["rotation"]))
            found.check_parts()
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(
                f"{path} is no complete static model ({type(error).__name__}: {error}): expected "
                "what `edgespec export onnx --npu` writes; export it again"
            ) from error
        return found

    def check_parts(self) -> None:
        """Raises: ValueError, KeyError if the parts do not fit each other."""
        about = self.about
        if self.table.shape != (about["n_vocab"], about["n_embd"]):
            raise ValueError(f"table of {self.table.shape}")
        if self.rotation.shape != (2, about["n_context"], about["head_dim"]):
            raise ValueError(f"rotation of {self.rotation.shape}")
        if 1 not in self.widths or len(self.widths) != 2:
            raise ValueError(f"graphs of widths {self.widths}")
        float(about["mask"])

    @property
    def widths(self) -> list[int]:
        """Of the graphs, the narrow one first."""
        return sorted(int(width) for width in self.about["graphs"])

    def graph(self, width: int, device: str) -> Path:
        """The file for `width` tokens, compiled ahead of time for `device` if there is such."""
        files = self.about.get("compiled", {}).get(device, self.about["graphs"])
        return self.path / str(files[str(width)])
