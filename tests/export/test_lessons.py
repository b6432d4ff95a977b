"""What a drafter is taught and judged by: the target's whole law, whole conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from edgespec.export.align import lesson
from edgespec.export.align.held import split, talk
from edgespec.export.align.written import Written
from test_align import a_lesson

from edgespec.errors import TokenizerError, UsageError

HALF, REST = 9, 8  # tokens of the target's that are one character, the drafter's REST
NONE = -1


def written(ids: Sequence[int], n_prompt: int, n_kept: int = 2) -> Written:
    """A text whose target was sure, and thought of the ids after it as well."""
    said = np.array(ids[n_prompt:], np.int32)
    ids_of = said[:, None] + np.arange(n_kept, dtype=np.int32)
    probs = np.full((len(said), n_kept), 0.05, np.float32)
    probs[:, 0] = 0.9
    return Written(tuple(ids), n_prompt, ids_of, probs)


def whole_characters(ids: Sequence[int]) -> tuple[int, ...]:
    """Spells what is whole. Raises: TokenizerError."""
    if ids[-1] == HALF:
        raise TokenizerError("a part of a character")
    return tuple(one for one in ids if one != HALF)


def test_what_has_no_column_stays_in_the_tail_and_one_column_adds_up():
    ids_of = np.array([[4, 5, 6, 7]], np.int32)
    probs = np.array([[0.5, 0.2, 0.1, 0.05]], np.float32)
    columns = np.full(8, NONE)
    columns[[4, 5, 6]] = 1, 2, 1
    text = Written((1, 2, 4), 2, ids_of, probs)
    one = lesson.lesson(text, lesson.same, columns.__getitem__).labels
    assert one.ids[0, :3].tolist() == [1, 2, NONE]
    assert one.probs[0, :3] == pytest.approx([0.6, 0.2, 0])
    assert one.tail[0] == pytest.approx(0.2)


def test_a_place_within_a_character_has_no_label_and_an_end_within_one_is_cut_off():
    text = written((1, 2, 4, HALF, REST, 5, HALF), 2)
    one = lesson.lesson(text, whole_characters, lambda ids: ids)
    assert one.ids.tolist() == [1, 2, 4, REST, 5]
    assert one.rows.tolist() == [1, 2, 3]
    assert one.labels.ids[:, 0].tolist() == [4, HALF, 5]
    assert one.said.tolist() == [4, REST, 5]


def test_what_cannot_be_spelled_at_all_teaches_nothing():
    text = written((1, 2, HALF, HALF), 2)
    for ids in (text.ids, (1, HALF, HALF, HALF)):
        one = lesson.lesson(replace(text, ids=ids), whole_characters, lambda ids: ids)
        assert len(one.rows) == len(one.labels) == 0


def test_a_character_of_several_tokens_is_learned_by_its_pieces():
    def in_two(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple(piece for one in ids for piece in ((6, 7) if one == REST else (one,)))

    one = lesson.lesson(written((1, 2, REST, 4), 2), in_two, lambda ids: ids)
    assert one.rows.tolist() == [1, 2, 3]
    assert one.labels.piece.tolist() == [NONE, 7, NONE]
    assert one.is_mapped.tolist() == [True, False, True]


def test_labels_tell_lessons_from_others():
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    from edgespec.export.align.train import digest

    one = a_lesson(4, n_pieces=1)
    law = one.labels
    others = [
        replace(one, ids=one.ids + 1),
        replace(one, rows=one.rows + 1),
        replace(one, labels=replace(law, ids=law.ids + 1)),
        replace(one, labels=replace(law, probs=law.probs / 2)),
        replace(one, labels=replace(law, piece=law.piece + 1)),
    ]
    assert digest([one]) == digest([a_lesson(4, n_pieces=1)])
    assert len({digest([other]) for other in (one, *others)}) == 6


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_turns_of_one_conversation_are_known_by_how_they_begin():
    system, answer = {"role": "system", "content": "Be"}, {"role": "assistant", "content": "Hi"}
    begun = [system, user("a")]
    assert talk(begun) == talk([*begun, answer, user("b")])
    assert len({talk(one) for one in (begun, [user("a")], [system, user("b")], [answer])}) == 4


def test_every_tenth_of_single_prompts_is_held_out():
    taught, held = split(range(40), [str(i) for i in range(40)])
    assert held == [9, 19, 29, 39]
    assert taught == [i for i in range(40) if i not in held]


@pytest.mark.parametrize("sizes", [(3, 4, 5, 1, 7), (9, 11), (30, 1, 1, 30), 15 * (5,), 7 * (12,)])
def test_a_conversation_is_on_one_side(sizes: Sequence[int]):
    talks = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
    talks = talks[::2] + talks[1::2]  # turns need not lie together
    taught, held = split(talks, talks)
    assert not set(taught) & set(held)
    assert sorted(taught + held) == sorted(talks)
    assert 1 <= len(held) <= max(len(talks) // 10, min(sizes))
    assert split(talks, talks) == (taught, held)


def test_one_conversation_cannot_be_judged_by():
    with pytest.raises(UsageError, match="2 prompts of one conversation: expected several"):
        split([1, 2], ["a", "a"])
