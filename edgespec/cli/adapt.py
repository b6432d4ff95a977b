"""`edgespec adapt`: what drafters have learned, n-grams and heads: shown, erased, taught."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgespec.adapt import adapter_file, kept_prompts, missed, topic_files
from edgespec.adapt.kept_prompts import kept_files
from edgespec.adapt.learned import files_of, is_being_written
from edgespec.cli import adapt_heads, adapt_merge, adapt_move, adapt_train
from edgespec.cli.adapt_pair import (
    Opened,
    chosen,
    opened,
    prompts_of,
    rows_of,
    sources_of,
    topics_of,
    unmade,
)
from edgespec.cli.output import add_json, show_progress, write_json
from edgespec.config import Config, state_folder
from edgespec.drafters.bridges.coverage import coverage
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngram_file import (
    ENDING,
    Head,
    files_in,
    load,
    read,
    save,
)
from edgespec.drafters.bridges.ngrams import MAX_HITS, NgramCache
from edgespec.errors import ModelFileError, TokenizerError, UsageError
from edgespec.files import in_words, place, text_of

ABOUT = "Show, move, reset or warm what a drafter has learned, or train it on its target's answers."
USAGE = "(show | reset | train | (warm | export | import) FILE) [--json FILE] [options]"
RARE = ("--plot", "--merge", *adapt_train.RARE)
EXAMPLE = "edgespec adapt warm notes.txt --pair demo-foreign"
DEFAULTS = Config()

ACTIONS = ("show", "reset", "warm", "export", "import", "train")
WITH_FILE = ("warm", "export", "import")

Found = tuple[list[str], dict[str, Any]]
"""Lines for the reader and the record for scripts."""

WHAT = {
    adapter_file.ENDING: "a drafter's head",
    topic_files.ENDING: "which topics prompts are of",
    kept_prompts.ENDING: "prompts kept as text",
    missed.ENDING: "rows of a trimmed head",
}
LEFT = "left over: `edgespec adapt reset --all` deletes it"
MOST_BYTES = 1 << 28  # of a text
LENGTH = 1 << 16  # characters spelled at a time
MEASURED = 4  # parts whose tokens are counted, which takes longer than learning from them
SHOWN = 10  # entries of a pair, those seen most often
NOTHING = "no n-grams in {}: a drafter of another vocabulary learns them"
SAME = "drafter and target have the same vocabulary: there are no n-grams to learn"


def add_arguments(parser: ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("action", metavar="|".join(ACTIONS), choices=ACTIONS)
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="a text, with warm; what moves, with export, import"
    )
    parser.add_argument("--all", action="store_true", help="with reset: of all pairs")
    parser.add_argument("--plot", metavar="PNG", help="with show: draw what the head learned")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="with export: the drafter with --lora-draft inside (--merged says as what)",
    )
    adapt_train.add_arguments(parser)
    add_json(parser)


def run(args: Namespace, config: Config) -> int:
    """Do what is asked, say it, and write the record."""
    check(args)
    quiet = args.json == "-"
    lines, data = done(args, config, quiet=quiet)
    if not quiet:
        print("\n".join(lines))
    if args.json:
        write_json(data, args.json)
    return 0


def check(args: Namespace) -> None:
    """Raises: UsageError for what does not go together."""
    flags = [flag for flag in adapt_train.given(args) if not (args.merge and flag == "--merged")]
    if args.action != "train" and flags:
        raise UsageError(f"{flags[0]} goes with `edgespec adapt train`: expected that, or no flag")
    wrong_file = (args.file is None) != (args.action not in WITH_FILE)
    wrong_flag = (args.all and args.action != "reset") or (args.plot and args.action != "show")
    if wrong_file or wrong_flag or (args.merge and args.action != "export"):
        raise UsageError(
            "expected `edgespec adapt show [--plot PNG]`, `edgespec adapt reset [--all]`, "
            "`edgespec adapt warm FILE`, `edgespec adapt export FILE [--merge]`, `edgespec adapt "
            "import FILE` or `edgespec adapt train`"
        )


def done(args: Namespace, config: Config, *, quiet: bool) -> Found:
    """What the action found or did."""
    match args.action:
        case "show":
            return show(config, args.plot)
        case "reset":
            return erase_all() if args.all else erase(config)
        case "warm":
            return warm(Path(args.file), config, quiet=quiet)
        case "export" if args.merge:
            kind, drafter = args.merged or "q8_0", sources_of(config)[0]
            return adapt_merge.merged(Path(args.file), config, drafter, kind)
        case "export":
            return adapt_move.export(Path(args.file), config)
        case "import":
            return adapt_move.bring(Path(args.file), config)
        case _:
            return adapt_train.train(args, config, *sources_of(config), quiet=quiet)


def show(config: Config, picture: str | None) -> Found:
    """All caches and heads; of the pair that was asked for, the n-grams seen most often.

    picture: where to draw what the pair's head learned.
    """
    lines, rows = [], []
    for file in files_in(state_folder()):
        if not is_being_written(file):
            row, about = described(file)
            rows.append(row)
            lines.append(f"{file.stem if file.suffix == ENDING else file.name}  {about}")
    if not rows:
        lines = [NOTHING.format(state_folder())]
    more, heads = adapt_heads.heads()
    kept, grown = (
        [file for file in of(state_folder()) if not is_being_written(file)]
        for of in (kept_files, missed.files_in)
    )
    lines += [
        *more,
        *(f"{one.stem}  {WHAT.get(one.suffix, LEFT)}, {size_of(one)}" for one in (*grown, *kept)),
    ]
    data: dict[str, Any] = {"caches": rows, "heads": heads}
    data |= {"rows": list(map(str, grown)), "prompts": list(map(str, kept))}
    if chosen(config) != chosen(Config()):
        with opened(config) as pair:
            more, data["top"] = ([SAME], []) if pair is None else most_seen(pair)
        lines += more
    if picture:
        lines.append(adapt_heads.plot(config, Path(picture)))
    return lines, data


def size_of(file: Path) -> str:
    """As people say it."""
    with suppress(OSError):  # another process may have deleted it
        return in_words(file.stat().st_size)
    return "gone"


def described(file: Path) -> tuple[dict[str, Any], str]:
    """A file in the state folder, in fields and in words."""
    row: dict[str, Any] = {"file": str(file)}
    try:
        if file.suffix != ENDING:
            raise ModelFileError("set aside")
        (head, _), status = read(file), file.stat()
    except (ModelFileError, OSError):
        return row, "cannot be used: `edgespec adapt reset --all` deletes it"
    age_s = max(time.time() - status.st_mtime, 0.0)
    names = f"{head.draft_name or '?'} -> {head.target_name or '?'}"
    size = f"{head.n_entries:,} n-grams, {status.st_size:,} bytes"
    row |= {"n_bytes": status.st_size, "age_s": round(age_s), **asdict(head)}
    return row, f"{names}, {size}, saved {ago(age_s)}"


def ago(age_s: float) -> str:
    """A time in the past in its largest whole unit."""
    for unit, size_s in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if (n := int(age_s // size_s)) > 0:
            return f"{n} {unit}{'s' if n > 1 else ''} ago"
    return "just now"


def most_seen(pair: Opened) -> tuple[list[str], list[dict[str, Any]]]:
    """A pair's entries with the most hits, in lines and rows."""
    try:
        head, entries = read(pair.path)
    except (ModelFileError, OSError):
        head, entries = Head(), []
    if not entries or not head.fits(pair.draft, pair.target):
        return [f"no n-grams of {pair.about} yet: type `edgespec adapt warm FILE`"], []
    entries.sort(key=lambda entry: -entry[2])
    lines, rows = [f"of {pair.about} seen most often:"], []
    for pieces, token, hits in entries[:SHOWN]:
        spelled = [shown(pair.draft.pieces[piece]) for piece in pieces]
        whole = shown(pair.target.pieces[token])
        rows.append({"pieces": list(pieces), "token": token, "hits": hits, "text": whole})
        often = f"{hits}{'+' if hits == MAX_HITS else ''}"
        lines.append(f"  {often:>5}  {whole!r} = {' '.join(map(repr, spelled))}")
    return lines, rows


