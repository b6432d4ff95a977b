"""The same questions with and without drafting, in turns, on a device that heats up as it goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgespec.check.record import total
from edgespec.session.session import Session
from edgespec.types import Progress, Stats

REPEATS, TOKENS = 3, 48
WITHOUT, WITH = "plain", "auto"
Outputs = tuple[tuple[int, ...], ...]


def compared(
    session: Session,
    questions: Sequence[str],
    check: Callable[[], None],
    progress: Progress | None = None,
) -> dict[str, str | int | float | bool]:
    """Tokens per second both ways, how many times as fast, and how many answers are the same.

    check: raises Cancelled if it is to end. times: the median over repeats, each with nothing
    learned; least and most: of them.
    Raises: Cancelled, BusyError; the session then decodes as before.
    """
    names = (WITHOUT, WITH)
    rows: dict[str, list[tuple[Stats, Outputs]]] = {name: [] for name in names}
    try:
        for name in names:
            _one(session, name, questions[:1], check)  # warm
        for turn in range(REPEATS):
            for i, name in enumerate(names if turn % 2 == 0 else names[::-1]):
                if progress is not None:
                    progress("measuring", (2 * turn + i) / (2 * REPEATS))
                rows[name].append(_one(session, name, questions, check))
    finally:
        session.use(session.pair.way(session.config.speculative))
    plain, drafted = ([stats for stats, _ in rows[name]] for name in names)
    ratios = [b.tokens_per_s / a.tokens_per_s for a, b in zip(plain, drafted, strict=True)]
    said, other = rows[WITHOUT][0][1], rows[WITH][0][1]
    return {
        "without_tokens_per_s": total(plain).tokens_per_s,
        "with_tokens_per_s": total(drafted).tokens_per_s,
        "times": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "acceptance": total(drafted).acceptance_rate,
        "n_tokens": total(plain + drafted).n_tokens,
        "n_same": sum(a == b for a, b in zip(said, other, strict=True)),
        "n_questions": len(questions),
        "note": drafted[-1].note,
    }


def _one(
    session: Session, name: str, questions: Sequence[str], check: Callable[[], None]
) -> tuple[Stats, Outputs]:
    """All questions by one way of decoding, which starts with nothing learned."""
    session.use(session.pair.methods.named(name))
    params = replace(session.params(), max_tokens=TOKENS)
    stats, outputs = list[Stats](), list[tuple[int, ...]]()
    for question in questions:
        prompt = session.prompt([{"role": "user", "content": question}])
        check()
        for _ in session.steps(prompt, params):
            check()
        stats.append(session.stats)
        outputs.append(tuple(session.turns.output))
    return total(stats), tuple(outputs)
