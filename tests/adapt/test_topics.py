"""Topics: what is opened, where answers go, what a wrong route costs, and what is stored."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from test_online import D, V, after, answered, online
from test_router import prompt

from edgespec.adapt.adapter import fresh
from edgespec.adapt.adapter_file import BUDGET, AdapterFiles
from edgespec.adapt.answer import MOST, NONE
from edgespec.adapt.features import features
from edgespec.adapt.rivals import BEHIND, DRIFT
from edgespec.adapt.topic_files import TopicFiles, packed, read
from edgespec.adapt.topics import REST
from edgespec.drafters.model import ModelDrafter
from edgespec.errors import ModelFileError

PAIR = "a" * 64, "b" * 64


def other(token: int) -> int:
    """What the target says after a token where prompts are of the second kind."""
    return (token * 11 + 5) % V


SAYS = [after, other, lambda token: (token * 13 + 1) % V]


class Stream:
    """Answers to prompts of some kinds, by a pair whose target says something else in each."""

    def __init__(self, folder, n_topics=MOST, seed=0):
        ticks = count()
        self.one = online(folder, n_topics=n_topics, clock=lambda: next(ticks) * 1e-4)
        self.drafter = ModelDrafter(self.one.model, learner=self.one)
        self.rng, self.n = np.random.default_rng(seed), 0

    def ask(self, kinds, n_rounds=12):
        """Shares of right drafts, and topics at the end of the answers."""
        rates, topics = [], []
        for kind in kinds:
            self.one.begin(prompt(kind, self.rng))
            start, self.n = (5 * self.n + self.n // 8) % V, self.n + 1
            rates.append(answered(self.one, self.drafter, n_rounds, start, SAYS[kind]))
            topics.append(self.one.topics.answer.topic)
        return rates, topics


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A stream that has alternated between two kinds, and its shares of right drafts by block."""
    stream = Stream(tmp_path_factory.mktemp("taught"), seed=1)
    blocks = [stream.ask([i % 2] * n, n_rounds=9) for i, n in enumerate((36, 28, 8, 8))]
    stream.one.save()
    return stream, blocks


def bad():
    """A head that always says one thing."""
    head = fresh(np.arange(V), D, rank=24)
    head.bias[3] = 99.0
    return head


def with_heads(folder, *heads):
    """A stream whose topics have these heads, each known by 20 prompts of its kind."""
    for topic, head in enumerate(heads):
        AdapterFiles(folder, *PAIR, topic=topic).save(head, {})
    stream = Stream(folder)
    for kind in range(len(heads)):
        for _ in range(20):
            of = features(prompt(kind, stream.rng))
            stream.one.topics.map.familiar.meet(of)
            stream.one.topics.map.familiar.add(of, kind)
    return stream


