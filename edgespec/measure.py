"""What a run took: memory, a card of this device, and records in the "edgespec.run/1" layout.

Knows nothing of models or text: it is handed numbers and returns plain dictionaries. Scripts
rely on the keys.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from edgespec.types import ModelInfo, SamplingParams, Stats

SCHEMA = "edgespec.run/1"
ISA = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni",
       "amx_int8", "neon", "asimd", "asimddp", "i8mm", "sve", "sve2", "bf16")  # fmt: skip
LIBRARIES = ("numpy", "llama-cpp-python", "onnxruntime")


def peak_rss_bytes() -> int:
    """Most memory this process has held; 0 where the system does not say."""
    peak = re.search(r"VmHWM:\s+(\d+) kB", _read("/proc/self/status"))
    if peak:
        return int(peak[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(used) * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, others KiB


def device_card() -> dict[str, Any]:
    """What this device is: processor, cores, instruction sets, memory, system, library versions."""
    info = _read("/proc/cpuinfo")
    named = re.search(r"^(?:model name|Hardware|Processor)\s*:\s*(.+)$", info, re.MULTILINE)
    flagged = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    flags = set(flagged[1].split()) if flagged else set()
    return {
        "cpu": named[1].strip() if named else platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "n_cores": n_cores(),
        "isa": [name for name in ISA if name in flags],
        "memory_bytes": _memory_bytes(),
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": library_versions(),
    }


def n_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux and Android; the others use all
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries that decide speed, without importing them."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def version() -> str:
    """The installed EdgeSpec's version, "source" when it runs from a source tree."""
    try:
        return metadata.version("edgespec")
    except metadata.PackageNotFoundError:
        return "source"


def outputs_sha256(outputs: Iterable[Sequence[int]]) -> str:
    """One hash over the token ids of every output, in order; equal texts give equal hashes."""
    digest = hashlib.sha256()
    for tokens in outputs:
        digest.update((",".join(map(str, tokens)) + "\n").encode())
    return digest.hexdigest()


def total(stats: Sequence[Stats]) -> Stats:
    """Counts and times of several generations added up; ttft_s is their mean, note the last one."""
    if not stats:
        return Stats()
    summed = {
        name: sum(getattr(one, name) for one in stats)
        for name in ("n_prompt", "n_tokens", "n_rounds", "n_drafted", "n_tested", "n_accepted",
                     "wall_s", "decode_s", "target_s", "draft_s")
    }  # fmt: skip
    return Stats(
        **summed,
        ttft_s=sum(one.ttft_s for one in stats) / len(stats),
        accepted_by_position=_added([one.accepted_by_position for one in stats]),
        tested_by_position=_added([one.tested_by_position for one in stats]),
        rounds_by_length=_added([one.rounds_by_length for one in stats]),
        note=next((one.note for one in reversed(stats) if one.note), ""),
    )


def _added(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Column sums of rows of different lengths."""
    width = max(map(len, rows))
    return tuple(sum(row[i] for row in rows if i < len(row)) for i in range(width))


def run_row(
    method: str, stats: Stats, outputs: Sequence[Sequence[int]], *, prompt_set: str = "prompts"
) -> dict[str, Any]:
    """One entry of "runs": what `method` did on `len(outputs)` prompts; `stats` is their total."""
    return {
        "method": method,
        "prompt_set": prompt_set,
        "n_prompts": len(outputs),
        "n_tokens": stats.n_tokens,
        "wall_s": stats.wall_s,
        "decode_s": stats.decode_s,
        "tokens_per_s": stats.tokens_per_s,
        "ttft_s": stats.ttft_s,
        "target_s": stats.target_s,
        "draft_s": stats.draft_s,
        "overhead_s": stats.overhead_s,
        "n_rounds": stats.n_rounds,
        "n_drafted": stats.n_drafted,
        "n_tested": stats.n_tested,
        "n_accepted": stats.n_accepted,
        "acceptance_rate": stats.acceptance_rate,
        "block_efficiency": stats.block_efficiency,
        "accepted_by_position": list(stats.accepted_by_position),
        "peak_rss_bytes": peak_rss_bytes(),
        "outputs_sha256": outputs_sha256(outputs),
    }


def model_row(info: ModelInfo) -> dict[str, Any]:
    """The "target" or "drafter" entry of a record; placement only where the backend tells it."""
    placed = {"placement": dict(info.placement)} if info.placement else {}
    return {
        "path": info.path,
        "sha256": info.sha256,
        "backend": info.backend,
        "n_params": info.n_params,
        "quant": info.quant,
        **placed,
    }


def record(
    target: ModelInfo,
    drafter: Mapping[str, Any] | None,
    params: SamplingParams,
    runs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The whole object that `--json` writes."""
    return {
        "schema": SCHEMA,
        "edgespec": version(),
        "device": device_card(),
        "target": model_row(target),
        "drafter": dict(drafter) if drafter is not None else None,
        "params": params_row(params),
        "runs": [dict(run) for run in runs],
    }


def params_row(params: SamplingParams) -> dict[str, Any]:
    """The "params" entry: everything that decides the output, in JSON's types."""
    row = asdict(replace(params, constraint=None))
    row["constraint"] = params.constraint is not None
    row["stop_tokens"] = sorted(params.stop_tokens)
    row["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    return row


def _memory_bytes() -> int:
    known = re.search(r"MemTotal:\s+(\d+) kB", _read("/proc/meminfo"))
    if known:
        return int(known[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return 0


def _read(path: str) -> str:
    """A small system file, empty where the system has none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
