"""Records of runs in the "edgespec.run/1" layout, and sums of them; scripts rely on the keys.

Knows nothing of models or text: it is handed numbers and returns plain dictionaries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from edgespec.device import device_card, peak_rss_bytes, version
from edgespec.types import Arm, ModelInfo, SamplingParams, Spent, Stats

SCHEMA = "edgespec.run/1"


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
                     "n_lone", "wall_s", "decode_s", "target_s", "draft_s")
    }  # fmt: skip
    return Stats(
        **summed,
        spent=Spent(*map(sum, zip(*(one.spent for one in stats), strict=True))),
        ttft_s=sum(one.ttft_s for one in stats) / len(stats),
        accepted_by_position=_added([one.accepted_by_position for one in stats]),
        tested_by_position=_added([one.tested_by_position for one in stats]),
        rounds_by_length=_added([one.rounds_by_length for one in stats]),
        arms=_arms(stats),
        plain_token_s=_plain_token_s(stats),
        note=next((one.note for one in reversed(stats) if one.note), ""),
    )


def _arms(stats: Sequence[Stats]) -> dict[str, Arm]:
    """What every source did in all."""
    out: dict[str, Arm] = {}
    for one in stats:
        for name, arm in one.arms.items():
            out[name] = out.get(name, Arm()).plus(arm)
    return out


def _plain_token_s(stats: Sequence[Stats]) -> float:
    """What a token would have taken without drafting; 0 unless known of all of them."""
    known = all(one.plain_token_s > 0 or not one.n_tokens for one in stats)
    n_tokens = sum(one.n_tokens for one in stats)
    plain_s = sum(one.n_tokens * one.plain_token_s for one in stats)
    return plain_s / n_tokens if known and n_tokens else 0.0


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
        "draft_split": stats.spent._asdict(),
        "overhead_s": stats.overhead_s,
        "n_rounds": stats.n_rounds,
        "n_drafted": stats.n_drafted,
        "n_tested": stats.n_tested,
        "n_accepted": stats.n_accepted,
        "acceptance_rate": stats.acceptance_rate,
        "block_efficiency": stats.block_efficiency,
        "accepted_by_position": list(stats.accepted_by_position),
        "tested_by_position": list(stats.tested_by_position),
        "rounds_by_length": list(stats.rounds_by_length),
        "arms": {name: arm._asdict() for name, arm in stats.arms.items()},
        "times_plain": stats.speedup or None,
        "note": stats.note,
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
        "device": info.device,
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
    row = asdict(replace(params, constraint=None, stop_tokens=frozenset()))
    row["constraint"] = params.constraint is not None
    row["stop_tokens"] = sorted(params.stop_tokens)
    row["logit_bias"] = {str(token): bias for token, bias in params.logit_bias.items()}
    return row
