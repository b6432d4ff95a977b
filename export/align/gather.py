"""Lessons for a drafter: its target answers prompts; an answer is kept as soon as it ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgespec.backends import ModelOptions, backend_of, open_model
from edgespec.backends.preview import with_vocabulary
from edgespec.config import cache_folder, state_folder
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.pairing import Translation, difference
from edgespec.session.adapting import First, fingerprint
from edgespec.text.template import ChatTemplate
from edgespec.types import Progress

from . import lesson
from .lesson import Lesson, Spell
from .written import Alone, Written, write

Messages = Sequence[Mapping[str, Any]]
ROOM = 1024  # tokens of a prompt and its answer; longer ones are left out


@dataclass(frozen=True)
class Asked:
    """Prompts to answer. n_max: tokens of an answer. n_parallel: answers written at once."""

    target: Path
    prompts: tuple[Messages, ...]
    n_max: int
    n_parallel: int
    n_threads: int = 0


def gather(asked: Asked, folder: Path, progress: Progress) -> list[tuple[Messages, Written]]:
    """Every prompt that fits with its answer, in order; those kept in `folder` are not asked again.

    Raises: EdgeSpecError; what was answered until then is kept.
    """
    with closing(with_vocabulary(asked.target)) as side:
        assert side.tokenizer is not None
        template = ChatTemplate(side.tokenizer)
        prompts = [template.tokens(one) for one in asked.prompts]
        ends = frozenset(side.tokenizer.stop_tokens)
    whose = f"{fingerprint(asked.target)} {asked.n_max}"
    files = [folder / f"{key(whose, ids)}.npz" for ids in prompts]
    found = {i: one for i, file in enumerate(files) if (one := kept(file)) is not None}
    missing = [i for i in range(len(prompts)) if i not in found]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(open_target(asked)) as model:
            shared = several(model, asked.n_parallel)
            for number, one in write(shared, [prompts[i] for i in missing], asked.n_max, ends):
                i = missing[number]
                if one is not None:
                    lesson.save(files[i], one)
                    found[i] = one
                progress(f"{asked.target.name} answers", (len(found)) / len(prompts))
    return [(asked.prompts[i], found[i]) for i in sorted(found)]


def key(whose: str, ids: Sequence[int]) -> str:
    """Names an answer's file."""
    return hashlib.sha256(f"{whose} {list(ids)}".encode()).hexdigest()[:24]


def kept(file: Path) -> Written | None:
    """An answer that was kept; what cannot be read is asked for again."""
    try:
        return lesson.load(file)
    except lesson.WRONG:
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


def open_target(asked: Asked) -> Any:
    """The target, with room for several texts where its backend reads several."""
    n = asked.n_parallel if backend_of(asked.target) == "llamacpp" else 1
    return open_model(
        asked.target,
        ModelOptions(
            n_context=n * ROOM, n_threads=asked.n_threads, max_leaves=max(n, 1), widths=(n,)
        ),
    )


def several(model: Any, n: int) -> Any:
    """A SharedModel of n texts, or of one where the backend reads no more."""
    if not hasattr(model, "forward_sequences"):
        return Alone(model)
    from edgespec.backends.llamacpp.shared import SharedModel

    return SharedModel(model, n)


def lessons(
    drafter: Path, target: Path, answers: Sequence[tuple[Messages, Written]]
) -> Iterator[Lesson]:
    """The answers as the drafter reads them. Raises: EdgeSpecError."""
    with closing(with_vocabulary(drafter)) as one, closing(with_vocabulary(target)) as other:
        assert one.tokenizer is not None and other.tokenizer is not None
        pair = (one.tokenizer, one.n_vocab), (other.tokenizer, other.n_vocab)
        if not difference(*pair):
            for _, written in answers:
                yield lesson.lesson(written, lesson.same, lambda ids: ids)
            return
        names = drafter.name, target.name
        translation = Translation(*pair, state_folder(), names, cache=cache_folder())
        ledger = Ledger(translation.mapping)
        of_target: Callable[[NDArray[np.int64]], NDArray[np.int64]] = First(translation.mapping)
        spell: Spell = lesson.over(ledger)
        for messages, written in answers:
            spelled = translation.spelled(list(messages))
            ledger.anchor(written.ids[: written.n_prompt] if spelled else [], spelled)
            yield lesson.lesson(written, spell, of_target)
