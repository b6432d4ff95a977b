"""Drafters that suit a target: files here with its own vocabulary, and known pairs by its name."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from edgespec.backends import ModelOptions
from edgespec.backends.preview import Preview, preview
from edgespec.check.doctor.overlap import OTHER, kind_of
from edgespec.drafters.bridges.pairing import vocabulary_of
from edgespec.errors import EdgeSpecError
from edgespec.store import pairs
from edgespec.text.vocabulary import Vocabulary

SMALLER = 3  # a drafter has at most the target's size over this
MOST = 8  # neighbours that are looked at
# What the name of a file says of its types and parts: "-Q4_K_M", ".f16", "-00001-of-00002".
FORM = re.compile(r"[-._](i?q\d\w*|b?f\d\d|fp\d\d)$|-\d{5}-of-\d{5}$")


def suited_drafters(target: Preview, vocabulary: Vocabulary, given: Path | None) -> list[Path]:
    """Files of whole models with the target's tokens, much smaller; not `given`, which is not."""
    return [
        path
        for path in candidates(target, given)
        if path.stat().st_size * SMALLER <= target.weights_bytes and fits(vocabulary, path)
    ]


def candidates(target: Preview, given: Path | None) -> list[Path]:
    """Files that may be drafters; the bundled ones first."""
    folder = pairs.folder()
    drafters = [pairs.find(name).drafter for name in pairs.names()]
    bundled = {folder / drafter.file for drafter in drafters if not drafter.repo}
    beside = sorted(target.path.parent.glob("*.gguf"))[:MOST]
    # A link keeps its name: what it leads to may have none that tells of its kind.
    seen = {path.resolve() for path in (target.path, given) if path is not None}
    found = []
    for path in [*sorted(bundled), *beside]:
        if path.is_file() and path.resolve() not in seen:
            seen.add(path.resolve())
            found.append(path.absolute())
    return found


def fits(vocabulary: Vocabulary, path: Path) -> bool:
    """Whether the model in `path` has these tokens, id for id, control tokens aside."""
    try:
        with closing(preview(path, ModelOptions(device="cpu"))) as found:
            if found.tokenizer is None or not found.n_params or found.problems:
                return False
            return kind_of(vocabulary, vocabulary_of(found.tokenizer, found.n_vocab)) != OTHER
    except EdgeSpecError:
        return False


def known_pairs(target: Path) -> list[str]:
    """Names of the hub's pairs with a target of this file name, whatever its types."""
    wanted, found = plain_name(target.name), [pairs.find(name) for name in pairs.names()]
    return [p.name for p in found if p.target.repo and plain_name(p.target.file) == wanted]


def plain_name(file: str) -> str:
    """A model file's name without its ending and what is said of types and parts."""
    name = file.rpartition("/")[2].removesuffix(".gguf").lower()
    while (found := FORM.search(name)) is not None:
        name = name[: found.start()]
    return name
