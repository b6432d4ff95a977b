"""A pair's prompts as text, kept to train from where the user wants that (`--adapt-keep-text`).

One line of JSON each, {"messages": [...]}, in a file of mode 0600 in the state folder; the oldest
leave. `adapt train` has the target answer them again, so an answer is kept only where it is part of
a later prompt, in a conversation.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgespec.adapt import learned
from edgespec.adapt.learned import file_of
from edgespec.errors import UsageError
from edgespec.files import write_whole

log = logging.getLogger("edgespec")

FOLDER, ENDING = "prompts", ".jsonl"
BUDGET = 4 << 20  # bytes; when they are full, the newer half stays

Messages = Sequence[Mapping[str, Any]]


class KeptPrompts:
    """Those of one pair. draft, target: fingerprints; state: the folder of all pairs."""

    def __init__(self, state: Path, draft: str, target: str, *, budget_bytes: int = BUDGET) -> None:
        self.path = file_of(state, FOLDER, draft, target, ENDING)
        self._budget = budget_bytes

    def add(self, messages: Messages) -> None:
        """Keep a prompt; never raises."""
        try:
            line = json.dumps({"messages": list(messages)}).encode() + b"\n"
            self.path.parent.mkdir(parents=True, exist_ok=True)
            learned.sweep(self.path)
            self._make_room(len(line))
            with open(self.path, "ab", opener=lambda name, how: os.open(name, how, 0o600)) as file:
                file.write(line if self._ends_whole() else b"\n" + line)
        except (OSError, TypeError, ValueError, UsageError) as error:
            log.info("a prompt is not kept: %s", error)

    def _ends_whole(self) -> bool:
        """Whether nobody was killed while writing the last line."""
        with self.path.open("rb") as file:
            n_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(n_bytes - 1, 0))
            return file.read() in (b"", b"\n")

    def _make_room(self, n_bytes: int) -> None:
        if not self.path.exists() or self.path.stat().st_size + n_bytes <= self._budget:
            return
        newer = self.path.read_bytes()[-(self._budget // 2) :]
        write_whole(self.path, newer[newer.find(b"\n") + 1 :], ours=True)

    def files(self) -> list[Path]:
        """The file, and what a process that was killed left of it."""
        return learned.files_of(self.path)

    def messages(self) -> list[Messages]:
        """All prompts, the oldest first, none twice; what cannot be read is left out."""
        found: dict[bytes, Messages] = {}
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return []
        for line in lines:  # one may be half a one, of a process that was killed
            try:
                found[line] = json.loads(line)["messages"]
            except (ValueError, KeyError, TypeError):
                continue
        return list(found.values())


def kept_files(state: Path) -> list[Path]:
    """Those of all pairs, and parts."""
    return learned.files_in(state, FOLDER, ENDING)
