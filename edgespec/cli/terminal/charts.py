"""Numbers for the reader of a conversation: a line after each answer, bars, a sparkline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from textwrap import wrap

from edgespec.check.record import total
from edgespec.cli.run import ENOUGH
from edgespec.decode.tally import decided
from edgespec.types import Stats

LEVELS = "▁▂▃▄▅▆▇█"
FULL, EMPTY = "█", "░"
DOT = " · "
IN_ASCII = str.maketrans({**dict(zip(LEVELS, "_.:-=+*#", strict=True)), EMPTY: ".", "·": "-"})
MOST_COLUMNS = 100
FEW = 20  # drafted tokens, of which a share would say more than is known


def answer_line(stats: Stats, n_rounds: int, *, where: str = "", cut: str = "") -> str:
    """One answer's speed, what drafting brought and what ran where.

    n_rounds: of the conversation so far. cut: why the answer ended early.
    """
    parts = [f"{stats.tokens_per_s:.1f} tokens/s"]
    if stats.speedup > 0 and stats.n_tested:
        known = n_rounds >= ENOUGH
        parts.append(f"{stats.speedup:.2f}x plain" if known else "finding out what pays")
    if stats.n_tested >= FEW:
        parts.append(f"{stats.acceptance_rate:.0%} accepted")
    elif stats.n_tested:
        parts.append(f"{stats.n_accepted} of {stats.n_tested} accepted")
    return DOT.join([*parts, *(part for part in (cut, where, stats.note) if part)])


def session_chart(answers: Sequence[Stats], width: int) -> str:
    """Totals of all answers, acceptance by position as bars, tokens/s as a sparkline."""
    if not answers:
        return "no answers yet"
    width = min(width, MOST_COLUMNS)
    everything = total(answers)
    lines = [totals(answers, everything)]
    if everything.n_tested:
        lines += ["", "accepted by position in the draft, of those tested there"]
        lines += bars(everything.accepted_by_position, everything.tested_by_position, width)
    if everything.n_drafted:
        folded = [wrap(line, width, subsequent_indent="  ") for line in decided(everything)]
        lines += ["", *chain.from_iterable(folded)]
    if len(answers) > 1:
        speeds = [one.tokens_per_s for one in answers][-max(width - 30, 8) :]
        lines += ["", f"tokens/s  {sparkline(speeds)}  {min(speeds):.1f} to {max(speeds):.1f}"]
    if everything.note:
        lines += ["", everything.note]
    return "\n".join(lines)


def totals(answers: Sequence[Stats], stats: Stats) -> str:
    """How many answers and tokens, how fast, and what drafting brought; stats: their total."""
    text = f"{number(len(answers), 'answer')}, {number(stats.n_tokens, 'token')} in "
    text += f"{stats.decode_s:.1f} s: {stats.tokens_per_s:.1f} tokens/s"
    drafted = [one for one in answers if one.n_tested]
    if drafted and all(one.speedup > 0 for one in drafted):
        plain_s = sum(one.n_tokens * one.plain_token_s for one in drafted)
        text += f", {plain_s / sum(one.decode_s for one in drafted):.2f}x plain where it drafted"
    if stats.n_tested:
        text += f"\n{stats.n_accepted:,} of {number(stats.n_tested, 'tested draft token')} accepted"
        text += f" ({stats.acceptance_rate:.0%}), {stats.block_efficiency:.2f} tokens a round"
    return text


def bars(accepted: Sequence[int], tested: Sequence[int], width: int) -> list[str]:
    """A bar for each position: the share accepted of how many were tested."""
    n_cells = max(width - 24, 8)
    lines = []
    for at, (n_accepted, n) in enumerate(zip(accepted, tested, strict=True), 1):
        share = n_accepted / n if n else 0.0
        full = round(share * n_cells)
        bar = FULL * full + EMPTY * (n_cells - full)
        lines.append(f"{at:>3} {bar} {share:>4.0%} of {n:,}")
    return lines


def sparkline(values: Sequence[float]) -> str:
    """One block for each value, as high as its share of the highest."""
    top = max(values, default=0.0) or 1.0
    return "".join(LEVELS[min(int(max(v, 0) / top * len(LEVELS)), len(LEVELS) - 1)] for v in values)


def number(n: int, of: str) -> str:
    """A count with its noun."""
    return f"{n:,} {of}" if n == 1 else f"{n:,} {of}s"
