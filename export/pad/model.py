"""Pad a small Llama or LFM2 GGUF into one that costs as much as a large one and computes the same.

For measuring on a device what a real target would cost, with a trained model's text and without
a download. widen.py says why the function is the same; the file is read back and compared.

    from edgespec.export.pad.model import pad, padded
    print(pad(Path("small.gguf"), Path("large.gguf")))
    path = padded("q4_0", Path("small.gguf"), Path("cache"))   # made once, then found
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from gguf import GGUFValueType

from edgespec.errors import BackendError, ModelFileError, UsageError
from edgespec.files import sha256_of
from edgespec.types import Progress

from ..gguf.file import copy_metadata, open_gguf, remove_stale, replacing
from ..gguf.llama import PlainFile
from ..gguf.quantize import FILE_TYPES, quantize
from .widen import Shape, Tensor, is_exact, make, tensors, widened

RECIPE = 1  # counts changes of what is written, so that a cache never serves an older recipe's file
N_EMBD, N_LAYERS, N_FF = 1536, 16, 5120  # 0.53 B parameters with 4096 tokens, 99 % in the layers


@dataclass(frozen=True)
class PadReport:
    """What was written: sizes of the wide model, bytes and seconds."""

    path: Path
    shape: Shape
    n_params: int
    n_bytes: int
    wall_s: float

    def __str__(self) -> str:
        shape = self.shape
        return (
            f"{self.path}: {self.n_params / 1e6:.0f} M parameters, {self.n_bytes / 1e9:.2f} GB, "
            f"{shape.n_layers} layers of {shape.n_embd} with {shape.n_heads} heads "
            f"({shape.n_kv_heads} for keys) and {shape.n_ff} neurons, {self.wall_s:.0f} s"
        )


def pad(
    source: Path,
    target: Path,
    *,
    n_embd: int = N_EMBD,
    n_layers: int = N_LAYERS,
    n_ff: int = N_FF,
    seed: int = 0,
    progress: Progress | None = None,
) -> PadReport:
    """Write `target`, a wider F16 model with the logits and the vocabulary of `source`.

    source: a Llama or LFM2 GGUF in F16 or F32. `target` appears complete or not at all.
    Raises: ModelFileError for another kind of source, UsageError for sizes that do not fit,
    no room or no folder.
    """
    start_s = time.monotonic()
    small = PlainFile(source)
    if target.exists() and target.samefile(source):
        raise UsageError(f"{target} is the model to pad: choose another name for the padded one")
    wide = widened(small.shape, n_embd, n_layers, n_ff)
    plan = list(tensors(small.shape, wide))
    n_params = sum(math.prod(tensor.stored) for tensor in plan)
    room = sum(n_stored(tensor) for tensor in plan) + source.stat().st_size
    with replacing(target, room) as partial:
        write(partial, small, wide, plan, seed, progress)
        check_stored(partial, small, plan)
        n_bytes = partial.stat().st_size
    return PadReport(target, wide, n_params, n_bytes, time.monotonic() - start_s)


def padded(kind: str, source: Path, cache: Path, progress: Progress | None = None) -> Path:
    """The padded `source` in the folder `cache`, made on first use.

    kind: f16, q8_0, q4_0 or q4_k_m. Files are named after the source's contents and the shape.
    Two processes may ask at once: both make the file, and the later one replaces its equal.
    Raises: as `pad` and `quantize`.
    """
    if kind != "f16" and kind not in FILE_TYPES:
        raise UsageError(f"padded model {kind!r}: expected f16, {', '.join(FILE_TYPES)}")
    stem = f"padded-{content_hash(source)[:12]}-{N_EMBD}x{N_LAYERS}x{N_FF}-r{RECIPE}"
    path = cache / f"{stem}-{kind}.gguf"
    if path.exists():
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{cache} cannot be made ({error.strerror}): choose another") from error
    remove_stale(cache)
    if kind == "f16":
        pad(source, path, n_embd=N_EMBD, n_layers=N_LAYERS, n_ff=N_FF, progress=progress)
    else:
        quantize(padded("f16", source, cache, progress), path, kind, progress=progress)
    return path


def content_hash(path: Path) -> str:
    """SHA-256 of the file, in hexadecimal. Raises: ModelFileError."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror}): expected a GGUF file, check the path"
        ) from error


def n_stored(tensor: Tensor) -> int:
    """Bytes the tensor takes in the file, alignment aside."""
    return math.prod(tensor.stored) * tensor.dtype.itemsize


def write(
    path: Path,
    small: PlainFile,
    wide: Shape,
    plan: list[Tensor],
    seed: int,
    progress: Progress | None,
) -> None:
    """The whole file, one tensor in memory at a time."""
    what = (
        f"padding {small.name} to {sum(math.prod(t.stored) for t in plan) / 1e9:.2f} B parameters"
    )
    with closing(gguf.GGUFWriter(str(path), small.architecture)) as writer:
        copy_metadata(small.reader, writer, changed_metadata(small, wide))
        for tensor in plan:
            writer.add_tensor_info(tensor.name, tensor.stored, tensor.dtype, n_stored(tensor))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for number, tensor in enumerate(plan, 1):
            writer.write_tensor_data(make(tensor, small.weights, seed))
            if progress is not None:
                progress(what, number / len(plan))


def changed_metadata(small: PlainFile, wide: Shape) -> dict[str, tuple[Any, GGUFValueType]]:
    """What the wide file says otherwise than the small one."""
    sizes = {
        "embedding_length": wide.n_embd,
        "block_count": wide.n_layers,
        "feed_forward_length": wide.n_ff,
        "attention.head_count": wide.n_heads,
        "attention.key_length": wide.head_dim,
        "attention.value_length": wide.head_dim,
    }
    eps = small.rms_eps * small.shape.n_embd / wide.n_embd
    kv, kind = "attention.head_count_kv", small.architecture
    if wide.mixers:
        by_layer = [wide.n_kv_heads if mixer == "attention" else 0 for mixer in wide.mixers]
        kv_heads: Any = (by_layer, GGUFValueType.ARRAY)
    else:
        kv_heads = (wide.n_kv_heads, GGUFValueType.UINT32)
    name = f"{small.name} padded to {wide.n_embd}x{wide.n_layers}x{wide.n_ff}"
    return {
        "general.name": (name, GGUFValueType.STRING),
        "general.file_type": (int(gguf.LlamaFileType.MOSTLY_F16), GGUFValueType.UINT32),
        f"{kind}.attention.layer_norm_rms_epsilon": (eps, GGUFValueType.FLOAT32),
        f"{kind}.{kv}": kv_heads,
        **{f"{kind}.{key}": (value, GGUFValueType.UINT32) for key, value in sizes.items()},
    }


def check_stored(path: Path, small: PlainFile, plan: list[Tensor]) -> None:
    """Read the file back. Raises: BackendError for a tensor that would change the function."""
    stored = {tensor.name: tensor.data for tensor in open_gguf(path).tensors}
    for tensor in plan:
        if not is_exact(tensor, stored[tensor.name], small.weights):
            raise BackendError(
                f"{tensor.name} was not stored as computed: expected the same numbers, "
                "check the disk and try again"
            )
