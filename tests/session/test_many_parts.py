"""Who reads how much of a forward, and who takes which sequence: tables of cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_texts import TableText, law_of

from edgespec.session.many.parts import LEAST, ending, part_of, shares
from edgespec.session.many.slots import Job, Slot, place
from edgespec.types import SamplingParams


@pytest.mark.parametrize(
    ("unread", "room", "expected"),
    [
        ([], 100, []),
        ([40], 100, [40]),
        ([400], 100, [100]),
        ([4000, 20], 100, [20, 20]),  # twice what the short one takes alone
        ([4000, 20, 20], 100, [40, 20, 20]),
        ([4000, 3000], 100, [25, 75]),  # the oldest goes on
        ([30, 3000], 100, [30, 30]),
        ([3, 0], 100, [3, 0]),
    ],
)
def test_short_prompts_go_first_and_the_oldest_goes_on(unread, room, expected):
    assert shares(unread, room) == expected


@given(st.lists(st.integers(1, 600), min_size=1, max_size=9), st.integers(1, 256))
def test_a_forward_is_never_too_full_and_never_empty(unread, room):
    given_ = shares(unread, room)
    assert all(0 <= n <= most for n, most in zip(given_, unread, strict=True))
    assert 0 < sum(given_) <= room
    assert given_[0] > 0


def test_who_ends_with_a_forward_has_it_alone():
    assert ending([4000, 20], [20, 20]) == [0, 20]
    assert ending([4000, 20, 300], [40, 20, 0]) == [0, 20, 0]
    assert ending([4000, 3000], [25, 75]) == [25, 75]
    assert ending([], []) == []


def test_parts_are_short_where_others_wait_for_their_next_token():
    assert part_of(248, 0.0, is_alone=True) == 248
    assert part_of(248, 0.0, is_alone=False) == LEAST
    assert part_of(248, 0.002, is_alone=False) == 125
    assert part_of(248, 0.1, is_alone=False) == LEAST
    assert part_of(20, 0.1, is_alone=False) == 20


def slot(who: int, ids: list[int], used: int, *, is_busy: bool = False) -> Slot:
    text = TableText(law_of(0), 8, 64)
    text.extend(ids)
    made = Slot(who, text, ids=ids, used=used)
    if is_busy:
        made.job = Job([*ids, 0], SamplingParams(), 0, False)
    return made


def placed(slots, ids):
    taken, source, n = place(slots, ids)
    return taken.who, source.who, n


def test_a_conversation_goes_on_where_it_was():
    slots = [slot(0, [1, 2, 3], 5), slot(1, [1, 2, 3, 4, 5], 7), slot(2, [7], 1)]
    assert placed(slots, [1, 2, 3, 4, 5, 6]) == (1, 1, 5)


def test_a_new_text_takes_what_was_not_used_for_longest():
    slots = [slot(0, [1, 2], 5), slot(1, [1, 3], 2), slot(2, [1, 4], 9)]
    assert placed(slots, [5, 6]) == (1, 1, 0)


def test_a_common_beginning_is_copied_and_its_owner_keeps_the_rest():
    slots = [slot(0, [1, 2, 3, 4, 5, 6, 7], 5), slot(1, [], 0)]
    assert placed(slots, [1, 2, 3, 0, 0]) == (1, 0, 3)
    busy = [slot(0, [1, 2, 3, 4, 5, 6, 7], 5, is_busy=True), slot(1, [5, 5, 5], 9)]
    assert placed(busy, [1, 2, 3, 0, 0]) == (1, 0, 3)


def test_the_last_token_of_a_prompt_is_always_read():
    assert placed([slot(0, [1, 2, 3], 1)], [1, 2, 3]) == (0, 0, 2)
