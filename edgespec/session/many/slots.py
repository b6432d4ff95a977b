"""Sequences of one context, each with what it has read: which of them answers a prompt best.

Knows ids; no text, no threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from edgespec.decode.follow import common_prefix
from edgespec.decode.round import Decoding
from edgespec.decode.tally import decided
from edgespec.protocols import SharedText
from edgespec.session.many.looking import Looking
from edgespec.session.many.outbox import Outbox
from edgespec.types import SamplingParams, Stats, Step

log = logging.getLogger("edgespec")


@dataclass(eq=False)
class Job:
    """One request. most: tokens drafted a round at most; fixed: always as many. messages: what
    `ids` are of, none for a raw text.

    has_said: told each round, whether the answer ends with it; None where nothing does. asked: when
    it came, on perf_counter's clock. n_new: tokens of its prompt that no slot had read. plain_s:
    what rounds without drafts would have taken, of n_priced rounds. why: tells why nothing is
    drafted for it, in a line or nothing; known at its end.
    """

    ids: list[int]
    params: SamplingParams
    most: int
    fixed: bool
    messages: Sequence[Mapping[str, Any]] = ()
    has_said: Callable[[Step], bool] | None = None
    steps: Outbox[Step] = field(default_factory=Outbox)
    decoding: Decoding | None = None
    asked: float = field(default_factory=perf_counter)
    n_new: int = 0
    plain_s: float = 0.0
    n_priced: int = 0
    why: Callable[[], str] = str

    def counted(self) -> Stats:
        """Its counts so far."""
        return Stats() if self.decoding is None else self.decoding.tally.stats(self.why())

    def log(self) -> None:
        """Say what drafting did, once it is over."""
        if log.isEnabledFor(logging.INFO):
            told = [*decided(self.counted()), self.why()]
            log.info("an answer: %s", "; ".join(filter(None, told)) or "no drafts")

    @property
    def plain_token_s(self) -> float:
        """What a token takes in such company without drafts; 0 where that is not known."""
        return self.plain_s / self.n_priced if self.n_priced else 0.0


@dataclass(eq=False)
class Slot:
    """One sequence. job: whose it is, None while idle.

    ids: what an idle one has in its cache. used: when it was taken, counted in requests.
    """

    who: int
    text: SharedText
    looking: Looking = field(default_factory=Looking)
    job: Job | None = None
    ids: list[int] = field(default_factory=list)
    used: int = 0

    @property
    def known(self) -> list[int]:
        """What is in its cache, between two forwards."""
        if self.job is None:
            return self.ids
        decoding = self.job.decoding
        return (self.job.ids if decoding is None else decoding.context)[: self.text.length]

    @property
    def unread(self) -> int:
        """Tokens of its prompt, but for the last one, that are still to be read."""
        if self.job is None or self.job.decoding is not None:
            return 0
        return len(self.job.ids) - 1 - self.text.length

    def take(self, job: Job, source: Slot, n: int, used: int) -> None:
        """Answer `job`, of whose prompt `source` has read n tokens."""
        if source is self:
            self.text.truncate(n)
        else:
            self.text.copy(source.text, n)
        self.job, self.ids, self.used = job, [], used
        self.looking.begin(job.most, fixed=job.fixed)

    def release(self) -> None:
        """Be idle, with what is in the cache; what was to be read with a first row never will be,
        and would crowd out others' tokens in the forward that reads it.
        """
        self.text.drop_held()
        self.ids, self.job = self.known, None

    def empty(self) -> None:
        """Be idle and know nothing; after a failure nobody knows what is in the cache."""
        self.job, self.ids = None, []
        self.text.truncate(0)


def place(slots: Sequence[Slot], ids: Sequence[int]) -> tuple[Slot, Slot, int]:
    """The idle slot to answer a prompt, the one whose text it begins with, and how much of that.

    An idle one goes on with its own text, or the one not used for longest begins with a copy, which
    costs nothing: whichever forgets less. So conversations with one beginning keep the rest of
    theirs. At least one slot is idle.
    """
    ids = list(ids)
    alike = {slot.who: common_prefix(slot.known, ids, len(ids) - 1) for slot in slots}
    source = max(slots, key=lambda slot: (alike[slot.who], slot.job is None, -slot.used))
    n = alike[source.who]
    taken = min((slot for slot in slots if slot.job is None), key=lambda slot: slot.used)
    if source.job is None and len(source.ids) - n <= len(taken.ids):
        return source, source, n
    if alike[taken.who] >= n:
        source = taken
    return taken, source, n
