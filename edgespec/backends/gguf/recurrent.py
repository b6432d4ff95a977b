"""Which layers of a GGUF model keep a recurrent state, and how large it is, by its header alone.

As llama.cpp has it: `n_embd_r` and `n_embd_s` of llama-hparams.cpp, in float32 for each layer.
"""

from __future__ import annotations

from edgespec.backends.gguf.check import kv_heads, per_layer
from edgespec.backends.gguf.file import Array, Header

ALL = ("mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7")  # without attention
BOTH = ("falcon-h1",)  # state and attention in every layer
BY_INTERVAL = ("qwen3next", "qwen35", "qwen35moe")  # every n-th layer attends
INTERVAL = 4
BY_HEADS = ("granitehybrid", "jamba", "kimi-linear", "lfm2", "lfm2moe", "plamo2")
WITHOUT_BOTH = ("nemotron_h", "nemotron_h_moe")  # layers with neither heads nor a feed-forward part
KNOWN = (*ALL, *BOTH, *BY_INTERVAL, *BY_HEADS, *WITHOUT_BOTH)
# Where llama.cpp 0.3.36's keeps snapshots (llm_arch_supports_rs_rollback) and we know the sizes.
WITH_SNAPSHOTS = ("lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe")


def both(header: Header) -> bool:
    """Whether layers with a state attend, too."""
    return header.metadata["general.architecture"] in BOTH


def recurrent_layers(header: Header) -> list[bool]:
    """Of each layer whether it keeps a state."""
    heads, name = kv_heads(header), str(header.metadata["general.architecture"])
    if name in ALL or name in BOTH:
        return [True] * len(heads)
    if name in BY_INTERVAL:
        stated = header.metadata.get(f"{name}.attention.recurrent_layers")
        if isinstance(stated, Array):
            return [bool(one) for one in header.numbers(f"{name}.attention.recurrent_layers")]
        every = int(header.metadata.get(f"{name}.full_attention_interval", INTERVAL))
        return [(i + 1) % max(every, 1) != 0 for i in range(len(heads))]
    if name in WITHOUT_BOTH:
        widths = per_layer(header, "feed_forward_length")
        return [n == 0 and width == 0 for n, width in zip(heads, widths, strict=True)]
    if name in BY_HEADS:
        return [n == 0 for n in heads]
    return [False] * len(heads)


def state_bytes(header: Header) -> int:
    """Of the states of one text, all layers together; 0 of a model that only attends."""
    metadata, name = header.metadata, str(header.metadata["general.architecture"])

    def get(key: str, default: int = 0) -> int:
        return int(metadata.get(f"{name}.{key}", default))

    n_embd, groups = get("embedding_length"), get("ssm.group_count")
    inner, width = get("ssm.inner_size"), get("ssm.state_size")
    if head := get("wkv.head_size"):
        numbers = get("token_shift_count", 2) * n_embd + n_embd * head
    elif conv := get("shortconv.l_cache"):
        numbers = n_embd * (conv - 1)
    elif head := get("kda.head_dim"):
        n_heads = max(per_layer(header, "attention.head_count"))
        numbers = (3 * max(get("ssm.conv_kernel") - 1, 0) + head) * head * n_heads
    else:
        numbers = max(get("ssm.conv_kernel") - 1, 0) * (inner + 2 * groups * width) + width * inner
    return 4 * numbers * sum(recurrent_layers(header))
