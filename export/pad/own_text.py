"""Text in a model's own words, for calibrating when nobody gives any: its answers to prompts."""

from __future__ import annotations

from pathlib import Path

import edgespec
from edgespec.cli.prompts import GROUPS, interleaved
from edgespec.types import Progress

# In all (twice as many fit a model of 8 M parameters no better); of an answer.
N_TOKENS, LONGEST = 4096, 400


def own_text(
    path: Path, *, n_tokens: int = N_TOKENS, threads: int = 0, progress: Progress | None = None
) -> list[str]:
    """Conversations of `n_tokens` of answers, spelled as the model's chat template has them.

    Likeliest answers to the built-in prompts first, then answers drawn: the same for the same
    model. threads: 0 for all cores. Raises: ModelFileError, UsageError.
    """
    tell = progress or (lambda what, share: None)
    prompts = interleaved(GROUPS["demo"])
    said: list[str] = []
    n_said = 0
    with edgespec.load(path, speculative="off", threads=threads, max_tokens=LONGEST) as session:
        while n_said < n_tokens:
            turn = len(said)
            messages = list(prompts[turn % len(prompts)].messages)
            heat = 1.0 if turn >= len(prompts) else 0.0
            pieces = session.chat(messages, temperature=heat, seed=turn)
            answer = "".join(piece.text for piece in pieces)
            messages.append({"role": "assistant", "content": answer})
            said.append(session.template.text(messages, answer=False))
            n_said += max(1, len(session.turns.output))
            tell(f"letting {path.name} speak, to calibrate with", min(1.0, n_said / n_tokens))
    return said
