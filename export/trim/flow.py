"""`edgespec export trim` from end to end: calibrate, choose rows, write, measure.

report = run(TrimPlan(Path("drafter.gguf"), Path("small.gguf"), texts=(Path("corpus.txt"),)))
print(report)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgespec.errors import UsageError
from edgespec.types import Progress

from . import budget
from . import pair as trim_pair
from .answers import Answers, Calibration, Question, collect, read_answers, read_texts
from .budget import Candidate
from .endpoint import Endpoint
from .format import Format, format_of, tokenizer_of
from .pair import Answerer, PairRun
from .report import Report, Sides, size_of
from .rows import Counts, Ranking, count, rank

DEFAULT_COVERAGE = 0.99  # where no target is there to measure with
MOST_PROMPTS, MOST_TOKENS = 12, 96  # that a pair is measured on


@dataclass(frozen=True)
class TrimPlan:
    """What to trim, by what text, to what size.

    Text comes from `texts`, `answers`, `endpoint`, or by `origin` from the target's or the
    drafter's own answers to `questions`. Size: one of keep, coverage and budget, or none: budget if
    there is a target that the drafter can draft for, else a coverage of 0.99.
    """

    source: Path
    out: Path
    target: Path | None = None
    keep: int | None = None
    coverage: float | None = None
    budget: bool = False
    texts: tuple[Path, ...] = ()
    answers: Path | None = None
    endpoint: str = ""
    endpoint_model: str = ""
    origin: str = "target"
    questions: tuple[Question, ...] = ()
    n_max: int = 256
    n_drafted: int = 4
    n_parallel: int = 4
    n_threads: int = 0
    to: str = "gguf"
    precision: str = "int4"
    block: int = 32

    @property
    def counted(self) -> str:
        """What tokens are counted in, for the reader."""
        if self.texts:
            return ", ".join(path.name for path in self.texts)
        if self.answers is not None:
            return self.answers.name
        return f"answers of the {'endpoint' if self.endpoint else self.origin}"


def run(plan: TrimPlan, progress: Progress) -> Report:
    """Do it all. Raises: EdgeSpecError, before anything long is begun if it can be seen then."""
    form = format_of(plan.source, plan.to, plan.precision, plan.block)
    check_plan(plan, form)
    tokenizer = tokenizer_of(form.path, form.n_vocab)
    with TemporaryDirectory(prefix="edgespec-trim-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        calibration = calibrate(plan, form, folder, progress)
        ranking, held_out = ranked(plan, tokenizer, form.n_vocab, calibration)
        if plan.keep is not None:
            ranking.size(plan.keep)  # refused before anything is measured
        whole = form.whole(folder)
        before = pair_run(plan, whole, calibration, progress)
        candidates: list[Candidate] = []
        if by_budget(plan) and isinstance(before, PairRun):
            trials = Trials(form, ranking, held_out, folder)
            candidates = trials.measured(plan, before.acceptance, progress)
        k = chosen_size(plan, ranking, candidates)
        files = form.write(plan.out, ranking.ids(k))
        steps = trim_pair.draft_steps([whole, plan.out], progress, n_threads=plan.n_threads)
        after = pair_run(plan, plan.out, calibration, progress)
        n_bytes = Sides(size_of(whole), size_of(plan.out))
    return Report(
        source=form.path, source_sha256=form.sha256, architecture=form.architecture,
        target=plan.target, files=files, origin=plan.counted, ranking=ranking, held_out=held_out,
        n_kept=k, n_params=Sides(form.n_params, form.n_params_of(k)), n_bytes=n_bytes,
        n_drafted=plan.n_drafted, steps=Sides(*steps), runs=Sides(before, after),
        candidates=candidates,
        n_target_params=trim_pair.n_params_of(plan.target) if plan.target else 0,
    )  # fmt: skip


def chosen_size(plan: TrimPlan, ranking: Ranking, candidates: list[Candidate]) -> int:
    """Rows to keep. Raises: UsageError."""
    if candidates:
        return budget.best(candidates).n_kept
    if plan.keep is not None:
        return ranking.size(plan.keep)
    return ranking.size_covering(DEFAULT_COVERAGE if plan.coverage is None else plan.coverage)


def check_plan(plan: TrimPlan, source: Format) -> None:
    """Raises: UsageError for what can be known to fail before any text is read."""
    source.check_out(plan.out)
    if plan.keep is not None and not 1 <= plan.keep <= source.n_vocab:
        raise UsageError(
            f"--keep is {plan.keep}: expected 1 to the {source.n_vocab} of the vocabulary"
        )
    if plan.coverage is not None and not 0 < plan.coverage <= 1:
        raise UsageError(f"--coverage is {plan.coverage}: expected over 0, at most 1")
    given = plan.texts or plan.answers or plan.endpoint or plan.origin == "drafter"
    if plan.target is None and not given:
        raise UsageError(
            "no text to count tokens in: expected a target that answers prompts (--target FILE), "
            "--endpoint URL, --answers FILE, --text FILE or --from drafter"
        )
    if plan.target is None and plan.budget:
        raise UsageError("--budget auto without a target: expected one to measure with (--target)")


def by_budget(plan: TrimPlan) -> bool:
    """Whether the size is to be found by measuring."""
    chosen = plan.keep is not None or plan.coverage is not None
    return plan.budget or (plan.target is not None and not chosen)


def calibrate(plan: TrimPlan, form: Format, folder: Path, progress: Progress) -> Calibration:
    """The text to count tokens in, read or asked for."""
    if plan.texts:
        return read_texts(plan.texts)
    if plan.answers is not None:
        return read_answers(plan.answers)
    stem = plan.out.stem if plan.out.suffix == ".gguf" else plan.out.name
    store = Answers(plan.out.with_name(f"{stem}.answers.jsonl"))
    if plan.endpoint:
        server = Endpoint(plan.endpoint, model=plan.endpoint_model, n_max=plan.n_max)
        return collect(
            plan.questions, server.ask, store, server.who,
            progress=progress, n_parallel=plan.n_parallel,
        )  # fmt: skip
    named, model = plan.target, plan.target
    if plan.origin == "drafter":
        named, model = form.path, form.whole(folder)
    assert named is not None and model is not None
    who = f"{named.name} ({size_of(named)} bytes, {plan.n_max} tokens)"
    with Answerer(model, plan.n_max, plan.n_threads) as answerer:
        return collect(plan.questions, answerer.ask, store, who, progress=progress)


def ranked(
    plan: TrimPlan, tokenizer: Any, n_vocab: int, calibration: Calibration
) -> tuple[Ranking, Counts]:
    """The drafter's tokens by their use in the text and by what the target can write.

    And how often each comes in the held-out text.
    """
    counts = count(tokenizer, calibration.texts, n_vocab)
    held_out = count(tokenizer, calibration.held_out, n_vocab)
    if plan.target is None:
        return rank(tokenizer, counts), held_out
    other = tokenizer_of(plan.target)
    return rank(tokenizer, counts, target=(other, other.n_vocab)), held_out


def pair_run(
    plan: TrimPlan, drafter: Path, calibration: Calibration, progress: Progress
) -> PairRun | str:
    """The target with this drafter on prompts that were not counted, or why that cannot be."""
    if plan.target is None:
        return "no target was given"
    prompts = calibration.prompts or [question.messages for question in plan.questions]
    try:
        return trim_pair.run_pair(
            plan.target, drafter, prompts[:MOST_PROMPTS],
            n_drafted=plan.n_drafted, n_max=min(plan.n_max, MOST_TOKENS),
            n_threads=plan.n_threads, progress=progress,
        )  # fmt: skip
    except UsageError as error:
        if plan.budget:
            raise
        return str(error)


@dataclass(frozen=True)
class Trials:
    """Models of several sizes, made in `folder` only to be timed."""

    form: Format
    ranking: Ranking
    held_out: Counts
    folder: Path

    def measured(self, plan: TrimPlan, acceptance: float, progress: Progress) -> list[Candidate]:
        """The sizes worth a try, with the speed that their draft steps promise."""
        assert plan.target is not None
        ranking = self.ranking
        sizes = [ranking.size(k) for k in budget.sizes_to_try(ranking.n_forced, ranking.n_vocab)]
        paths = [self.form.whole(self.folder)]
        for number, k in enumerate(sizes[1:], 1):
            paths.append(self.form.trial(self.folder, ranking.ids(k)))
            progress("making trial sizes", number / (len(sizes) - 1))
        steps = trim_pair.draft_steps(paths, progress, n_threads=plan.n_threads)
        costs = trim_pair.target_costs(plan.target, plan.n_threads)
        found = []
        for k, step_s in zip(sizes, steps, strict=True):
            covered = 1.0 if k == ranking.n_vocab else ranking.coverage(k, self.held_out)
            found.append(budget.candidate(k, step_s, covered, acceptance, costs))
        return found
