"""`edgespec models`: known pairs and downloaded models: what they are, fetching, removing."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from edgespec.cli.output import add_json, folded, show_progress, write_json
from edgespec.cli.tty import PICTURES
from edgespec.config import Config, cache_folder, laid, layers
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import in_words, sha256_of
from edgespec.store import hub, pairs, removal, tuned
from edgespec.store.hub import cache
from edgespec.store.hub.cache import CachedModel
from edgespec.store.hub.names import asked_by, quant_of, spec_of

ABOUT = "List known pairs and downloaded models, show, fetch or remove one."
USAGE = "(list | show NAME | pull NAME | rm NAME) [--offline] [--json FILE]"
EXAMPLE = "edgespec models pull bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M"
DEFAULTS = None
ACTIONS = ("list", "show", "pull", "rm")
ALIASES = {"ls": "list", "describe": "show", "info": "show", "download": "pull", "remove": "rm"}
Shown = tuple[dict[str, Any], list[str]]  # for scripts, and for people


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "action",
        metavar="|".join(ACTIONS),
        choices=ACTIONS,
        type=lambda word: ALIASES.get(word, word),
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a pair, or USER/REPO[:QUANT] of Hugging Face"
    )
    parser.add_argument("-hf", "--hf-repo", dest="named", help=SUPPRESS)  # as other commands have
    parser.add_argument(
        "--offline", action="store_const", const=True, help="ask and fetch nothing over the network"
    )
    add_json(parser)


def run(args: Namespace) -> int:
    """Do one of the actions and say what was found or done."""
    name = args.name if args.named is None else args.named
    if (name is None) != (args.action == "list") or (args.name and args.named):
        raise UsageError(
            "expected `edgespec models list`, or `edgespec models show NAME`; so with pull and rm"
        )
    offline = laid(Config(), layers(args)).offline
    if args.action == "list":
        data, lines = listed()
    elif args.action == "show":
        data, lines = shown_model(name, offline) if "/" in name else shown(name)
    elif args.action == "pull":
        data, lines = pulled(name, offline)
    else:
        data, lines = removed(name)
    if args.json != "-":
        print("\n".join(line.translate(PICTURES) for line in lines))
    if args.json:
        write_json(data, args.json)
    return 0


def listed() -> Shown:
    """Every known pair, then every model in the cache and every unfinished download."""
    known = [(pair, extent(pair)) for pair in map(pairs.find, pairs.names())]
    rows = [
        {"name": pair.name, "about": pair.about, "tried": pair.tried, **size}
        for pair, size in known
    ]
    width = max((len(pair.name) for pair, _ in known), default=0) + 2
    lines = [
        folded(
            f"{pair.name:<{width}}{' '.join(filter(None, (pair.about, in_short(pair, size))))}",
            width,
        )
        for pair, size in known
    ]
    own = [about_tuned(pair) for pair in filter(None, map(tuned.find, tuned.names()))]
    rows += own
    lines += [folded(f"{row['name']}  {row['about']}", width) for row in own]
    held = cache.everything()
    here = [(called(one, held), one) for one in held]
    broken = cache.unfinished()
    if here or broken:
        lines += ["", f"downloaded, in {cache.folder()} (use one with -hf):"]
    lines += [f"{name}  {in_words(one.n_bytes)}" for name, one in here]
    lines += [
        f"{repo}  {in_words(n)} of an unfinished download: pull goes on, rm removes it"
        for repo, n in broken.items()
    ]
    models = [
        {"name": name, "path": str(one.path), "size_bytes": one.n_bytes} for name, one in here
    ]
    return {"pairs": rows, "models": models, "unfinished": broken}, lines


def called(model: CachedModel, all_here: Sequence[CachedModel]) -> str:
    """What -hf knows a downloaded model by."""
    asked = asked_by(one.name for one in all_here if one.repo == model.repo)
    return f"{model.repo}:{asked[model.name]}"


def extent(pair: pairs.Pair) -> dict[str, Any]:
    """Bytes a pair takes beyond what is bundled, as far as known; how many are here, and where."""
    size = here = 0
    places = set[str]()
    for entry in pair.entries:
        made = sum(map(pairs.n_bytes, pairs.made(entry, cache_folder())))
        held = pairs.held(entry) if entry.repo and not made else None
        size += made or entry.size + entry.onnx_size
        here += made + (held.n_bytes if held is not None else 0)
        places |= {held.place} if held is not None else set()
    return {"size_bytes": size, "here_bytes": here, "places": sorted(places)}


def in_short(pair: pairs.Pair, extent: Mapping[str, Any]) -> str:
    """What a pair takes and what of it is here, after what it is."""
    size, here = extent["size_bytes"], extent["here_bytes"]
    if not size:
        return ""
    if here >= size:
        words = " ".join([f"{in_words(here)}, here", *(f"in {p}" for p in extent["places"])])
    else:
        to_do = " to fetch and make" if pair.target.onnx else " to fetch"
        words = in_words(size) + (f", {in_words(here)} of it here" if here else to_do)
    return f"{words}." if pair.tried else f"{words}; not tried by us."


def about_tuned(pair: tuned.TunedPair) -> dict[str, Any]:
    """A tuned pair in a line."""
    values = ", ".join(f"{key} {value}" for key, value in pair.values.items())
    return {"name": pair.name, "about": f"tuned here: {values}.", "tried": True}


def shown(name: str) -> Shown:
    """A pair's manifest and the state of its files; of a tuned pair what it was chosen by."""
    own = tuned.find(name)
    if own is not None:
        data = {**about_tuned(own), **own.measured}
        return data, [f"{key:<12}{value}" for key, value in data.items()]
    pair = pairs.find(name)
    out: dict[str, Any] = {"name": pair.name, "about": pair.about}
    if pair.target.pad:
        out["note"] = pairs.PADDED_NOTE
    if not pair.tried:
        out["note"] = pairs.UNTRIED_NOTE
    out |= {"licence": pair.licence, "vocabulary": pair.vocabulary}
    for part, entry in (("target", pair.target), ("drafter", pair.drafter)):
        out[part] = f"{entry.spec if entry.repo else entry.file}: {state(entry, pair.name)}"
    made = [path for entry in pair.entries for path in pairs.made(entry, cache_folder())]
    if made:
        out["made"] = ", ".join(f"{path}: {in_words(pairs.n_bytes(path))}" for path in made)
    return out, [f"{key:<12}{value}" for key, value in out.items()]


