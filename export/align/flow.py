"""`edgespec adapt train`: the target answers prompts, its drafter learns from that in all layers.

Writes OUT.gguf and OUT.onnx_adapter, the adapter for each backend, and OUT.merged.gguf, the drafter
with it inside; that alone, where layers were left out. OUT.work keeps the answers, as text too,
the training's state, to go on from, and the adapter of the layers that are left.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from edgespec.errors import UsageError
from edgespec.files import sha256_of, why, write_whole
from edgespec.session.adapting import fingerprint
from edgespec.types import Progress

from .. import lora
from ..gguf.file import check_room
from ..read.checkpoint import Checkpoint
from ..read.gguf import open_gguf_checkpoint
from .gather import ROOM, Asked, as_text, gather, lessons
from .held import Messages, check_several, split, talk
from .layers import check_dropped, least_missed, with_layers
from .lesson import Lesson
from .merge import MERGED, merge
from .recipes import Recipe
from .written import Written

log = logging.getLogger("edgespec")

JUDGED = 8  # answers by which layers are judged
FEWEST = 20  # answers; fewer teach a drafter to say just those
ANSWERS = "answers.jsonl"  # as text, to trim the drafter's head by
INSIDE = ".merged.gguf"  # ends the name of the drafter with the adapter inside


@dataclass(frozen=True)
class AlignPlan:
    """Whom to teach by whom, from what, and where to write.

    rank: of the adapters. n_dropped: layers of the drafter that are left out first. recipe: of
    recipes.KINDS. merged: of merge.KINDS, what the merged file's matrices become.
    """

    asked: Asked
    drafter: Path
    out: Path
    rank: int = 16
    recipe: str = "covering"
    epochs: int = 3
    rate: float = 5e-4
    n_dropped: int = 0
    merged: str = "q8_0"

    @property
    def work(self) -> Path:
        """The folder of what is kept to go on from."""
        return self.out.with_name(self.out.name + ".work")

    @property
    def models(self) -> str:
        """Tells drafter and target from others: two drafters may differ in a few layers alone."""
        return f"{sha256_of(self.drafter)} {fingerprint(self.asked.target)}"


@dataclass(frozen=True)
class Report:
    """Scores on held-out answers before and after, and what was written.

    stored: those of the merged file, whose matrices were rounded again. kept: the layers that are
    left of the drafter's.
    """

    n_answers: int
    n_left_out: int
    n_held_out: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    stored: Mapping[str, float]
    kept: Sequence[int]
    files: Sequence[Path]

    def __str__(self) -> str:
        one, other, last = self.before, self.after, self.stored
        left = f", {self.n_left_out} prompts were too long" if self.n_left_out else ""
        return "\n".join(
            [
                f"taught by {self.n_answers - self.n_held_out} answers{left}; of {self.n_held_out} "
                f"others ({other['n']:,} tokens) the drafter's likeliest token is the target's at "
                f"{other['agreement']:.3f}, {one['agreement']:.3f} before; accepted when drawn "
                f"{other['overlap']:.3f}, {one['overlap']:.3f} before",
                f"as {self.files[-1].name} holds it {last['agreement']:.3f}, {last['overlap']:.3f}",
                *(f"wrote {file}" for file in self.files),
            ]
        )

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "files": [str(file) for file in self.files]}


def run(plan: AlignPlan, progress: Progress) -> Report:
    """Do it all. Raises: EdgeSpecError, before anything long is begun if it can be seen then."""
    if plan.drafter.suffix != ".gguf":
        raise UsageError(f"{plan.drafter} is no GGUF: expected the drafter as a GGUF file")
    recipe = Recipe(plan.recipe, plan.epochs, plan.rate)
    base = open_gguf_checkpoint(plan.drafter)
    check_out(plan)
    check_several([talk(one) for one in plan.asked.prompts])
    try:  # before the time that answers take
        from .network import Network
        from .train import scores, teach
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed: training needs more packages; type `pip install "
            "edgespec[train]`"
        ) from error

    network = Network(plan.drafter)
    check_dropped(network.n_layers, plan.n_dropped)
    answers = gather(plan.asked, plan.work / "answers", progress, fewest=FEWEST)
    write_whole(plan.work / ANSWERS, as_text(plan.asked.target, answers).encode())
    taught, held = divided(plan, answers, progress)
    told = partial(progress, "judging the drafter")
    before = asdict(scores(network, held, recipe.tokens, told))
    kept = chosen_layers(network, taught[:JUDGED], plan, progress)
    network.use(kept)
    network.adapt(plan.rank)
    file, of = plan.work / f"checkpoint-{len(kept)}.pt", f"{plan.models} {kept}"
    teach(network, taught, recipe, file, progress, of=of)
    after = asdict(scores(network, held, recipe.tokens, told))
    with TemporaryDirectory(prefix="edgespec-align-") as folder:
        network.save(Path(folder))
        files = written(plan, with_layers(base, kept), Path(folder))
    stored = asdict(scores(Network(files[-1]), held, recipe.tokens, told))
    n_left_out = len(plan.asked.prompts) - len(answers)
    n = len(taught) + len(held)
    return Report(n, n_left_out, len(held), before, after, stored, kept, files)


def check_out(plan: AlignPlan) -> None:
    """Raises: UsageError where files cannot be written, or a model would be written over."""
    check_name(plan.out)
    check_room(plan.out, MERGED * plan.drafter.stat().st_size)
    check_writable(plan.out, plan.out.parent)
    if plan.work.exists():
        check_writable(plan.out, plan.work)
    for ending in (*lora.ENDINGS.values(), INSIDE):
        file = plan.out.with_name(plan.out.name + ending)
        if file.is_dir():
            raise UsageError(f"-o {plan.out} would write {file}, a folder: expected another name")
        for model in (plan.drafter, plan.asked.target):
            if file.exists() and file.samefile(model):
                raise UsageError(f"-o {plan.out} would write over {model}: expected another name")


def check_name(out: Path) -> None:
    """Raises: UsageError unless `out` is a name without an ending of what is written."""
    if os.path.isdir(out):  # which does not raise where one may not look
        raise UsageError(
            f"-o {out} is a folder: expected the name of files in it; type -o {out / 'drafter'}"
        )
    if out.suffix in lora.ENDINGS.values():
        bare = str(out).removesuffix(out.suffix).removesuffix(".merged")
        endings = " and ".join((*lora.ENDINGS.values(), INSIDE))
        raise UsageError(
            f"-o {out}: expected a name without ending, to which {endings} are added: type -o "
            f"{bare}"
        )


def check_writable(out: Path, folder: Path) -> None:
    """Raises: UsageError for a folder in which nothing can be written."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"-o {out}: {folder}: {why(error)}: expected a folder to write to; name another"
        ) from error


