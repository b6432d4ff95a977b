"""`edgespec adapt export FILE --merge`: a drafter with an adapter of all its layers inside.

The work is edgespec.export.align's.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.files import place


def merged(out: Path, config: Config, drafter: Path, kind: str) -> tuple[list[str], dict[str, Any]]:
    """Write `out`, `drafter` with the adapter of --lora-draft inside; lines and a record.

    kind: what the adapted matrices are stored as. Raises: EdgeSpecError.
    """
    lora = place(config.lora_draft)
    if lora.suffix != ".gguf":
        raise UsageError(
            f"--merge has {config.lora_draft or 'no adapter'}: expected --lora-draft FILE, the "
            ".gguf that `edgespec adapt train` wrote"
        )
    file = place(out)
    if file.suffix != ".gguf" or file.exists():
        raise UsageError(f"{out}: expected a new file's name that ends in .gguf")
    base = import_module("edgespec.export.read.gguf").open_gguf_checkpoint(drafter)
    adapter = import_module("edgespec.export.align.gguf_lora").open_gguf_lora(lora, base)
    import_module("edgespec.export.align.merge").merge(base, adapter, file, kind)
    return [
        f"wrote {out}: {drafter.name} with {lora.name} inside, its matrices as {kind}",
        f"draft with it: -md {out} instead of {drafter.name}",
    ], {"file": str(out)}
