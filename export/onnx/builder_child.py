"""Runs onnxruntime-genai's model builder; started by builder.py with a Python that has it.

    PYTHON builder_child.py SOURCE OUT PRECISION CACHE [KEY=VALUE ...]

Knows nothing of EdgeSpec, which that Python need not have. Exit code 3: a package is missing.
"""

from __future__ import annotations

import sys
from typing import Any

MISSING = 3


def main(source: str, out: str, precision: str, cache: str, *extra: str) -> int:
    """Write the graph of the checkpoint `source` into the folder `out`."""
    try:
        from onnxruntime_genai.models import builder
    except ImportError as error:
        print(error.name or error, file=sys.stderr)
        return MISSING
    builder.AutoConfig = FlatConfig(builder.AutoConfig)
    options = builder.parse_extra_options("", source, out, precision, "cpu", cache, list(extra))
    builder.create_model("", source, out, precision, "cpu", cache, **options)
    return 0


class FlatConfig:
    """transformers' AutoConfig, its rotary angles as the builder reads them.

    transformers 5 gives Gemma-3 two sets of them; builder 0.18 stops there with KeyError
    'rope_type' unless they are spelled as in transformers 4. At SmolLM3's layers without rotation
    it stops with KeyError 'position_ids': it is told of none, and builder.py takes it out there.
    """

    def __init__(self, real: Any) -> None:
        self._real = real

    def from_pretrained(self, *given: Any, **named: Any) -> Any:
        config = self._real.from_pretrained(*given, **named)
        rope = getattr(config, "rope_parameters", None)
        if isinstance(rope, dict) and {"full_attention", "sliding_attention"} <= set(rope):
            config.rope_theta = rope["full_attention"]["rope_theta"]
            config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
            config.rope_parameters = rope["full_attention"]
        if getattr(config, "no_rope_layers", None):
            config.no_rope_layers = [1] * len(config.no_rope_layers)
        return config


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules must not hide packages
    sys.exit(main(*sys.argv[1:]))
