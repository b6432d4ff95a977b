"""A Hugging Face folder as a Checkpoint: config.json and safetensors, whole or in shards.

Tensors get their GGUF names and are read when asked for; no rows are permuted, so rotated pairs are
(i, i + rope_dim / 2) whatever the architecture. Needs neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
from gguf.constants import MODEL_ARCH_NAMES

from edgespec.backends.hf_tokenizer import read_object
from edgespec.errors import ModelFileError

from .checkpoint import HEAD, TOKENS, Checkpoint, Decoder, Tensor
from .hf_config import GEMMAS, HfConfig, decoder_of
from .safetensors import SafeTensors

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_WEIGHTS = (".rotary_emb.inv_freq",)  # buffers that old checkpoints kept
HEAD_NORMED = ("qwen3", "gemma3")


class HfTensors(Mapping[str, Tensor]):
    """Tensors by GGUF name. A Gemma's norms get the 1 that its code adds."""

    def __init__(self, names: dict[str, tuple[SafeTensors, str]], architecture: str) -> None:
        self._names, self._architecture = names, architecture

    def __getitem__(self, name: str) -> Tensor:
        file, stored = self._names[name]
        tensor = file[stored]
        if self._architecture in GEMMAS and name.endswith("norm.weight"):
            return Tensor("F32", tensor.shape, tensor.floats() + 1)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor, without reading it."""
        file, stored = self._names[name]
        return file.shape(stored)


def open_hf(folder: Path) -> Checkpoint:
    """The model in `folder`. Raises: ModelFileError if it is incomplete or not supported."""
    if not folder.is_dir():
        raise ModelFileError(
            f"{folder} is no folder: expected one with config.json; check the path"
        )
    config = HfConfig(folder)
    decoder = decoder_of(config)
    found = named(folder, decoder)
    tied = config.values.get("tie_word_embeddings")
    if tied or (tied is None and HEAD not in found):
        found.pop(HEAD, None)
    needed = shapes(decoder) | ({HEAD: (decoder.n_vocab, decoder.n_embd)} if tied is False else {})
    tensors = HfTensors(found, decoder.architecture)
    check_tensors(folder, tensors, needed)
    return Checkpoint(folder, folder.resolve().name, decoder, tensors, vocabulary=folder)


def named(folder: Path, decoder: Decoder) -> dict[str, tuple[SafeTensors, str]]:
    """Where the tensor of each GGUF name lies. Raises: ModelFileError for one nobody knows."""
    kind = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == decoder.architecture)
    names = gguf.get_tensor_name_map(kind, decoder.n_layers)
    found = {}
    for stored, file in files(folder).items():
        if stored.endswith(NOT_WEIGHTS):
            continue
        name = names.get_name(stored, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ModelFileError(
                f"{folder} has the tensor {stored}: expected those of a {decoder.architecture} of "
                f"{decoder.n_layers} layers only; choose another model"
            )
        found[name] = (file, stored)
    return found


def files(folder: Path) -> dict[str, SafeTensors]:
    """The open file that holds each tensor. Raises: ModelFileError naming what is missing."""
    if (folder / WHOLE).is_file():
        whole = SafeTensors(folder / WHOLE)
        return dict.fromkeys(whole, whole)
    if not (folder / INDEX).is_file():
        raise ModelFileError(f"{folder} has {without_weights(folder)}")
    places = read_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelFileError(f"{folder / INDEX} has no weight_map: fetch it again")
    shards = sorted({str(place) for place in places.values()})
    if foreign := [shard for shard in shards if Path(shard).name != shard]:
        raise ModelFileError(f"{folder / INDEX} names {foreign[0]!r}: expected files beside it")
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelFileError(
            f"{folder} lacks {missing[0]}{more}: expected all {len(shards)} shards that "
            f"{INDEX} names; fetch the missing ones"
        )
    opened = {shard: SafeTensors(folder / shard) for shard in shards}
    for name, shard in places.items():
        if name not in opened[shard]:
            raise ModelFileError(
                f"{folder / shard} lacks the tensor {name}: expected what {INDEX} says; "
                "fetch both again"
            )
    return {name: opened[shard] for name, shard in places.items()}


def without_weights(folder: Path) -> str:
    """What a folder without safetensors has instead, and what to do."""
    if any(folder.glob("pytorch_model*.bin*")):
        return (
            "its weights as pytorch_model.bin only: expected model.safetensors; let transformers' "
            "AutoModelForCausalLM load it and save_pretrained"
        )
    if any(folder.glob("*.gguf")):
        return "GGUF files only: expected model.safetensors; name the GGUF file itself"
    return f"no {WHOLE} and no {INDEX}: expected one of them; fetch all files of the model"


def check_tensors(folder: Path, tensors: HfTensors, needed: Mapping[str, tuple[int, ...]]) -> None:
    """Raises: ModelFileError if a tensor is missing, or of another shape than config.json's."""
    for name, shape in needed.items():
        if name not in tensors:
            raise ModelFileError(
                f"{folder} has no {name}: expected the weights that config.json describes; "
                "fetch all files of the model"
            )
        seen = tensors.shape(name)
        if seen != shape:
            raise ModelFileError(
                f"{folder} has {name} of shape {list(seen)}: expected {list(shape)} by "
                "config.json; fetch both again"
            )
    for name in tensors:
        if name in needed:
            continue
        matrix = needed.get(f"{name.removesuffix('.bias')}.weight", ())
        known = name == HEAD or (name.endswith(".bias") and len(matrix) == 2)
        shape = needed[TOKENS] if name == HEAD else matrix[:1]
        if not known or tensors.shape(name) != shape:
            raise ModelFileError(
                f"{folder} has {name} of shape {list(tensors.shape(name))}: expected no such "
                "tensor by config.json; choose another model"
            )


def shapes(decoder: Decoder) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor the architecture must have, but a head of its own."""
    n_embd, n_ff, architecture = decoder.n_embd, decoder.n_ff, decoder.architecture
    q, kv = decoder.n_heads * decoder.head_dim, decoder.n_kv_heads * decoder.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (n_embd,),
        "ffn_norm.weight": (n_embd,),
        "attn_output.weight": (n_embd, q),
        "ffn_down.weight": (n_embd, n_ff),
    }
    if architecture == "phi3":
        layer |= {"attn_qkv.weight": (q + 2 * kv, n_embd), "ffn_up.weight": (2 * n_ff, n_embd)}
    else:
        layer |= {"attn_q.weight": (q, n_embd), "attn_k.weight": (kv, n_embd)}
        layer |= {"attn_v.weight": (kv, n_embd), "ffn_gate.weight": (n_ff, n_embd)}
        layer["ffn_up.weight"] = (n_ff, n_embd)
    if architecture == "qwen2":
        layer |= {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    if architecture in HEAD_NORMED:
        norm = (decoder.head_dim,)
        layer |= {"attn_q_norm.weight": norm, "attn_k_norm.weight": norm}
    if architecture in GEMMAS:
        layer |= {"post_attention_norm.weight": (n_embd,), "post_ffw_norm.weight": (n_embd,)}
    found = {TOKENS: (decoder.n_vocab, n_embd), "output_norm.weight": (n_embd,)}
    for at in range(decoder.n_layers):
        found |= {f"blk.{at}.{name}": shape for name, shape in layer.items()}
    return found