def divided(
    plan: AlignPlan, answers: Sequence[tuple[Messages, Written]], progress: Progress
) -> tuple[list[Lesson], list[Lesson]]:
    """Lessons to learn from, and those held out."""
    spelled = lessons(plan.drafter, plan.asked.target, answers, progress)
    both = zip(spelled, answers, strict=True)
    some = [(one, talk(messages)) for one, (messages, _) in both if len(one.rows)]
    return split([one for one, _ in some], [of for _, of in some])


def chosen_layers(
    network: Any, judged: Sequence[Lesson], plan: AlignPlan, progress: Progress
) -> list[int]:
    """The layers to keep, found once for these models and answers, and kept in a file."""
    from .train import digest, scores

    n_dropped, file = plan.n_dropped, plan.work / f"layers-{plan.n_dropped}.json"
    of = f"{plan.models} {digest(judged)}"
    if n_dropped and (known := kept_layers(file, of)):
        return known

    def score(layers: Sequence[int]) -> float:
        network.use(layers)
        return float(scores(network, judged, ROOM).overlap)

    told = partial(progress, "leaving layers out")
    kept = least_missed(network.n_layers, n_dropped, score, told)
    if n_dropped:
        write_whole(file, json.dumps({"of": of, "layers": kept}).encode())
    return kept


def kept_layers(file: Path, of: str) -> list[int]:
    """Those that were found before; none where that was of other models or answers."""
    if not file.exists():
        return []
    try:
        found = json.loads(file.read_bytes())
        return [int(layer) for layer in found["layers"]] if found["of"] == of else []
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        log.warning("%s cannot be read: layers are judged again", file)
        return []


def written(plan: AlignPlan, base: Checkpoint, adapter: Path) -> list[Path]:
    """The files. base: with the layers that were kept."""
    if plan.n_dropped:  # it does not fit the whole drafter
        name = f"adapter-{base.decoder.n_layers}"
        files = lora.export(adapter, base, plan.work / name, kinds=("gguf",))
    else:
        files = lora.export(adapter, base, plan.out)
    return [*files, merge(base, lora.open_lora(adapter, base), merged_path(plan.out), plan.merged)]


def merged_path(out: Path) -> Path:
    """Where the drafter with the adapter inside goes."""
    return out.with_name(out.name + INSIDE)