def state(entry: pairs.ModelEntry, name: str) -> str:
    """Whether a file is there, and if bundled, is the one the manifest names."""
    if entry.onnx and pairs.is_here(entry, cache_folder()):
        taught = ", taught by its target" if entry.taught else ""
        return f"made into {entry.onnx} for ONNX Runtime{taught}"
    try:
        pairs.lessons_of(entry)
    except ModelFileError as error:
        return str(error)
    if entry.repo:
        held, pull = pairs.held(entry), f"`edgespec models pull {name}`"
        to_make = f"{in_words(entry.onnx_size)} of {entry.onnx} to make" if entry.onnx else ""
        if held is None:
            more = f", then {to_make}" if to_make else ""
            return f"{in_words(entry.size)} to fetch{more}: {pull}"
        more = f", {to_make}: {pull}" if to_make else ""
        return f"{in_words(held.n_bytes)}, in {held.place} at {held.path}{more}"
    try:
        path = pairs.bundled(entry)
    except ModelFileError:
        return "missing: reinstall EdgeSpec"
    if sha256_of(path) != entry.sha256:
        return "not the file the manifest names (its sha256 differs): reinstall EdgeSpec"
    return f"{in_words(path.stat().st_size)}, sha256 as in the manifest"


def shown_model(name: str, offline: bool) -> Shown:
    """The models of a repository of the hub, and which of them are here."""
    repo = spec_of(name).repo
    offered = hub.offers(repo, offline=offline)
    if not offered:
        raise UsageError(
            f"{repo} has no GGUF model{' in the cache' if offline else ''}: expected a repository "
            "with GGUF files, see `edgespec models list` for some"
        )
    rows: list[dict[str, Any]] = []
    for file, n_bytes in offered.items():
        held = hub.held(f"{repo}:{file}")
        path = str(held.path) if held is not None else ""
        rows.append({"file": file, "quant": quant_of(file), "size_bytes": n_bytes, "path": path})
    width = max(len(row["file"]) for row in rows) + 2
    lines = [
        f"{row['file']:<{width}}{in_words(row['size_bytes']):>8}{'  here' if row['path'] else ''}"
        for row in rows
    ]
    return {"repo": repo, "models": rows}, lines


def pulled(name: str, offline: bool) -> Shown:
    """A pair's files made or fetched, or one model asked for anew."""
    if "/" in name:
        paths = [hub.fetch(name, offline=offline, progress=show_progress, update=True)]
    else:
        pair = pairs.find(name)
        paths = list(pairs.files(pair, cache_folder(), show_progress, offline=offline))
    return {"paths": [str(path) for path in paths]}, [str(path) for path in paths]


def removed(name: str) -> Shown:
    """What was downloaded or made under that name, deleted."""
    if "/" in name:
        freed, kept = hub.remove(name), list[str]()
    elif tuned.find(name) is not None:
        freed, kept = tuned.remove(name), list[str]()
    else:
        pair = pairs.find(name)
        if not pair.target.pad and not pair.target.repo:
            raise UsageError(f"{pair.name} comes with EdgeSpec: expected a pair that was fetched")
        freed, kept = removal.remove(pair, cache_folder())
    if not freed and not kept:
        raise UsageError(
            f"nothing of {name} is here that was fetched or made: see `edgespec models list`"
        )
    lines = [f"freed {in_words(freed)}", *(f"kept {one}, which uses it" for one in kept)]
    return {"freed_bytes": freed, "kept": kept}, lines
