"""Several heads for a drafter, one for each topic that prompts are of, and which one is in use.

A prompt goes to the topic that its features tell (router.py, familiar.py). Once it is answered all
heads are asked what they would have guessed: the answer then belongs to the one that was right most
often, teaches that one, and the router. So a wrong route costs one answer at most, and not even
that: what falls behind the uncorrected head is left within the answer (heads.py).

What is like no topic, or what no head has answered better than the uncorrected one, is the
uncorrected one's. Four such prompts that are like each other open a topic; so does a head that
falls behind. If there is no room, the one that was not used for longest makes it.
Source: Online Speculative Decoding, Liu et al. 2023, arXiv 2310.07177: a drafter for each topic.
There topics are given; here they are found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgespec.adapt.adapter import HeadAdapter
from edgespec.adapt.answer import MOST, NONE, Answer
from edgespec.adapt.examples import Batch, Examples, Owner, is_held_out
from edgespec.adapt.familiar import YOUNG
from edgespec.adapt.features import Buckets
from edgespec.adapt.gate import rates
from edgespec.adapt.heads import Heads
from edgespec.adapt.router import after
from edgespec.adapt.topic_files import TopicFiles

REST = 64  # answers of other topics before one may make room
SURE = 0.9  # of an answer being another topic's, or it stays
SAVED_EVERY = 8  # answers
NOTHING = np.zeros(0, np.int64)


class Topics:
    """Heads by topic; there is always topic 0.

    make: the heads of a topic, as far as its files tell. most: 1 leaves all to topic 0.
    """

    def __init__(
        self,
        make: Callable[[int], Heads],
        files: TopicFiles,
        examples: Examples,
        *,
        most: int = MOST,
    ) -> None:
        self._make, self._files, self._examples, self._most = make, files, examples, most
        known = files.topics() if most > 1 else []
        self.heads = {topic: make(topic) for topic in sorted({0, *known})[:most]}
        self.map = files.load_map()
        self._n_answers = dict.fromkeys(self.heads, 0)
        self._last = dict.fromkeys(self.heads, 0)  # request of each
        self.answer = Answer(-1, NOTHING, 0, Owner(0, False))
        self.now.use(self.now.gate.good)

    @property
    def now(self) -> Heads:
        """Those of the answer's topic."""
        return self.heads[self.answer.topic]

    def begin(self, of: Buckets) -> None:
        """A prompt comes; without features it is of the topic of the one before."""
        self._conclude()
        before, request = self.answer, self.answer.request + 1
        self.answer = Answer(request, of, before.topic, before.owner)
        if len(of) and self._most > 1:
            self.map.familiar.meet(of)
            law = self._law(of)
            self.answer.topic = list(self.heads)[int(law[:-1].argmax())]
            self.answer.is_strange = bool(law[-1] >= law.max())
        self.answer.owner = self._owner(self.answer.topic)
        self.now.use(self.now.gate.good)
        if self._most > 1 and not self._trusts(of):
            self.now.stand_back()

    def _trusts(self, of: Buckets) -> bool:
        """Whether the head of the answer's topic may draft."""
        is_like = not len(of) or self.map.familiar.is_like(of, self.answer.topic)
        return is_like and not self.answer.is_strange

    def place(self, asked: Batch) -> None:
        """Ask all heads about positions of the answer that none has learned from; move it where it
        belongs.
        """
        answer, topics = self.answer, [*self.heads, NONE]
        if self._most == 1:
            return
        first = int(np.searchsorted(asked.request, answer.request))
        of = asked.part(slice(first, None))
        for topic in topics:
            head = self.now.frozen if topic == NONE else self.heads[topic].gate.good
            answer.right[topic] += rates(head, of, greedy=True).sum()
        goal = after(self._law(answer.of), answer.right[topics])
        best = topics[int(goal.argmax())]
        if best not in (answer.topic, NONE) and goal.max() > SURE:
            self._move(best)

    def decline(self) -> None:
        """The head in use has fallen behind the uncorrected one: the text is of a topic without a
        head yet, or that one is given up.
        """
        topic = self.answer.topic
        room = self._room() if self.map.familiar.counts[topic] >= YOUNG else None
        if room is None:
            self.now.start_over()
            return
        self._open(room, self.now.frozen)
        self._move(room)

    def keep(self, *, at_end: bool) -> None:
        """Write the map, now and then."""
        if at_end:
            self._conclude()
            self.answer.n = 0
        if self._most > 1 and (at_end or self.answer.request % SAVED_EVERY == 0):
            self._files.save_map(self.map)

    def _conclude(self) -> None:
        """What is known of the answer that is over teaches router and map."""
        answer, known, topics = self.answer, self.map.familiar, [*self.heads, NONE]
        if not answer.n:
            return
        self._n_answers[answer.topic] += 1
        self._last[answer.topic] = answer.request
        if not len(answer.of):
            return
        if answer.right.any():
            law = self._law(answer.of)
            self.map.router.learn(answer.of, topics, law, answer.right[topics])
        room = self._room() if answer.is_strange else None
        if room is None:
            known.add(answer.of, answer.topic)
        elif known.are_a_kind(answer, topics[:-1]):
            self._found(room)

    def _found(self, room: int) -> None:
        """The strangers open a topic and take their answers along."""
        known = self.map.familiar
        self._open(room, self._best(known.strangers))
        for stranger in known.strangers:
            known.add(stranger.of, room)
            self._give(stranger, room)
            self._n_answers[room] += 1
        known.strangers.clear()

    def _law(self, of: Buckets) -> NDArray[np.float64]:
        """[n + 1] how likely a prompt is of each topic there is, and of none."""
        topics, known = list(self.heads), self.map.familiar
        likeness = np.append(known.likeness(of, topics), known.expected(of, topics))
        return self.map.router.law(of, [*topics, NONE], likeness)

    def _best(self, answers: Sequence[Answer]) -> HeadAdapter:
        """The head that was right most often in some answers; the uncorrected one where none was
        more often than that.
        """
        right = np.sum([answer.right for answer in answers], axis=0)
        best = max(self.heads, key=right.__getitem__)
        return self.heads[best].gate.good if right[best] > right[-1] else self.now.frozen

    def _room(self) -> int | None:
        """A number for another topic, if there is one."""
        if len(self.heads) < self._most:
            return next(topic for topic in range(MOST) if topic not in self.heads)
        if self._most == 1:
            return None
        oldest = min(self._last, key=self._last.__getitem__)
        return oldest if self.answer.request - self._last[oldest] > REST else None

    def _open(self, topic: int, like: HeadAdapter) -> None:
        """A topic that has no head in use yet; the one that learns begins like another."""
        self._files.heads[topic].remove()
        self.map.router.forget(topic)
        self.map.familiar.forget(topic)
        self.heads[topic] = self._make(topic)
        self.heads = dict(sorted(self.heads.items()))
        self.heads[topic].trainer.adapter.become(like)
        self.heads[topic].trainer.restart()
        self.heads[topic].is_young = True
        self._n_answers[topic], self._last[topic] = 0, self.answer.request

    def _move(self, topic: int) -> None:
        """The answer turns out to be of another topic."""
        self._give(self.answer, topic)
        self.now.use(self.now.gate.good)

    def _give(self, answer: Answer, topic: int) -> None:
        """An answer, with what is known of it and what is still to be labelled, to a topic."""
        answer.topic, answer.owner = topic, self._owner(topic)
        self._examples.move(answer.request, answer.owner)

    def _owner(self, topic: int) -> Owner:
        """Of the topic's next answer."""
        return Owner(topic, is_held_out(self._n_answers[topic]))
