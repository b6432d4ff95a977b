"""What trimming did, in a few lines for the reader and as a record for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from operator import eq
from pathlib import Path
from typing import Any, Generic, TypeVar

from .budget import Candidate
from .pair import PairRun, mbsu
from .rows import Counts, Ranking

T = TypeVar("T")


@dataclass(frozen=True)
class Sides(Generic[T]):
    """Something of the whole drafter and of the trimmed one."""

    before: T
    after: T


@dataclass(frozen=True)
class Report:
    """All that was found; `str` is for the reader, `record` for scripts.

    files: what was written, the one that is opened first. origin: what tokens were counted in.
    n_bytes: of all that a model needs. steps: seconds a drafted token takes. runs: with the target,
    or why there were none.
    """

    source: Path
    source_sha256: str
    architecture: str
    target: Path | None
    files: list[Path]
    origin: str
    ranking: Ranking
    held_out: Counts
    n_kept: int
    n_params: Sides[int]
    n_bytes: Sides[int]
    n_drafted: int
    steps: Sides[float]
    runs: Sides[PairRun | str]
    candidates: list[Candidate] = field(default_factory=list)
    n_target_params: int = 0

    @property
    def coverage(self) -> float:
        """Of the text that was counted."""
        return self.ranking.coverage(self.n_kept, self.ranking.counts)

    @property
    def coverage_held_out(self) -> float | None:
        """Of text that was not, None if there was too little to hold any out."""
        if not self.held_out.sum():
            return None
        return self.ranking.coverage(self.n_kept, self.held_out)

    @property
    def speed_up(self) -> Sides[float] | None:
        """Expected memory-bound speed-up, None without a pair that was run."""
        before, after = self.runs.before, self.runs.after
        if isinstance(before, str) or isinstance(after, str) or not self.n_target_params:
            return None
        n, k = self.n_target_params, self.n_drafted
        sides = ((before, self.n_params.before), (after, self.n_params.after))
        return Sides(*(mbsu(run, n_params / n, k) for run, n_params in sides))

    @property
    def loss(self) -> float | None:
        """Share of the accepted tokens that the trimmed drafter no longer proposes."""
        before, after = self.runs.before, self.runs.after
        if isinstance(before, str) or isinstance(after, str) or not before.n_accepted:
            return None
        return 1 - after.n_accepted / before.n_accepted

    def __str__(self) -> str:
        n_params, n_bytes, steps = self.n_params, self.n_bytes, self.steps
        held_out = self.coverage_held_out
        unseen = "none was held out" if held_out is None else f"{held_out:.2%} of held-out text"
        lines = [
            f"written      {', '.join(map(named, self.files))}",
            f"rows         {self.n_kept} of {self.ranking.n_vocab}, "
            f"{self.ranking.n_forced} of them always kept",
            f"coverage     {self.coverage:.2%} of {self.ranking.counts.sum()} tokens in "
            f"{self.origin}, {unseen}",
            f"parameters   {n_params.before / 1e6:.2f} M -> {n_params.after / 1e6:.2f} M",
            f"size         {n_bytes.before / 1e6:.2f} MB -> {n_bytes.after / 1e6:.2f} MB",
            f"draft step   {steps.before * 1e3:.3f} ms -> {steps.after * 1e3:.3f} ms "
            f"({steps.after / steps.before:.2f} x)",
            *self._pair_lines(),
            *(
                f"  {one.n_kept:>7} rows: {one.step_s * 1e3:.3f} ms, coverage {one.coverage:.2%}, "
                f"expected {one.tokens_per_s:.1f} tokens/s with {one.draft_length} drafted"
                for one in self.candidates
            ),
        ]
        return "\n".join(lines)

    def _pair_lines(self) -> list[str]:
        before, after, speed_up = self.runs.before, self.runs.after, self.speed_up
        if isinstance(before, str) or isinstance(after, str) or speed_up is None:
            return [f"pair         not run: {after if isinstance(after, str) else before}"]
        lines = [
            f"accepted     {before.n_accepted} -> {after.n_accepted} of {before.n_tokens} tokens, "
            f"{self.n_drafted} drafted a round: {self.loss or 0:.1%} lost",
            f"tokens/round {before.block_efficiency:.3f} -> {after.block_efficiency:.3f}",
            f"expected     memory-bound speed-up {speed_up.before:.3f} -> {speed_up.after:.3f}",
        ]
        same = sum(map(eq, before.outputs, after.outputs))
        lines.append(f"texts        {same} of {len(before.outputs)} identical")
        if same < len(before.outputs):
            lines[-1] += ": `edgespec verify` tells numerical ties from faults"
        return lines

    def record(self) -> dict[str, Any]:
        """The same as JSON can hold it."""
        return {
            "schema": "edgespec.trim/1",
            "source": str(self.source),
            "source_sha256": self.source_sha256,
            "architecture": self.architecture,
            "target": str(self.target) if self.target else None,
            "files": {str(file): size_of(file) for file in self.files},
            "counted_in": self.origin,
            "n_kept": self.n_kept,
            "n_vocab": self.ranking.n_vocab,
            "n_always_kept": self.ranking.n_forced,
            "n_counted": int(self.ranking.counts.sum()),
            "n_held_out": int(self.held_out.sum()),
            "coverage": self.coverage,
            "coverage_held_out": self.coverage_held_out,
            "n_params": asdict(self.n_params),
            "n_bytes": asdict(self.n_bytes),
            "draft_step_s": asdict(self.steps),
            "draft_tokens": self.n_drafted,
            "pair": {"before": run_row(self.runs.before), "after": run_row(self.runs.after)},
            "mbsu": asdict(self.speed_up) if self.speed_up else None,
            "loss_of_accepted": self.loss,
            "candidates": [asdict(one) for one in self.candidates],
        }


def named(path: Path) -> str:
    """A file or folder and its size."""
    return f"{path} ({size_of(path) / 1e6:.2f} MB)"


def size_of(path: Path) -> int:
    """Bytes of the file, or of all files of a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def run_row(run: PairRun | str) -> dict[str, Any] | str:
    """A run as JSON can hold it, or why there was none."""
    if isinstance(run, str):
        return run
    return {**asdict(run), "block_efficiency": run.block_efficiency}
