"""What `edgespec adapt show` says of drafters' heads, by day, and draws with --plot."""

from __future__ import annotations

import io
from dataclasses import asdict
from math import nan
from pathlib import Path
from typing import Any

from edgespec.adapt import adapter_file, topic_files
from edgespec.adapt.adapter_file import Day, Head
from edgespec.adapt.learned import is_being_written
from edgespec.cli.adapt_pair import topics_of
from edgespec.config import Config, state_folder
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import in_words, place, write_whole

SHOWN = 7  # days, the latest


def heads() -> tuple[list[str], list[dict[str, Any]]]:
    """Every version of every pair's head, in lines and rows."""
    lines, rows = [], []
    for file in topic_files.files_in(state_folder()):
        if is_being_written(file):
            continue
        row: dict[str, Any] = {"file": str(file)}
        try:
            if file.suffix == topic_files.ENDING:
                lines.append(f"{file.stem}  {routed(file)}")
                continue
            head, n_bytes = adapter_file.read(file).head, file.stat().st_size
        except (ModelFileError, OSError):
            about = ["cannot be used: `edgespec adapt reset --all` deletes it"]
        else:
            about = described(head, n_bytes)
            row |= {"n_bytes": n_bytes, **asdict(head)}
        rows.append(row)
        lines += [f"{file.stem}  {about[0]}", *(f"  {line}" for line in about[1:])]
    return lines, rows


def described(head: Head, n_bytes: int) -> list[str]:
    """A version in words, a line for each of its latest days."""
    about = f"a drafter's head, rank {head.rank}, {head.n_rows:,} rows, {in_words(n_bytes)}"
    days = sorted(head.days.items())[-SHOWN:]
    return [about, *(f"{day}: {told(did)}" for day, did in days)]


def routed(file: Path) -> str:
    """A pair's topics in words. Raises: ModelFileError, OSError."""
    counts = topic_files.read(file).familiar.counts
    each = ", ".join(f"{n:,} of topic {topic}" for topic, n in enumerate(counts) if n)
    return f"prompts by topic: {each or 'none'}, {in_words(file.stat().st_size)}"


def told(did: Day) -> str:
    """A day in words."""
    gain = f"{did.before:.2f} -> {did.after:.2f} tokens a round accepted of held-out text"
    return f"{did.n_updates} updates by {did.n_positions:,} positions, {gain}"


def plot(config: Config, picture: Path) -> str:
    """Draw what the pair's heads learned by days; a line that says so. Raises: UsageError."""
    found = enumerate(files.load() for files in topics_of(config).heads)
    learned = {topic: one.head.days for topic, one in found if one is not None and one.head.days}
    if not learned:
        raise UsageError(
            "this pair's drafter has learned nothing yet: expected a day on which it did; chat "
            "with --adapt first"
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError(
            "matplotlib is not installed: expected it for --plot; type `pip install edgespec[plot]`"
        ) from error
    days = sorted({day for one in learned.values() for day in one})
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for of, one in learned.items():
        which = f", topic {of}" if len(learned) > 1 else ""
        for when in ("before", "after"):
            values = [getattr(one.get(day), when, nan) for day in days]
            axes.plot(days, values, "o-", label=f"{when} the day{which}")
    axes.set(ylabel="accepted tokens a round", ylim=(0, None))
    axes.tick_params(axis="x", rotation=30)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    write_whole(place(picture), data.getvalue())
    return f"drew {len(days)} {'day' if len(days) == 1 else 'days'} in {picture}"
