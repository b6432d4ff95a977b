"""Everything that is known of a pair before it is opened, and after it was tried."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgespec.backends import ModelOptions
from edgespec.backends.preview import Preview, preview
from edgespec.check.doctor.memory import Memory, memory_of
from edgespec.check.doctor.overlap import OTHER, Overlap, overlap_of
from edgespec.check.doctor.special import Special, special_of
from edgespec.check.doctor.suited import known_pairs, suited_drafters
from edgespec.check.doctor.trial import Trial
from edgespec.drafters.bridges.pairing import vocabulary_of
from edgespec.errors import TokenizerError
from edgespec.files import in_words
from edgespec.session.opening import trimmed
from edgespec.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Report:
    """One pair, or a target alone.

    overlap, special: None without a drafter, or where a vocabulary cannot be read. suited: files
    of drafters here that have the target's own vocabulary. known: names of known pairs for this
    target; both only where there is no drafter of that vocabulary. trial: None if not measured,
    and then `untried` says why. problems: why the pair cannot work, each in a line.
    """

    target: Preview
    drafter: Preview | None
    overlap: Overlap | None
    special: Special | None
    memory: Memory
    suited: tuple[Path, ...] = ()
    known: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    trial: Trial | None = None
    untried: str = ""

    @property
    def works(self) -> bool:
        return not self.problems

    @property
    def has_weights(self) -> bool:
        """Of both models."""
        return all(side.n_params > 0 for side in (self.target, self.drafter) if side is not None)

    def record(self) -> dict[str, Any]:
        """For scripts; edgespec.cli.doctor documents it."""
        return {
            "target": model_record(self.target),
            "drafter": None if self.drafter is None else model_record(self.drafter),
            "overlap": None if self.overlap is None else self.overlap.record(),
            "special": None if self.special is None else self.special.record(),
            "memory": self.memory.record(),
            "suited": [str(path) for path in self.suited],
            "known_pairs": list(self.known),
            "measured": None if self.trial is None else self.trial.record(),
            "not_measured": self.untried,
            "works": self.works,
            "problems": list(self.problems),
        }


def model_record(side: Preview) -> dict[str, Any]:
    """One model, for scripts."""
    return {
        "path": str(side.path),
        "backend": side.backend,
        "architecture": side.architecture,
        "n_params": side.n_params,
        "quant": side.quant,
        "n_vocab": side.n_vocab,
        "n_rows": side.n_vocab if side.token_ids is None else len(side.token_ids),
    }


def examine(
    target: Path,
    draft: Path | None,
    options: tuple[ModelOptions, ModelOptions],
    texts: Sequence[str],
    free_bytes: int | None,
) -> Report:
    """What the files of a pair say, nothing opened but their vocabularies.

    options: of target and drafter. texts: running text. free_bytes: of memory, None if unknown.
    Raises: ModelFileError, UsageError for a file that is no model at all.
    """
    with ExitStack() as opened:

        def looked_at(path: Path, how: ModelOptions) -> Preview:
            return opened.enter_context(closing(preview(path, how)))

        with ThreadPoolExecutor(2) as pool:  # llama.cpp reads vocabularies without Python's lock
            found = list(pool.map(looked_at, [target, draft] if draft else [target], options))
        return judged(found, options[0].n_context, texts, free_bytes)


def judged(
    found: Sequence[Preview], n_context: int, texts: Sequence[str], free_bytes: int | None
) -> Report:
    """The report of a target alone, or of target and drafter. n_context: as asked, or 0."""
    target, draft = found[0], found[1] if len(found) > 1 else None
    problems = [problem for side in found for problem in side.problems]
    if target.token_ids is not None:
        problems.insert(0, trimmed(target.path, len(target.token_ids)))
    ours = _vocabulary(target, problems)
    theirs = None if draft is None else _vocabulary(draft, problems)
    overlap = special = None
    if draft is not None and ours is not None and theirs is not None:
        overlap, special = (
            overlap_of(ours, theirs, texts, draft.token_ids),
            special_of(ours, theirs),
        )
        if not overlap.n_proposable:
            problems.append("no token of the drafter is a token of the target: choose another")
    memory = memory_of(target, draft, n_context, free_bytes)
    problems += _unfit(memory)
    suited, known = list[Path](), list[str]()
    if overlap is None or overlap.kind == OTHER:
        known = known_pairs(target.path)
        if ours is not None and not target.problems:
            suited = suited_drafters(target, ours, None if draft is None else draft.path)
    return Report(
        target, draft, overlap, special, memory, tuple(suited), tuple(known), tuple(problems)
    )


def _vocabulary(side: Preview, problems: list[str]) -> Vocabulary | None:
    """The tokens of a model as bytes, None where it has none; why is added to `problems`."""
    if side.tokenizer is None:
        return None
    try:
        return vocabulary_of(side.tokenizer, side.n_vocab)
    except TokenizerError as error:
        problems.append(f"{side.path.name}: {error}")
        return None


def _unfit(memory: Memory) -> list[str]:
    """Why the memory does not suffice, in a line, if it does not even for the smallest context."""
    if memory.most_context != 0 or memory.free_bytes is None:
        return []
    what = "the model takes" if memory.drafter is None else "both models take"
    return [
        f"{what} {in_words(memory.least_bytes)} even with the smallest context: expected at most "
        f"the {in_words(memory.free_bytes)} that are free; choose fewer bits or a smaller model"
    ]