def same(first, second):
    """Whether two adapters are equal in all bits."""
    pairs = zip((first.rows, *first.parameters), (second.rows, *second.parameters), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.slow
def test_each_kind_of_prompts_gets_a_head_and_finds_it_again(taught):
    stream, blocks = taught
    assert set(blocks[0][1]) == {0} == set(blocks[2][1])
    assert set(blocks[1][1][4:]) == {1} == set(blocks[3][1])
    for block in (2, 3):  # the kind comes back
        first, again = (np.mean(blocks[i][0]) for i in (block - 2, block))
        assert again > first + 0.2
    assert len(stream.one.topics.heads) == 2


def test_one_topic_leaves_all_to_one_head(tmp_path):
    stream = Stream(tmp_path, n_topics=1)
    assert set(stream.ask([0] * 12 + [1] * 12)[1]) == {0}
    stream.one.heads._save()
    assert [path.name.count("topic") for path in stream.one.topics._files.files()] == [0]


@pytest.mark.slow
def test_the_same_stream_gives_the_same_heads_and_the_same_routes(tmp_path):
    streams = [Stream(tmp_path / name) for name in "ab"]
    told = [stream.ask([0] * 12 + [1] * 12 + [0] * 4) for stream in streams]
    assert told[0] == told[1]
    first, second = (stream.one.topics for stream in streams)
    assert packed(first.map) == packed(second.map) and list(first.heads) == [0, 1]
    for topic, heads in first.heads.items():
        assert same(heads.trainer.adapter, second.heads[topic].trainer.adapter)


@pytest.mark.slow
def test_a_new_session_finds_heads_and_routes_as_they_were(taught, tmp_path):
    stream, _ = taught
    folder = stream.one.topics._files.map.parent.parent
    again = Stream(folder, seed=9)
    assert list(again.one.topics.heads) == [0, 1]
    for topic, heads in again.one.topics.heads.items():
        assert same(heads.gate.good, stream.one.topics.heads[topic].gate.good)
    again.one.save = lambda: None  # the others need the files as they are
    assert again.ask([0, 1, 1, 0])[1] == [0, 1, 1, 0]


def test_a_wrong_route_is_left_within_the_answer_before_anything_is_computed(tmp_path):
    stream = with_heads(tmp_path, bad())
    stream.one._share = 0.0
    stream.one.begin(prompt(0, stream.rng))
    assert stream.one.model.correction is not None
    heads, used = stream.one.heads, []
    for _ in range(20):
        heads.saw(False, True)
        used.append(stream.one.model.correction is not None)
    assert sum(used) == np.ceil(BEHIND / (1 - DRIFT)) - 1
    stream.one.begin(prompt(0, stream.rng))
    assert stream.one.model.correction is heads.gate.good  # it was for that answer


def test_an_answer_goes_to_the_head_that_was_right_and_teaches_that_one(taught):
    stream, _ = taught
    topics = stream.one.topics
    good, n_before = [topics.heads[i].gate.good for i in (0, 1)], stream.one.examples.n_of(1)
    stream.one.begin(prompt(0, stream.rng))
    assert stream.one.model.correction is good[0]
    weights = topics.map.router.weights.copy()
    stream.one.save = lambda: stream.one._compare(is_over=True)  # as in idle time
    answered(stream.one, stream.drafter, 16, 7, other)
    assert topics.answer.topic == 1
    assert stream.one.model.correction is good[1]
    assert stream.one.examples.n_of(1) > n_before + 8
    stream.one.begin(prompt(0, stream.rng))
    assert (topics.map.router.weights != weights).any()


def test_the_router_learns_where_no_head_is_better_than_the_uncorrected_one(tmp_path):
    stream = with_heads(tmp_path, bad())
    topics = stream.one.topics
    topics._found = lambda room: None  # no other comes
    for right, is_strange in ((4, False), (9, True)):
        found = []
        for _ in range(20):
            topics.begin(features(prompt(0, stream.rng)))
            topics.answer.n = 20
            topics.answer.right[[0, NONE]] = 6, right
            found.append(topics.answer.is_strange)
            assert (stream.one.model.correction is None) == topics.answer.is_strange
        assert np.mean(np.array(found[10:]) == is_strange) > 0.8


def test_what_is_not_like_its_topic_is_drafted_without_a_head(tmp_path):
    stream = with_heads(tmp_path, bad())
    topics = stream.one.topics
    topics._law = lambda of: np.array([0.9, 0.1])  # whatever the router says
    for kind, is_used in ((0, True), (1, False)):
        topics.begin(features(prompt(kind, stream.rng)))
        assert (stream.one.model.correction is not None) == is_used


def test_what_falls_behind_in_its_own_topic_is_given_up(tmp_path):
    stream = with_heads(tmp_path, bad())
    topics = stream.one.topics
    topics._most = 1
    topics.begin(features(prompt(0, stream.rng)))
    topics.decline()
    assert len(topics.now.gate.good.rows) == 0 and list(topics.heads) == [0]


def test_a_head_that_falls_behind_makes_room_for_another_topic(tmp_path):
    stream = with_heads(tmp_path, bad())
    topics = stream.one.topics
    topics.begin(features(prompt(0, stream.rng)))
    topics.decline()
    assert topics.answer.topic == 1 and list(topics.heads) == [0, 1]
    assert same(topics.heads[0].gate.good, bad()) and len(topics.now.gate.good.rows) == 0
    topics.decline()  # it is young: it is given up itself
    assert list(topics.heads) == [0, 1]


def test_the_topic_that_rested_longest_makes_room(tmp_path):
    stream = with_heads(tmp_path, *(bad() for _ in range(MOST)))
    topics = stream.one.topics
    assert topics._room() is None
    for topic in topics.heads:
        topics._last[topic] = REST + topic % 3  # the first and the last rested longest
    topics.answer.request = 2 * REST
    assert topics._room() is None
    topics.answer.request += 1
    assert topics._room() == 0
    topics._open(0, topics.now.frozen)
    assert topics._files.heads[0].versions() == [] and topics._room() == 3


@pytest.mark.parametrize("on_disk", [(1, 2), (0, 2, 3), (2,)])
def test_there_are_never_more_heads_than_were_asked_for(on_disk, tmp_path):
    for topic in on_disk:
        AdapterFiles(tmp_path, *PAIR, topic=topic).save(bad(), {})
    topics = Stream(tmp_path, n_topics=2).one.topics
    assert list(topics.heads) == sorted({0, *on_disk})[:2]
    assert topics._room() is None


def test_the_file_of_one_head_is_the_first_topics(tmp_path):
    AdapterFiles(tmp_path, *PAIR).save(bad(), {})
    stream = Stream(tmp_path)
    assert same(stream.one.heads.gate.good, bad())
    assert stream.one.model.correction is stream.one.heads.gate.good


def test_a_damaged_map_is_set_aside_and_heads_stay(taught, tmp_path, caplog):
    stream, _ = taught
    for topic, heads in stream.one.topics.heads.items():
        AdapterFiles(tmp_path, *PAIR, topic=topic).save(heads.gate.good, {})
    files = TopicFiles(tmp_path, *PAIR)
    files.save_map(stream.one.topics.map)
    assert files.map.stat().st_mode & 0o777 == 0o600
    assert packed(read(files.map)) == packed(stream.one.topics.map)
    data = bytearray(files.map.read_bytes())
    data[len(data) // 2] ^= 1
    files.map.write_bytes(data)
    again = Stream(tmp_path)
    assert "no topics that can be used (its SHA-256 is another)" in caplog.text
    assert not files.map.exists() and list(again.one.topics.heads) == [0, 1]
    topics = again.ask([1] * 6 + [0] * 6)[1]
    assert (topics[5], topics[11]) == (1, 0)  # by what the heads know


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda what: what.router.weights.fill(np.nan), "finite"),
        (lambda what: setattr(what.router, "weights", np.zeros((2, 4), np.float32)), "sizes"),
        (lambda what: what.familiar.counts.fill(-1), "below 0"),
    ],
)
def test_a_whole_map_of_wrong_values_is_refused(change, why, tmp_path):
    files = TopicFiles(tmp_path, *PAIR)
    what = files.load_map()
    change(what)
    files.save_map(what)
    with pytest.raises(ModelFileError, match=why):
        read(files.map)


def test_all_topics_of_a_pair_have_one_budget(tmp_path):
    files = TopicFiles(tmp_path, *PAIR)
    assert sum(one._budget for one in files.heads) == BUDGET
    assert len({one._stem for one in files.heads}) == MOST
    for one in files.heads:
        one._budget = 10
        for _ in range(3):
            one.save(bad(), {})
    assert [len(one.versions()) for one in files.heads] == [1] * MOST
    assert files.topics() == list(range(MOST)) and len(files.files()) == MOST
