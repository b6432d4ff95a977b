"""Quantize a GGUF with llama.cpp's own quantizer, in a process of its own.

A process because the quantizer cannot be interrupted, writes its log straight to stderr and may
abort on a bad file; here Ctrl-C stops it, its log goes to `logging`, an abort becomes an error.

    from edgespec.export.gguf.quantize import quantize
    quantize(Path("model-f16.gguf"), Path("model-q4_0.gguf"), "q4_0")
"""

from __future__ import annotations

import ctypes
import logging
import re
import subprocess
import sys
from pathlib import Path

from edgespec.errors import BackendError, UsageError
from edgespec.types import Progress

from .file import open_gguf, replacing

FILE_TYPES = {"q8_0": 7, "q4_0": 2, "q4_k_m": 15}  # numbers of enum llama_ftype
ROOM = {"q8_0": 0.56, "q4_0": 0.40, "q4_k_m": 0.40}  # share of an F16 file, Q6_K output included
TENSOR_LINE = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")  # the quantizer's log, one line per tensor

log = logging.getLogger(__name__)


def quantize(
    source: Path,
    target: Path,
    kind: str,
    *,
    progress: Progress | None = None,
) -> None:
    """Write `target`, the model in `source` (F16 or F32) as q8_0, q4_0 or q4_k_m.

    `target` appears complete or not at all.
    Raises: UsageError for another kind, no room or no folder; ModelFileError for a source that
    is no GGUF; BackendError when the quantizer refuses or fails.
    """
    if kind not in FILE_TYPES:
        raise UsageError(f"kind is {kind!r}: expected one of {', '.join(FILE_TYPES)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{target} is the model to quantize: choose another name for the result")
    names = [tensor.name for tensor in open_gguf(source).tensors]
    with replacing(target, int(ROOM[kind] * source.stat().st_size)) as partial:
        run_quantizer(source, partial, kind, progress or (lambda what, share: None))
        if sorted(tensor.name for tensor in open_gguf(partial).tensors) != sorted(names):
            raise BackendError(
                f"{target.name} lacks tensors of {source.name}: expected all {len(names)}, "
                "install another version of llama-cpp-python"
            )


def run_quantizer(source: Path, partial: Path, kind: str, progress: Progress) -> None:
    """Run this module as a program and follow its log; kills it when interrupted."""
    if not sys.executable:
        raise BackendError("no Python program to run the quantizer: quantize on a computer")
    words = [sys.executable, "-m", __name__, str(source), str(partial), str(FILE_TYPES[kind])]
    complaint = ""
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                log.debug("%s", line.rstrip())
                if found := TENSOR_LINE.search(line):
                    progress(f"quantizing to {kind}", int(found[1]) / int(found[2]))
                complaint = line.strip() or complaint
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise BackendError(
            f"{source} could not be quantized to {kind} ({complaint or process.returncode}): "
            "expected a model in F16 or F32"
        )


def main() -> int:
    """The child process: source, target and file type as arguments, llama.cpp's log on stderr."""
    import llama_cpp  # slow to load and not needed by the parent

    source, target, file_type = sys.argv[1:]
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = int(file_type)
    paths = source.encode(), target.encode()
    return int(llama_cpp.llama_model_quantize(*paths, ctypes.byref(params)))


if __name__ == "__main__":
    sys.exit(main())
