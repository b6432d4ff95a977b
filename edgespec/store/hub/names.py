"""Which files of a repository are the model that is asked for: quantizations and parts, by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgespec.errors import UsageError

# What is taken where nothing is asked for: half the users' choice, then what loses least.
PREFERRED = ("Q4_K_M", "Q8_0", "Q4_K_S", "Q4_0", "Q5_K_M", "Q6_K", "Q4", "MXFP4", "NVFP4")
PART_OF_NAME = r"(?![.-])[\w.-]+(?<![.-])"  # as the hub has it
SPEC = re.compile(  # as people type it, or the address of a page or of a file as they paste it
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf:(?://)?)?"
    rf"({PART_OF_NAME}/{PART_OF_NAME})"
    r"(?::([^:]+)|/(?:tree|blob|resolve)/main(?:/([^:?]+))?(?:\?[^:]*)?)?"
)
QUANT = re.compile(
    r"(?<![A-Z0-9])((?:UD-)?(?:I?Q[1-8](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))"
    r"(?![A-Z0-9_])"
)
ADDED = re.compile(r"^UD-|_MOE$")  # a quantization may be asked for without
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
NOT_MODELS = ("mmproj", "imatrix", "ggml-vocab")  # beside models, and never one
HEADS = "mtp-"  # a model's extra heads, beside it: only the file's name asks for them
MOST_NAMED = 12


@dataclass(frozen=True)
class Spec:
    """A repository, and the quantization or file of it that is wanted; empty leaves the choice."""

    repo: str
    choice: str = ""

    def __str__(self) -> str:
        return f"{self.repo}:{self.choice}" if self.choice else self.repo


def spec_of(text: str) -> Spec:
    """`USER/REPO[:QUANT or FILE]`, or an address of the hub, as read. Raises: UsageError."""
    bare = text.strip().rstrip("/")
    match = SPEC.fullmatch(bare)
    if match is None:
        hint = "; a file is opened with -m" if bare.lower().endswith(".gguf") else ""
        raise UsageError(
            f"{text!r} is no repository: expected USER/REPO or USER/REPO:QUANT, such as "
            f"bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M{hint}"
        )
    return Spec(match[1], match[2] or match[3] or "")


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
    return {name: found for name, found in _grouped(names).items() if _complete(found)}


def lone_parts(names: Sequence[str]) -> list[str]:
    """The files of models that miss parts."""
    return [name for found in _grouped(names).values() if not _complete(found) for name in found]


def _grouped(names: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        base = name.rpartition("/")[2].lower()
        if base.endswith(".gguf") and not any(word in base for word in NOT_MODELS):
            groups.setdefault(name_of(name), []).append(name)
    return groups


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
    there = sorted(asked_by(models).values())
    raise UsageError(
        f"{wanted.repo} has no {asked}: expected {_listed(there)}, as {wanted.repo}:{there[0]}"
    )


def asked_by(names: Iterable[str]) -> dict[str, str]:
    """What asks for each of a repository's models: its quantization, or the file's name."""
    quants = {name: "" if _is_head(name) else quant_of(name) for name in names}
    n_of = Counter(quants.values())
    return {name: quant if quant and n_of[quant] == 1 else name for name, quant in quants.items()}


def _named(models: dict[str, list[str]], choice: str) -> list[str]:
    """Models of which `choice` is a file, its last name, or the quantization."""
    asked = name_of(choice)
    exact = [name for name in models if name == asked]
    if exact or asked.lower().endswith(".gguf"):
        return exact or [name for name in models if name.rpartition("/")[2] == asked]
    quants = {name: quant_of(name) for name in models if not _is_head(name)}
    quant = quant_of(choice) or choice.upper()
    same = [name for name in quants if quants[name] == quant]
    return same or [name for name in quants if ADDED.sub("", quants[name]) == quant]


def _is_head(name: str) -> bool:
    return name.rpartition("/")[2].lower().startswith(HEADS)


def _preferred(models: dict[str, list[str]]) -> list[str]:
    quants = {name: quant_of(name) for name in models if not _is_head(name)}
    for quant in PREFERRED:
        found = [name for name in quants if quants[name] == quant]
        if found:
            return found
    return list(quants) if len(quants) == 1 else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
