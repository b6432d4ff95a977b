"""What a check of hours has found so far, in a file of JSON lines from which it goes on.

The first line is what is checked, so that no other check goes on from it; then a line for each text
compared, one for the place at which texts are sampled, one for every so many of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgespec.errors import UsageError
from edgespec.files import text_of, why, write_whole

FAULTS = (ValueError, KeyError, TypeError, AttributeError)  # of a line that is none of ours


@dataclass(frozen=True)
class Parting:
    """Where a speculative text first differs from the plain one.

    margin: the logit of plain decoding's token less that of the other, decoded one by one: the
    target's top-2 margin, or more if the other token is not even second. is_own: at the widths that
    each run had, the token it emitted was the best; is_own_clean: also where the cache was filled
    one by one before the round of the other.
    """

    position: int
    margin: float
    is_own: bool
    is_own_clean: bool

    def kind(self, noise: float) -> str:
        """Either tie or bug, if batches move a logit by up to `noise`.

        A wrong cache, too, is the same when done again: what the round does not give after a clean
        cache must be near enough for both logits to have moved by that.
        """
        is_tie = self.is_own and (self.margin <= 2 * noise or self.is_own_clean)
        return "tie" if is_tie else "bug"


@dataclass(frozen=True)
class Text:
    """A prompt's two texts; noise: by how much batches moved a logit of it, 0 if not measured."""

    prompt: int
    n_tokens: int
    n_tested: int
    noise: float
    parting: Parting | None


@dataclass
class Draws:
    """How often texts began with which two tokens, and the drafted tokens of these rounds."""

    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    n_tested: int = 0
    n_accepted: int = 0

    @property
    def n(self) -> int:
        """How many texts."""
        return self.pairs.total()

    def add(self, pair: tuple[int, int], n_tested: int, n_accepted: int) -> None:
        """One text."""
        self.pairs[pair] += 1
        self.n_tested += n_tested
        self.n_accepted += n_accepted


def whole_lines(text: str, begin: str) -> str:
    """A file's lines without one that was being written when the process ended.

    A last line that lacks but its end is whole. begin: of such a file. Raises: ValueError for a
    text of no whole line that is none.
    """
    cut = text.rfind("\n") + 1
    whole, last = text[:cut], text[cut:]
    if is_json(last):
        return f"{text}\n"
    if not whole and not (last.startswith(begin) or begin.startswith(last)):
        raise ValueError(text)
    return whole


def is_json(text: str) -> bool:
    """Whether it is a whole value."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class Kept:
    """What was found; in memory alone without a path."""

    def __init__(self, path: Path | None = None, of: Mapping[str, Any] | None = None) -> None:
        """of: what is checked, in JSON's types.

        Raises: UsageError if the file is of another check, or none of these.
        """
        self.texts: dict[int, Text] = {}
        self.place: list[int] = []
        self.draws = Draws()
        self._path = path
        if path is not None and path.exists():
            self._read(path, of)
        else:
            self._write({"of": of})

    def compared(self, text: Text) -> None:
        """Add a text."""
        self._write({"text": asdict(text)})
        self.texts[text.prompt] = text

    def placed(self, tokens: list[int]) -> None:
        """The context after which texts are sampled."""
        self._write({"place": tokens})
        self.place = tokens

    def drew(self, more: Draws) -> None:
        """Add what was sampled."""
        pairs = [[*pair, n] for pair, n in more.pairs.items()]
        self._write({"draws": {**asdict(more), "pairs": pairs}})
        self._count(more)

    def _count(self, more: Draws) -> None:
        self.draws.pairs.update(more.pairs)
        self.draws.n_tested += more.n_tested
        self.draws.n_accepted += more.n_accepted

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UsageError(
                f"--resume {self._path}: {why(error)}: expected a file to write; name another"
            ) from error

    def _read(self, path: Path, of: Mapping[str, Any] | None) -> None:
        """What is there; a line that was being written when the process ended is cut off."""
        expected = "what an earlier check with --resume left, or no file"
        text = text_of(path, "--resume", expected=expected)
        try:
            whole = whole_lines(text, '{"of": ')
        except ValueError:
            raise UsageError(f"--resume {path}: {text!r:.60}: expected {expected}") from None
        lines = whole.splitlines()
        for number, line in enumerate(lines, 1):
            try:
                ((what, value),) = json.loads(line).items()
                if number == 1:
                    self._same(path, value if what == "of" else None, of)
                else:
                    self._take(what, value)
            except FAULTS:
                raise UsageError(
                    f"--resume {path}:{number}: {line!r:.60}: expected {expected}"
                ) from None
        if whole != text:
            write_whole(path, whole.encode())
        if not lines:
            self._write({"of": of})

    def _same(self, path: Path, was: Any, now: Mapping[str, Any] | None) -> None:
        other = [key for key in now or {} if was[key] != (now or {})[key]]
        if other:
            raise UsageError(
                f"--resume {path}: it is of a check with another {other[0]}: expected the same "
                "command; name another file"
            )

    def _take(self, what: str, value: Any) -> None:
        if what == "text":
            parting = value.pop("parting")
            one = Text(**value, parting=Parting(**parting) if parting else None)
            self.texts[one.prompt] = one
        elif what == "place":
            self.place = list(map(int, value))
        elif what == "draws":
            pairs = Counter({(int(x1), int(x2)): int(n) for x1, x2, n in value.pop("pairs")})
            self._count(Draws(pairs, **value))
        else:
            raise KeyError(what)
