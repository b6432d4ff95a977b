"""Is a GGUF file a language model that llama.cpp can open without ending the process?

llama.cpp asserts on metadata that contradicts itself, and an assertion there kills the caller.
Each rule below raises one ModelFileError instead. Shapes that llama.cpp itself refuses politely
are left to it; what neither sees is caught by trial.py.
"""

from __future__ import annotations

from collections import Counter
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from edgespec.backends.gguf.file import STRING, Array, Header, read_header, refusal

MAX_LAYERS = 512  # llama.cpp's LLAMA_MAX_LAYERS and LLAMA_MAX_EXPERTS
MAX_CONTEXT = 1 << 28
MAX_WIDTH = 1 << 20
BYTE_TOKEN = 6  # llama.cpp's token types are 1 to 6
NO_TOKENIZER = ("none", "no_vocab")
FLOATS = ("F32", "F16", "BF16")
NOT_WEIGHTS = ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")
MATRICES = {"token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output"}
MATRICES |= {"ffn_gate", "ffn_up", "ffn_down"}
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
ADAPTER = "adapter"
# What is not one causal model over text, by general.type or architecture.
OTHER_KINDS = {ADAPTER: "a LoRA adapter", "mmproj": "a projector", "clip": "a projector"}
ADAPTERS_USE = "give it with --lora-draft, beside its draft model"


def check_file(path: Path, *, spelled: bool = True) -> Header:
    """The header of a sound language model, all its parts present. Raises: ModelFileError.

    spelled: look at every token too, 95 ms for 150,000.
    """
    return check_model(read_header(path), spelled=spelled)


def check_model(header: Header, *, spelled: bool = True) -> Header:
    """The header itself, of a sound model whose parts are all present; otherwise as above."""
    path = header.path
    _check_kind(header)
    if not header.tensors:
        raise refusal(
            path, "holds a vocabulary only", "weights", "name a model, or use it as a tokenizer"
        )
    for rule in (_check_sizes, _check_heads, _check_rope, _check_experts, _check_numbers):
        rule(_Facts(header))
    n_vocab = _check_vocabulary(header, spelled)
    _check_tensors(header, n_vocab)
    for part in parts(header):
        if part != path:
            read_header(part)
    return header


def check_vocabulary(path: Path) -> Header:
    """The header of a file that has a tokenizer, with or without weights.

    Raises: ModelFileError.
    """
    return check_tokenizer(read_header(path))


def check_tokenizer(header: Header) -> Header:
    """The header itself, if it has a sound tokenizer. Raises: ModelFileError."""
    _check_kind(header)
    if header.metadata.get("tokenizer.ggml.model") in (None, *NO_TOKENIZER):
        raise refusal(
            header.path, "has no tokenizer", "a vocabulary", "name the model it was made from"
        )
    _check_numbers(_Facts(header))
    _check_vocabulary(header)
    return header


def check_shape(header: Header) -> None:
    """Raises: ModelFileError unless layers and heads are stated and go together."""
    for rule in (_check_sizes, _check_heads):
        rule(_Facts(header))


def parts(header: Header) -> list[Path]:
    """The files of a model in several parts, itself included.

    Raises: ModelFileError if one is missing.
    """
    path, count = header.path, header.metadata.get("split.count", 1)
    if count == 1 or count == 0:
        return [path]
    number = header.metadata.get("split.no", 0)
    mark = f"-{number + 1:05d}-of-{count:05d}.gguf" if _whole(number) and _whole(count) else ""
    if not mark or not path.name.endswith(mark) or count > 65535:
        raise refusal(path, f"says it is one of {count} parts", f"a name ending in {mark!r}")
    if number != 0:
        raise refusal(path, f"is part {number + 1} of {count}", "part 1", "name the first part")
    stem = path.name[: -len(mark)]
    found = [path.with_name(f"{stem}-{i + 1:05d}-of-{count:05d}.gguf") for i in range(count)]
    for part in found:
        if not part.is_file():
            raise refusal(path, f"needs {part.name}", f"all {count} parts beside it")
    return found