def shown(piece: bytes) -> str:
    return piece.decode("utf-8", "backslashreplace")


def erase(config: Config) -> Found:
    """Delete what one pair has learned, and what was kept to learn from."""
    why_none = unmade(config)
    with opened(config) as pair:
        found = [] if pair is None else files_of(pair.path)
        if not why_none:
            found += [*topics_of(config).files(), *prompts_of(config).files()]
            found += files_of(rows_of(config))
        nothing = SAME if pair is None else f"no n-grams of {pair.about}"
    lines, data = deleted(found) if found else ([nothing], {"deleted": []})
    if why_none:
        lines.append(f"{why_none}; what an earlier one left goes with `edgespec adapt reset --all`")
    return lines, data


def erase_all() -> Found:
    """Delete what all pairs have learned."""
    found = [
        file
        for of in (files_in, topic_files.files_in, missed.files_in, kept_files)
        for file in of(state_folder())
    ]
    return deleted(found) if found else ([NOTHING.format(state_folder())], {"deleted": []})


def deleted(files: list[Path]) -> Found:
    """Delete files and say what they were. Raises: UsageError."""
    lines = []
    for file in files:
        about = described(file)[1] if file.suffix == ENDING else WHAT.get(file.suffix, "left over")
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}: expected a file to delete") from error
        lines.append(f"deleted {file} ({about})")
    return lines, {"deleted": [str(file) for file in files]}


