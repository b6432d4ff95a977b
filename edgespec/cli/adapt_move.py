"""`edgespec adapt export` and `import`: what a pair has learned as one file, for another device.

The file is a zip with the pair's n-grams, its drafter's heads by topic, what tells topics and the
rows that a trimmed head has grown, as they lie in the state folder; what is imported is checked as
those are, and of this pair, before anything is written.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgespec.adapt import adapter_file, missed, topic_files
from edgespec.adapt.answer import MOST
from edgespec.cli.adapt_pair import Opened, opened, rows_of, topics_of, unmade
from edgespec.config import Config
from edgespec.drafters.bridges import ngram_file
from edgespec.errors import ModelFileError, UsageError
from edgespec.files import place, why, write_whole

NGRAMS, MAP, ROWS = "ngrams.bin", "topics", "rows"
HEADS = ("head.adapter", *(f"head{topic}.adapter" for topic in range(1, MOST)))
PARTS = (NGRAMS, *HEADS, MAP, ROWS)
MOST_BYTES = 1 << 28  # of a member: as much as is read of such a file


def export(file: Path, config: Config) -> tuple[list[str], dict[str, Any]]:
    """Write what the pair has learned; lines and a record. Raises: EdgeSpecError."""
    found = dict[str, bytes]()
    with opened(config) as pair:
        if pair is not None and pair.path.is_file():
            found[NGRAMS] = ngram_file.packed(*ngram_file.read(pair.path))
    if not unmade(config):
        found |= heads_of(config)
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


def heads_of(config: Config) -> dict[str, bytes]:
    """The parts that are of the pair's files, not of its vocabularies."""
    found, topics = dict[str, bytes](), topics_of(config)
    for name, files in zip(HEADS, topics.heads, strict=True):
        if (head := files.load()) is not None:
            found[name] = adapter_file.packed(head)
    if found and topics.map.is_file():
        found[MAP] = topic_files.packed(topics.load_map())
    if (rows := rows_of(config)).is_file():
        found[ROWS] = rows.read_bytes()
    return found


def bring(file: Path, config: Config) -> tuple[list[str], dict[str, Any]]:
    """Add a file's n-grams to those of the pair; its heads take the place of the pair's.

    Lines and a record. Raises: EdgeSpecError.
    """
    with TemporaryDirectory(prefix="edgespec-import-") as folder, opened(config) as pair:
        members = unzipped(file, Path(folder))
        topics = topics_of(config) if set(members) - {NGRAMS} else None
        try:
            entries = ngrams_of(members[NGRAMS], pair) if NGRAMS in members else []
            found = [(HEADS.index(name), path) for name, path in members.items() if name in HEADS]
            heads = {topic: topics.heads[topic].own(path) for topic, path in found if topics}
            known = topic_files.read(members[MAP]) if MAP in members else None
            held = []
            if ROWS in members:
                held = missed.counts_in(members[ROWS], rows_of(config).stem)[1]
        except (ModelFileError, *missed.WRONG) as error:
            raise UsageError(
                f"{file} cannot be used: {str(error).replace(folder, '').lstrip('/')}"
            ) from error
        lines = [added(entries, pair)] if entries and pair is not None else []
        if topics is not None and heads:
            topics.take(heads, known)
        for topic, one in sorted(heads.items()):
            of = f" of topic {topic}" if len(heads) > 1 else ""
            lines.append(f"the drafter's head{of} is {file}'s now ({one.head.n_rows:,} rows)")
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
                if info.filename not in PARTS or info.compress_type != zipfile.ZIP_STORED:
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