class _Facts:
    """Metadata of one model by its short names: `block_count` for `llama.block_count`."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.architecture: str = header.metadata["general.architecture"]

    def get(self, name: str, default: Any = None) -> Any:
        return self.header.metadata.get(f"{self.architecture}.{name}", default)

    def whole(self, name: str, low: int, high: int) -> int:
        """A required whole number in [low, high]."""
        value = self.get(name)
        if not _whole(value) or not low <= value <= high:
            self.bad(name, value, f"{low} to {high}")
        return int(value)

    def per_layer(self, name: str, n_layers: int, high: int, default: int) -> list[int]:
        """A number for each layer, given once or as an array."""
        value = self.get(name, default)
        if isinstance(value, Array):
            if value.count < n_layers or value.kind not in (4, 5):
                self.bad(name, f"an array of {value.count}", f"{n_layers} whole numbers")
            key = f"{self.architecture}.{name}"
            found = [int(n) for n in self.header.numbers(key)[:n_layers]]
        elif _whole(value):
            found = [value] * n_layers
        else:
            self.bad(name, value, "a whole number")
        if not all(0 <= n <= high for n in found):
            self.bad(name, found, f"0 to {high}")
        return found

    def bad(self, name: str, seen: object, expected: str) -> NoReturn:
        raise refusal(
            self.header.path, f"has {self.architecture}.{name} = {str(seen)[:60]}", expected
        )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_kind(header: Header) -> None:
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise refusal(header.path, "names no architecture", "general.architecture")
    for kind in (architecture, metadata.get("general.type")):
        if kind in OTHER_KINDS:
            use = ADAPTERS_USE if kind == ADAPTER else ""
            raise refusal(header.path, f"is {OTHER_KINDS[kind]}", "a language model", use)


def _check_sizes(facts: _Facts) -> None:
    facts.whole("block_count", 1, MAX_LAYERS)
    facts.whole("embedding_length", 1, MAX_WIDTH)
    facts.whole("context_length", 1, MAX_CONTEXT)
    if facts.get("attention.causal", True) is not True:
        facts.bad("attention.causal", False, "a model that writes text from left to right")


def _check_heads(facts: _Facts) -> None:
    n_layers, width = facts.get("block_count"), facts.get("embedding_length")
    heads = facts.per_layer("attention.head_count", n_layers, 1 << 16, 0)
    shared = facts.per_layer("attention.head_count_kv", n_layers, 1 << 16, 0)
    facts.per_layer("feed_forward_length", n_layers, 1 << 26, 0)
    given = facts.get("attention.head_count_kv") is not None
    for n, n_kv in zip(heads, shared if given else heads, strict=True):
        if n_kv and n % n_kv:
            facts.bad("attention.head_count_kv", n_kv, f"a divisor of {n}")
    for name in ("attention.key_length", "attention.value_length"):
        if facts.get(name) is not None:
            facts.whole(name, 1, 1 << 16)
        elif heads[0] and width % heads[0]:
            facts.bad("attention.head_count", heads[0], f"a divisor of {width}")
    if facts.architecture == "llama":
        lengths = {head_length(facts.header, which) for which in ("key", "value")}
        if not all(heads) or not all(shared if given else heads):
            facts.bad("attention.head_count", heads, "1 or more in every layer")
        if len(lengths) > 1:
            facts.bad("attention.value_length", lengths, "the length of the keys")


def head_length(header: Header, which: str) -> int:
    """Width of one attention head's keys or values (`which`: key, value)."""
    facts = _Facts(header)
    given = facts.get(f"attention.{which}_length")
    if given is not None:
        return int(given)
    n_layers = facts.get("block_count")
    heads = facts.per_layer("attention.head_count", n_layers, 1 << 16, 0)[0]
    return int(facts.get("embedding_length")) // heads if heads else 0


def per_layer(header: Header, name: str) -> list[int]:
    """A number of each layer, 0 where the file does not state it. Raises: ModelFileError."""
    facts = _Facts(header)
    return facts.per_layer(name, facts.get("block_count"), 1 << 26, 0)


def kv_heads(header: Header) -> list[int]:
    """Heads of keys and values in each layer."""
    facts = _Facts(header)
    n_layers = facts.get("block_count")
    heads = facts.per_layer("attention.head_count", n_layers, 1 << 16, 0)
    if facts.get("attention.head_count_kv") is None:
        return heads
    return facts.per_layer("attention.head_count_kv", n_layers, 1 << 16, 0)


def _check_rope(facts: _Facts) -> None:
    turned = facts.get("rope.dimension_count")
    length = head_length(facts.header, "key")
    if turned is not None and (not _whole(turned) or turned < 0 or turned % 2 or turned > 1 << 16):
        facts.bad("rope.dimension_count", turned, "an even number")
    if facts.architecture == "llama" and (length % 2 or turned not in (None, length)):
        facts.bad("rope.dimension_count", turned, f"the head length {length}, even")
    base = facts.get("rope.freq_base", 10000.0)
    if not isinstance(base, float) or not 0 < base < 1e12:
        facts.bad("rope.freq_base", base, "over 0")
    scaling = facts.get("rope.scaling.type", "none")
    if scaling not in ROPE_SCALINGS:
        facts.bad("rope.scaling.type", scaling, " or ".join(ROPE_SCALINGS))
    factor = facts.get("rope.scaling.factor", 1.0)
    if not isinstance(factor, float) or not 0 <= factor < 1e6:
        facts.bad("rope.scaling.factor", factor, "over 0")


