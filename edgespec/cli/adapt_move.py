"""`edgespec adapt export` and `import`: what a pair has learned as one file, for another device.

The file is a zip with the pair's n-grams, its drafter's head and the rows that a trimmed head has
grown, as they lie in the state folder; what is imported is checked as those are, and of this pair,
before anything is written.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgespec.adapt import adapter_file, missed
from edgespec.cli.adapt_pair import Opened, heads_of, opened, rows_of
from edgespec.config import Config
from edgespec.drafters.bridges import ngram_file
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import place, why, write_whole

NGRAMS, HEAD, ROWS = "ngrams.bin", "head.adapter", "rows.json"
MOST_BYTES = 1 << 28  # of a member: as much as is read of such a file


def export(file: Path, config: Config) -> tuple[list[str], dict[str, Any]]:
    """Write what the pair has learned; lines and a record. Raises: EdgeSpecError."""
    found = dict[str, bytes]()
    with opened(config) as pair:
        if pair is not None and pair.path.is_file():
            found[NGRAMS] = ngram_file.packed(*ngram_file.read(pair.path))
        head = heads_of(config).load()
    if head is not None:
        found[HEAD] = adapter_file.packed(head)
    if (rows := rows_of(config)).is_file():
        found[ROWS] = rows.read_bytes()
    if not found:
        raise UsageError(
            "nothing was learned of this pair yet: expected n-grams or a drafter's head; "
            "`edgespec adapt warm FILE` or a chat with --adapt learns them"
        )
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:  # stored: arrays hardly shrink
        for name, part in found.items():
            packed.writestr(zipfile.ZipInfo(name), part)
    write_whole(place(file), data.getvalue())
    return [f"wrote {file} ({', '.join(found)})"], {"file": str(file), "parts": list(found)}


def bring(file: Path, config: Config) -> tuple[list[str], dict[str, Any]]:
    """Add a file's n-grams to those of the pair; its head takes the place of the pair's.

    Lines and a record. Raises: EdgeSpecError.
    """
    with TemporaryDirectory(prefix="edgespec-import-") as folder, opened(config) as pair:
        members = unzipped(file, Path(folder))
        heads = heads_of(config)
        try:
            entries = ngrams_of(members[NGRAMS], pair) if NGRAMS in members else []
            head = heads.own(members[HEAD]) if HEAD in members else None
            held = []
            if ROWS in members:
                held = missed.counts_in(members[ROWS], rows_of(config).stem)[1]
        except (ModelFileError, *missed.WRONG) as error:
            raise UsageError(
                f"{file} cannot be used: {str(error).replace(folder, '').lstrip('/')}"
            ) from error
        lines = [added(entries, pair)] if entries and pair is not None else []
        if head is not None:
            heads.save(head.adapter, head.head.days)
            lines.append(f"the drafter's head is {file}'s now ({head.head.n_rows:,} rows)")
        if ROWS in members:
            write_whole(rows_of(config), members[ROWS].read_bytes(), ours=True)
            lines.append(f"the trimmed head grows {file}'s rows ({len(held):,})")
    return lines, {"parts": sorted(members)}


def unzipped(file: Path, folder: Path) -> dict[str, Path]:
    """The parts that are in it, in `folder`, by name. Raises: UsageError."""
    expected = "expected a file that `edgespec adapt export` wrote"
    members = dict[str, Path]()
    try:
        with zipfile.ZipFile(place(file)) as packed:
            for info in packed.infolist():
                if (
                    info.filename not in (NGRAMS, HEAD, ROWS)
                    or info.compress_type != zipfile.ZIP_STORED
                ):
                    raise UsageError(f"{file} has a part {info.filename!r:.40}: {expected}")
                if info.file_size > MOST_BYTES:
                    raise UsageError(f"{file}: {info.filename} is too large: {expected}")
                members[info.filename] = Path(packed.extract(info, folder))
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file}: {why(error)}: {expected}") from error
    if not members:
        raise UsageError(f"{file} is empty: {expected}")
    return members


def ngrams_of(path: Path, pair: Opened | None) -> list[ngram_file.Entry]:
    """The n-grams in a file, which have to be this pair's. Raises: ModelFileError."""
    if pair is None:
        raise ModelFileError("it has n-grams, and this pair has one vocabulary")
    head, entries = ngram_file.read(path)
    ngram_file.check_pair(path, head, entries, pair.draft, pair.target)
    return entries


def added(entries: list[ngram_file.Entry], pair: Opened) -> str:
    """Learn n-grams beside those that the pair has."""
    cache = ngram_file.load(pair.path, pair.draft, pair.target)
    n_before = len(cache)
    for pieces, token, hits in entries:
        cache.learn(pieces, token, hits=hits)
    ngram_file.save(cache, pair.path, pair.draft, pair.target, names=pair.names)
    return f"{pair.about}: {n_before:,} n-grams before, {len(cache):,} now"
