"""Which layers of a GGUF model see only the last tokens, and how many, by its header alone.

As llama.cpp has it: `load_swa_pattern` and the models' own hyperparameters.
"""

from __future__ import annotations

from edgespec.backends.gguf.check import kv_heads
from edgespec.backends.gguf.file import Array, Header

# Of so many layers the last sees all of the text. Others of llama.cpp's keep whole caches here.
PATTERNS = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2}
ASSUMED = {"gemma2": 4096}  # where the file does not say
WITH_OWN = {"gemma3n": 20}  # layers with keys of their own; later ones read those


def window_of(header: Header) -> int:
    """Tokens that the windowed layers see; 0 where none is known to be windowed."""
    name = str(header.metadata["general.architecture"])
    if name not in PATTERNS:
        return 0
    return int(header.metadata.get(f"{name}.attention.sliding_window", ASSUMED.get(name, 0)))


def windowed_layers(header: Header) -> list[bool]:
    """Of each layer whether it sees the last tokens only."""
    name, n = str(header.metadata["general.architecture"]), len(kv_heads(header))
    if not window_of(header):
        return [False] * n
    key = f"{name}.attention.sliding_window_pattern"
    stated = header.metadata.get(key, PATTERNS[name])
    if isinstance(stated, Array):
        return [bool(one) for one in header.numbers(key)]
    every = int(stated)
    return [every == 0 or i % every < every - 1 for i in range(n)]


def n_with_keys(header: Header) -> int:
    """Layers, from the first, that have keys and values of their own."""
    name = str(header.metadata["general.architecture"])
    return min(WITH_OWN.get(name, 1 << 31), len(kv_heads(header)))