def _check_experts(facts: _Facts) -> None:
    total, n_layers = facts.get("expert_count", 0), facts.get("block_count")
    if not _whole(total) or not 0 <= total <= MAX_LAYERS:
        facts.bad("expert_count", total, f"0 to {MAX_LAYERS}")
    used = max(facts.per_layer("expert_used_count", n_layers, MAX_LAYERS, 0))
    if used > total or (total > 0 and used == 0):
        facts.bad("expert_used_count", used, f"1 to {total}" if total else "0")
    groups, kept = facts.get("expert_group_count", 0), facts.get("expert_group_used_count", 0)
    if not _whole(groups) or not 0 <= groups <= max(total - 1, 0):
        facts.bad("expert_group_count", groups, f"fewer than the {total} experts")
    if groups > 1 and (total % groups or not _whole(kept) or not 0 < kept < groups):
        facts.bad("expert_group_used_count", kept, f"1 to {groups - 1}, {groups} dividing {total}")


def _check_numbers(facts: _Facts) -> None:
    for key, value in facts.header.metadata.items():
        if isinstance(value, float) and not isfinite(value):
            raise refusal(facts.header.path, f"has {key} = {value}", "a finite number")
        if key.endswith("epsilon") and not (isinstance(value, float) and 0 <= value <= 0.1):
            raise refusal(facts.header.path, f"has {key} = {value}", "0 to 0.1")


def _check_vocabulary(header: Header, spelled: bool = True) -> int:
    """Size of the vocabulary. Raises: ModelFileError if its lists disagree."""
    metadata, path = header.metadata, header.path
    model = metadata.get("tokenizer.ggml.model")
    if not isinstance(model, str):
        raise refusal(path, "names no tokenizer", "tokenizer.ggml.model")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if tokens is None and model in NO_TOKENIZER:
        size = metadata.get(f"{metadata['general.architecture']}.vocab_size", 0)
        return int(size) if _whole(size) else 0
    if not isinstance(tokens, Array) or tokens.kind != STRING or not 0 < tokens.count < 1 << 24:
        raise refusal(path, "has no list of tokens", "tokenizer.ggml.tokens, an array of strings")
    for name, kinds in (("scores", (6, 5)), ("token_type", (4, 5))):
        values = metadata.get(f"tokenizer.ggml.{name}")
        if values is not None and (
            not isinstance(values, Array) or values.kind not in kinds or values.count < tokens.count
        ):
            raise refusal(path, f"has a bad list tokenizer.ggml.{name}", f"{tokens.count} numbers")
    merges = metadata.get("tokenizer.ggml.merges")
    if merges is not None and (not isinstance(merges, Array) or merges.kind != STRING):
        raise refusal(path, "has bad merges", "an array of strings")
    if spelled:
        _check_spellings(header)
    return tokens.count


def _check_spellings(header: Header) -> None:
    # llama.cpp asserts that no spelling comes twice, but reads them to the first zero byte only
    # and names the empty ones itself; of byte tokens it cuts out two digits without looking.
    spellings = header.strings("tokenizer.ggml.tokens")
    named = [spelling for spelling in spellings if spelling]
    if b"\0" in b"".join(spellings):  # seldom, and slow
        named = [cut for spelling in spellings if (cut := spelling.partition(b"\0")[0])]
    if len(set(named)) < len(named):
        twice, _ = Counter(named).most_common(1)[0]
        raise refusal(header.path, f"has the token {twice[:20]!r} twice", "each token once")
    if "tokenizer.ggml.token_type" not in header.metadata:
        return
    kinds = header.numbers("tokenizer.ggml.token_type")
    for at in (kinds[: len(spellings)] == BYTE_TOKEN).nonzero()[0]:
        spelling = spellings[at]
        if not (len(spelling) == 6 and spelling.startswith(b"<0x")):
            raise refusal(header.path, f"has a byte token spelled {spelling[:20]!r}", "<0x00>")


def _check_tensors(header: Header, n_vocab: int) -> None:
    path, tensors = header.path, header.tensors
    width = header.metadata[f"{header.metadata['general.architecture']}.embedding_length"]
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        if header.metadata.get("split.count", 1) not in (0, 1):
            return  # it may lie in another part
        raise refusal(path, "has no token_embd.weight", "a language model")
    n_vocab = n_vocab or embedding.shape[-1]
    for name in ("token_embd.weight", "output.weight"):
        if name in tensors and tensors[name].shape != (width, n_vocab):
            expected = f"{(width, n_vocab)}, the width and vocabulary it claims"
            raise refusal(path, f"has {name} of shape {tensors[name].shape}", expected)
    norm = tensors.get("output_norm.weight")
    if norm is not None and norm.shape != (width,):
        raise refusal(path, f"has output_norm.weight of shape {norm.shape}", f"({width},)")
    for tensor in tensors.values():
        kind = tensor.name.removesuffix(".weight").rpartition(".")[2]
        wrong = kind in MATRICES and tensor.kind in NOT_WEIGHTS
        if wrong or (kind.endswith("norm") and tensor.kind not in FLOATS):
            raise refusal(path, f"has {tensor.name} of type {tensor.kind}", "weights")
