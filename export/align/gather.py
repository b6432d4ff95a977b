"""Lessons for a drafter: its target answers prompts; an answer is kept as soon as it ends."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.preview import Preview, with_vocabulary
from edgespec.config import cache_folder, state_folder
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.pairing import Translation, difference
from edgespec.errors import UsageError
from edgespec.session.adapting import First, fingerprint
from edgespec.text.template import ChatTemplate
from edgespec.types import Progress

from . import lesson
from .held import Messages
from .lesson import Lesson, OfTarget, Spell
from .written import Alone, Written, write

log = logging.getLogger("edgespec")

ROOM = 1024  # tokens of a prompt and its answer; longer ones are left out


@dataclass(frozen=True)
class Asked:
    """Prompts to answer. n_max: tokens of an answer. n_parallel: answers written at once."""

    target: Path
    prompts: tuple[Messages, ...]
    n_max: int
    n_parallel: int
    n_threads: int = 0


def gather(
    asked: Asked, folder: Path, progress: Progress, *, fewest: int = 1
) -> list[tuple[Messages, Written]]:
    """Every prompt that fits with its answer, in order; those kept in `folder` are not asked again.

    Raises: EdgeSpecError, where fewer than `fewest` fit before any is read; what was answered until
    then is kept.
    """
    with closing(with_vocabulary(asked.target)) as side:
        assert side.tokenizer is not None
        template = ChatTemplate(side.tokenizer)
        prompts = [template.tokens(one) for one in asked.prompts]
        ends, n = frozenset(side.tokenizer.stop_tokens), n_at_once(side, asked.n_parallel)
    fitting = [i for i, ids in enumerate(prompts) if len(ids) + asked.n_max <= ROOM]
    check_enough(len(fitting), fewest, asked)
    whose = f"{fingerprint(asked.target)} {asked.n_max}"
    files = {i: folder / f"{key(whose, prompts[i])}.npz" for i in fitting}
    found = {i: one for i, file in files.items() if (one := kept(file)) is not None}
    missing = [i for i in fitting if i not in found]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(open_target(asked, n)) as model:
            missed = [prompts[i] for i in missing]
            answers = write(several(model, n), missed, asked.n_max, ends)
            for n_done, (number, one) in enumerate(answers, 1 + len(found)):
                i = missing[number]
                if one is not None:
                    lesson.save(files[i], one)
                    found[i] = one
                progress(f"{asked.target.name} answers", n_done / len(fitting))
    check_enough(len(found), fewest, asked)
    return [(asked.prompts[i], found[i]) for i in sorted(found)]


def check_enough(n: int, fewest: int, asked: Asked) -> None:
    """Raises: UsageError for fewer prompts that fit than `fewest`."""
    if n < fewest:
        raise UsageError(
            f"{n} of {len(asked.prompts)} prompts fit into {ROOM} tokens with {asked.n_max} of an "
            f"answer: expected at least {fewest}; give more or shorter ones, or a smaller -n"
        )


def key(whose: str, ids: Sequence[int]) -> str:
    """Names an answer's file."""
    return hashlib.sha256(f"{whose} {list(ids)}".encode()).hexdigest()[:24]


def kept(file: Path) -> Written | None:
    """An answer that was kept; what cannot be read is asked for again."""
    if not file.exists():
        return None
    try:
        return lesson.load(file)
    except Exception:  # numpy, zipfile and zlib raise many kinds
        log.warning("%s cannot be read: its prompt is answered again", file)
        return None


def as_text(target: Path, answers: Sequence[tuple[Messages, Written]]) -> str:
    """Lines of JSON with `messages` and `answers`, which `export trim --answers` counts in."""
    lines = list[str]()
    with closing(with_vocabulary(target)) as side:
        assert side.tokenizer is not None
        for messages, written in answers:
            said = b"".join(map(side.tokenizer.piece, written.said)).decode(errors="replace")
            line = {"messages": list(messages), "answers": [said]}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)


def n_at_once(target: Preview, n: int) -> int:
    """How many texts it reads at once: n, or one where the backend, or a recurrent state, can take
    no more.
    """
    is_recurrent = target.cache is not None and target.cache.state_bytes > 0
    return 1 if target.backend != "llamacpp" or is_recurrent else n


def open_target(asked: Asked, n: int) -> Any:
    """The target, with room for n texts."""
    return open_model(
        asked.target,
        ModelOptions(n_context=n * ROOM, n_threads=asked.n_threads, max_leaves=n, widths=(n,)),
    )


def several(model: Any, n: int) -> Any:
    """A SharedModel of n texts; of one for any model."""
    if n == 1:
        return Alone(model)
    from edgespec.backends.llamacpp.shared import SharedModel

    return SharedModel(model, n)


def lessons(
    drafter: Path, target: Path, answers: Sequence[tuple[Messages, Written]], progress: Progress
) -> Iterator[Lesson]:
    """The answers as the drafter reads them. Raises: EdgeSpecError."""
    told = partial(progress, "spelling answers")
    with closing(with_vocabulary(drafter)) as one, closing(with_vocabulary(target)) as other:
        assert one.tokenizer is not None and other.tokenizer is not None
        pair = (one.tokenizer, one.n_vocab), (other.tokenizer, other.n_vocab)
        if not difference(*pair):
            for i, (_, written) in enumerate(answers, 1):
                yield lesson.lesson(written, lesson.same, lambda ids: ids)
                told(i / len(answers))
            return
        names = drafter.name, target.name
        translation = Translation(*pair, state_folder(), names, cache=cache_folder())
        ledger = Ledger(translation.mapping)
        of_target: OfTarget = First(translation.mapping)
        spell: Spell = lesson.over(ledger)
        for i, (messages, written) in enumerate(answers, 1):
            spelled = translation.spelled(list(messages))
            ledger.anchor(written.ids[: written.n_prompt] if spelled else [], spelled)
            yield lesson.lesson(written, spell, of_target)
            told(i / len(answers))
