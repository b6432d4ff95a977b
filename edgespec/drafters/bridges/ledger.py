"""The same text in two vocabularies: the target's ids as they grow, the drafter's ids for them.

After every `sync` both spell the same bytes. Of a context that grew only the last words are spelled
again, from a place where the drafter's tokens are sure to part.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgespec.decode.follow import common_prefix
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.ngrams import MAX_PIECES
from edgespec.errors import TokenizerError

OnToken = Callable[[tuple[int, ...], int], None]
"""(the drafter's ids, the target's one id) that spell the same bytes."""

WINDOW = 48  # bytes; far enough back to start between any two characters, if no word starts nearer
SPACE, SPACES = 0x20, b" \t\n\r\v\f"


@dataclass(frozen=True)
class Stretch:
    """A stretch of text between control tokens, or from the anchor on.

    at: where it starts in the text. n_target, n_draft: ids before it. n_before: the drafter's ids
    before the control token that opened it. strips: the target's first token may bring a space
    that is none of the text's. adds: the drafter's first token does.
    """

    at: int
    n_target: int
    n_draft: int
    n_before: int
    strips: bool
    adds: bool


class Ledger:
    """Keeps both sides of one conversation.

    A control token is one of the drafter's by its role, or nothing, and ends a run of text. A
    drafter that wants a BOS has it before everything. A character that the drafter has no tokens
    for is left out of the text. n_syncs counts; n_full: how many of them had to start over, the
    first included; n_lost: characters left out.
    """

    def __init__(self, mapping: Mapping, *, on_token: OnToken | None = None) -> None:
        """on_token: told which of the drafter's ids, 2 to 8 whole ones, a target's token is.

        Once for each, as soon as what follows cannot change its spelling any more.
        """
        self.draft, self.target = mapping.draft, mapping.target
        self._preimage = mapping.preimage
        self._on_token = on_token
        self._anchor: tuple[list[int], list[int]] = ([], [])
        self.n_syncs = self.n_full = self.n_lost = 0
        self._known: dict[bytes, bool] = {}  # characters, by whether the drafter can spell them
        self._context: list[int] = []  # the target's ids
        self._ends: list[int] = []  # bytes of text after each of them
        self._ids: list[int] = []  # the drafter's
        self._marks: list[int] = []  # bytes of text after each of them
        self._text = bytearray()  # after the anchor, without spaces that only one side has
        self._runs: list[Stretch] = []
        self._n_told = 0  # target ids that on_token has seen or never will

    @property
    def spelled(self) -> bytes:
        """The text after the anchor that both sides spell."""
        return bytes(self._text)

    def anchor(self, target_ids: Sequence[int], draft_ids: Sequence[int]) -> None:
        """Contexts that begin with `target_ids` are spelled as `draft_ids` and the rest.

        For a prompt that each side's own chat template has written.
        """
        anchor = (list(target_ids), list(draft_ids))
        if anchor != self._anchor:
            self._anchor = anchor
            self._forget()

    def sync(self, context: Sequence[int]) -> list[int]:
        """The drafter's ids for the target's ids: the ledger's own list, valid until the next sync.

        Raises: TokenizerError if the text ends in a part of a character that the drafter has no
        token for: it may have one for the whole.
        """
        context = context if isinstance(context, list) else list(context)
        self.n_syncs += 1
        try:
            return self._sync(context)
        except BaseException:  # an interrupt too: half a record would be wrong for ever
            self._forget()
            raise

    def check(self) -> tuple[bytes, bytes]:
        """What the target's ids and the drafter's spell after the anchor, each from its pieces.

        Without the space that only one side's vocabulary puts before a run; what was left out is
        on the target's side alone.
        """
        sides: tuple[list[bytes], list[bytes]] = ([], [])
        after = [*self._runs[1:], Stretch(0, len(self._context), len(self._ids), 0, False, False)]
        for run, following in zip(self._runs, after, strict=True):
            theirs = self.target.spelling(self._context[run.n_target : following.n_target])
            ours = self.draft.spelling(self._ids[run.n_draft : following.n_draft])
            sides[0].append(theirs[run.strips and theirs[:1] == b" " :])
            sides[1].append(ours[run.adds and ours[:1] == b" " :])
        return b"".join(sides[0]), b"".join(sides[1])

    def _sync(self, context: list[int]) -> list[int]:
        n_same = self._n_same(context)
        n_head = self._n_head(context, n_same)
        if not self._runs or n_head != self._runs[0].n_target or n_same < n_head:
            self._begin(context[:n_head])
            n_same = len(self._context)
            self.n_full += 1
        elif n_same == len(context) == len(self._context):
            return self._ids
        old = self._drop(n_same)
        for token in context[n_same:]:
            if self.target.is_control(token):
                self._spell(old, is_over=True)
                self._tell(len(self._text))
                self._cross(token)
            else:
                self._append(token)
        self._spell(old)
        if self._on_token is not None:
            self._tell(self._end_of(self._keep(len(self._text))))
        return self._ids

    def _n_same(self, context: list[int]) -> int:
        known = self._context
        n = len(known)
        # Equality of whole lists copies neither of them; of a grown context that is all there is.
        known += context[n:]
        has_grown = known == context
        del known[n:]
        return n if has_grown else common_prefix(known, context, n)

    def _n_head(self, context: list[int], n_same: int) -> int:
        """How many ids the context begins with that are not text: the anchor, else a BOS."""
        anchor, n = self._anchor[0], len(self._anchor[0])
        known = bool(self._runs) and self._runs[0].n_target == n <= n_same
        if n and (known or context[:n] == anchor):
            return n
        return int(context[:1] == [self.target.roles.get("bos")])

    def _begin(self, theirs: list[int]) -> None:
        """Start over after the anchor or what else opens a text."""
        self._forget()
        opening = self.draft.roles.get("bos")
        ours = [] if opening is None else [opening]
        if theirs and theirs == self._anchor[0]:
            ours = list(self._anchor[1])
        self._context, self._ends = theirs, [0] * len(theirs)
        self._ids, self._marks = ours, [0] * len(ours)
        self._n_told = len(theirs)
        self._open_run(len(ours))

    def _forget(self) -> None:
        self._context, self._ends, self._ids, self._marks = [], [], [], []
        self._text = bytearray()
        self._runs = []
        self._n_told = 0

    def _open_run(self, n_before: int) -> None:
        """Both sides' tokenizers would add a space here, one, or none: what both add is text."""
        theirs, ours = (
            side.adds_space and (not ids or side.is_control(ids[-1]))
            for side, ids in ((self.target, self._context), (self.draft, self._ids))
        )
        run = Stretch(
            at=len(self._text),
            n_target=len(self._context),
            n_draft=len(self._ids),
            n_before=n_before,
            strips=theirs and not ours,
            adds=ours and not theirs,
        )
        self._runs.append(run)

    def _cross(self, token: int) -> None:
        """A control token of the target's: the drafter's by its role or none, and another run."""
        n_before, at = len(self._ids), len(self._text)
        same = int(self._preimage[token])
        if same >= 0:
            self._ids.append(same)
            self._marks.append(at)
        self._context.append(token)
        self._ends.append(at)
        self._n_told = len(self._context)
        self._open_run(n_before)

    def _append(self, token: int) -> None:
        """Text of one more token of the target's."""
        piece, run = self.target.pieces[token], self._runs[-1]
        if run.strips and len(self._text) == run.at:  # nothing yet, or the space alone
            first = not self.target.spelling(self._context[run.n_target :])
            piece = piece.removeprefix(b" ") if first else piece
        self._text += piece
        self._context.append(token)
        self._ends.append(len(self._text))

    def _drop(self, n_same: int) -> int:
        """Forget the target's ids after the first n and their text; the bytes that are left."""
        while self._runs[-1].n_target > n_same:
            run = self._runs.pop()
            del self._ids[run.n_before :], self._marks[run.n_before :]
        old = self._ends[n_same - 1] if n_same else 0
        del self._context[n_same:], self._ends[n_same:], self._text[old:]
        self._n_told = min(self._n_told, n_same)
        return old

    def _spell(self, old: int, *, is_over: bool = False) -> None:
        """Spell the last run anew from where its first `old` bytes of text allow."""
        run, kept = self._runs[-1], self._keep(old)
        at = self._end_of(kept)
        del self._ids[kept:], self._marks[kept:]
        opens = run.adds and kept == run.n_draft
        try:
            ids = self.draft.encode(bytes(self._text[at:]), start=opens)
        except TokenizerError:
            self._leave_out(at, is_over)
            ids = self.draft.encode(bytes(self._text[at:]), start=opens)
        at -= opens
        for token in ids:
            at += len(self.draft.pieces[token])
            self._marks.append(at)
        self._ids += ids

    def _leave_out(self, at: int, is_over: bool) -> None:
        """Take characters that the drafter cannot spell out of the text after its first bytes."""
        data, gone = bytes(self._text[at:]), list[int]()  # gone: where bytes were
        text, n_whole = codecs.utf_8_decode(data, "surrogateescape", is_over)
        self._text[at:] = b""
        for char in text:
            raw = char.encode(errors="surrogateescape")
            if self._is_spelled(raw):
                self._text += raw
            else:
                start = len(self._text) + len(gone)
                gone += range(start, start + len(raw))
                self.n_lost += 1
        self._text += data[n_whole:]
        for i in range(bisect_right(self._ends, at), len(self._ends)):
            self._ends[i] -= bisect_left(gone, self._ends[i])

    def _is_spelled(self, char: bytes) -> bool:
        if char not in self._known:
            try:
                self._known[char] = bool(self.draft.encode(char))
            except TokenizerError:
                self._known[char] = False
        return self._known[char]

    def _keep(self, old: int) -> int:
        """How many of the drafter's ids stay as they are whatever follows the first `old` bytes.

        Up to a word's beginning, else up to some character's at least WINDOW bytes back.
        """
        run, text = self._runs[-1], self._text
        n = bisect_right(self._marks, old, run.n_draft)
        while n > run.n_draft and (at := self._marks[n - 1]) > run.at:
            if at < len(text) and text[at] == SPACE and text[at - 1] not in SPACES:
                return n
            if old - at >= WINDOW and (text[at] & 0xC0 != 0x80 or old - at >= 4 * WINDOW):
                return n
            n -= 1
        return run.n_draft

    def _end_of(self, n_draft: int) -> int:
        """Bytes of text that the drafter's first n ids spell, n not before the last run."""
        run = self._runs[-1]
        return self._marks[n_draft - 1] if n_draft > run.n_draft else run.at

    def _tell(self, limit: int) -> None:
        """Tell of the last run's tokens up to the first `limit` bytes of text."""
        if self._on_token is None:
            return
        run, marks = self._runs[-1], self._marks
        start = run.at if self._n_told == run.n_target else self._ends[self._n_told - 1]
        for i in range(self._n_told, len(self._context)):
            end = self._ends[i]
            if end > limit:
                break
            self._n_told += 1
            first = bisect_right(marks, start, run.n_draft)
            last = bisect_left(marks, end, first)
            # A first token of which one side has a space more does not spell the other's.
            bare = start == run.at and (run.strips or run.adds)
            whole = not bare and self._end_of(first) == start and marks[last : last + 1] == [end]
            token = self._context[i]
            whole = whole and len(self.target.pieces[token]) == end - start  # nothing left out
            if whole and 1 <= last - first < MAX_PIECES:
                self._on_token(tuple(self._ids[first : last + 1]), token)
            start = end