def warm(file: Path, config: Config, *, quiet: bool) -> Found:
    """Learn the n-grams of a text, so that the first answer already profits from them."""
    parts = parts_of(teaching(file))
    with opened(config) as pair:
        if pair is None:
            return [SAME], {}
        return taught(pair, parts, file, quiet=quiet)


def taught(pair: Opened, parts: list[bytes], file: Path, *, quiet: bool) -> Found:
    """The pair's cache, with the n-grams of these parts of `file`, is saved."""
    cache = load(pair.path, pair.draft, pair.target)
    n_before, before = len(cache), targets_of(cache)
    save(cache, pair.path, pair.draft, pair.target, names=pair.names)  # fails before the work
    mapping = Mapping(pair.draft, pair.target)
    spelled = learn(parts, mapping, cache, "" if quiet else f"learning from {file.name}")
    save(cache, pair.path, pair.draft, pair.target)
    some = spelled[:MEASURED]
    shares = [coverage(mapping, some, known).natural.split for known in (before, targets_of(cache))]
    what = "its tokens"
    if len(some) < len(spelled):
        what = f"the tokens of its first {sum(map(len, some)):,} bytes"
    lines = [
        f"{pair.about}: {n_before:,} n-grams before, {len(cache):,} after {file.name}",
        f"of {what} {shares[0]:.1%} could be proposed before, {shares[1]:.1%} now",
        f"saved in {pair.path}",
    ]
    if len(spelled) < len(parts):
        n_left = len(parts) - len(spelled)
        lines.append(
            f"{n_left} of {len(parts)} parts are not counted: they cannot be written in both"
        )
    data = {"file": str(pair.path), "n_before": n_before, "n_entries": len(cache)}
    return lines, data | {"share_before": shares[0], "share": shares[1]}


def learn(parts: list[bytes], mapping: Mapping, cache: NgramCache, what: str) -> list[bytes]:
    """Tell the cache of every n-gram in a text; the parts that the drafter can spell.

    what: said of the progress, if anything.
    """
    ledger, spelled = Ledger(mapping, on_token=cache.learn), []
    # Nothing follows a control token that would make the words before it be spelled otherwise.
    end = [token for role, token in mapping.target.roles.items() if role == "eos"]
    for i, part in enumerate(parts):
        n_lost = ledger.n_lost
        with suppress(TokenizerError):
            ledger.sync(mapping.target.encode(part, start=True) + end)
            if ledger.n_lost == n_lost:
                spelled.append(part)
        if what and len(parts) > 1:
            show_progress(what, (i + 1) / len(parts))
    return spelled


def targets_of(cache: NgramCache) -> set[int]:
    """The target's tokens that n-grams stand for."""
    return set(cache.firsts()[0].tolist())


def teaching(file: Path) -> str:
    """What is in a text file. Raises: UsageError."""
    path = place(file)
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        n_bytes = path.stat().st_size
        raise UsageError(f"{file} has {n_bytes:,} bytes: expected at most 256 MiB; split it")
    text = text_of(file)
    if "\0" in text:
        raise UsageError(f"{file}: a zero byte at {text.index(chr(0))}: expected a text file")
    if not text.strip():
        raise UsageError(f"{file} is empty: expected a text to learn from")
    return text


def parts_of(text: str) -> list[bytes]:
    """The text in parts of a size, cut at line ends where there are any."""
    out, at = [], 0
    while at < len(text):
        end = min(at + LENGTH, len(text))
        if end < len(text):
            end = text.rfind("\n", at, end) + 1 or end
        out.append(text[at:end].encode())
        at = end
    return out
