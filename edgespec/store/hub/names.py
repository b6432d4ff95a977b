"""Which files of a repository are the model that is asked for: quantizations and parts, by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgespec.errors import UsageError

# What is taken where nothing is asked for: half the users' choice, then what loses least.
PREFERRED = ("Q4_K_M", "Q8_0", "Q4_K_S", "Q4_0", "Q5_K_M", "Q6_K", "Q4")
PREFIXES = ("https://huggingface.co/", "huggingface.co/", "hf.co/", "hf://", "hf:")
PART_OF_NAME = r"(?![.-])[\w.-]+(?<![.-])"  # as the hub has it
SPEC = re.compile(rf"({PART_OF_NAME}/{PART_OF_NAME})(?::([^:]+))?")
QUANT = re.compile(
    r"(?<![A-Z0-9])((?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|FP?16|FP?32))"
    r"(?![A-Z0-9_])"
)
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
NOT_MODELS = ("mmproj", "imatrix", "ggml-vocab")  # beside models, and never one
HEADS = "mtp-"  # a model's extra heads, beside it; only a name of its own asks for them
MOST_NAMED = 12


@dataclass(frozen=True)
class Spec:
    """A repository, and the quantization or file of it that is wanted; empty leaves the choice."""

    repo: str
    choice: str = ""

    def __str__(self) -> str:
        return f"{self.repo}:{self.choice}" if self.choice else self.repo


def spec_of(text: str) -> Spec:
    """`USER/REPO[:QUANT or FILE]` as read. Raises: UsageError."""
    bare = text.strip()
    for prefix in PREFIXES:
        bare = bare.removeprefix(prefix)
    match = SPEC.fullmatch(bare.rstrip("/"))
    if match is None:
        hint = "; a file is opened with -m" if bare.lower().endswith(".gguf") else ""
        raise UsageError(
            f"{text!r} is no repository: expected USER/REPO or USER/REPO:QUANT, such as "
            f"bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M{hint}"
        )
    return Spec(match[1], match[2] or "")


def quant_of(name: str) -> str:
    """The quantization that a file's name speaks of, as llama.cpp writes it; "" if none."""
    for piece in reversed(name.upper().removesuffix(".GGUF").split("/")):
        found = QUANT.findall(piece)
        if found:
            return str(found[-1]).replace("FP16", "F16").replace("FP32", "F32")
    return ""


def name_of(file: str) -> str:
    """A model's name: its file's, without the number of a part."""
    return PART.sub(".gguf", file)


def models_of(names: Sequence[str]) -> dict[str, list[str]]:
    """The models among a repository's files: a name without its part's number, and the files.

    A model that misses parts is left out, and so is what is no model.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        base = name.rpartition("/")[2].lower()
        if base.endswith(".gguf") and not any(word in base for word in NOT_MODELS):
            groups.setdefault(name_of(name), []).append(name)
    return {name: found for name, found in groups.items() if _complete(found)}


def _complete(names: Sequence[str]) -> bool:
    """Whether these sorted names are one file, or parts 1 to n of n."""
    parts = [PART.search(name) for name in names]
    if len(names) == 1 and parts[0] is None:
        return True
    marks = [(int(part[1]), int(part[2])) for part in parts if part is not None]
    return marks == [(i + 1, len(names)) for i in range(len(names))]


def choose(names: Sequence[str], wanted: Spec) -> list[str]:
    """The files, in order of their parts, of the one model that is wanted.

    Raises: UsageError listing what there is.
    """
    models = models_of(names)
    if not models:
        raise UsageError(
            f"{wanted.repo} has no whole GGUF model: expected a repository with GGUF files, "
            "their names often end in -GGUF"
        )
    found = _named(models, wanted.choice) if wanted.choice else _preferred(models)
    if len(found) == 1:
        return models[found[0]]
    if found:
        raise UsageError(
            f"{wanted} could be {_listed(found)}: name one, as {wanted.repo}:{found[0]}"
        )
    asked = repr(wanted.choice) if wanted.choice else "usual quantization"
    there = sorted({quant_of(name) or name for name in models})
    raise UsageError(
        f"{wanted.repo} has no {asked}: expected {_listed(there)}, as {wanted.repo}:{there[0]}"
    )


def _named(models: dict[str, list[str]], choice: str) -> list[str]:
    """Models of which `choice` is a file, its last name, or the quantization."""
    asked = name_of(choice)
    exact = [name for name in models if name == asked]
    if exact or asked.lower().endswith(".gguf"):
        return exact or [name for name in models if name.rpartition("/")[2] == asked]
    models = _whole(models)
    quant = quant_of(choice) or choice.upper()
    same = [name for name in models if quant_of(name) == quant]
    return same or [name for name in models if quant_of(name).removeprefix("UD-") == quant]


def _whole(models: dict[str, list[str]]) -> dict[str, list[str]]:
    """Those that are no extra heads of another; all if there are no others."""
    names = [name for name in models if not name.rpartition("/")[2].lower().startswith(HEADS)]
    return {name: models[name] for name in names} or models


def _preferred(models: dict[str, list[str]]) -> list[str]:
    models = _whole(models)
    for quant in PREFERRED:
        found = [name for name in models if quant_of(name) == quant]
        if found:
            return found
    return list(models) if len(models) == 1 else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
