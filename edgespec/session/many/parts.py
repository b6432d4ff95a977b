"""How much of each prompt the next forward reads. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

OLDEST = 4  # the prompt that came first gets at least so little of a forward: a quarter
PART_S, LEAST = 0.25, 32  # beside generations a part takes so long at most, or is so short


def shares(unread: Sequence[int], room: int) -> list[int]:
    """Tokens of each prompt to read in a forward that has room for so many.

    unread: of each prompt, in the order of arrival. The shortest is read first, as far as it goes,
    and longer ones no more of than of all shorter ones together. The oldest always goes on.
    """
    given, n_given = [0] * len(unread), 0
    kept = max(1, room // OLDEST) if unread and unread[0] else 0
    for i in sorted(range(len(unread)), key=unread.__getitem__):
        kept = 0 if i == 0 else kept
        given[i] = max(0, min(unread[i], n_given or room, room - n_given - kept))
        n_given += given[i]
    return given


def ending(unread: Sequence[int], given: Sequence[int]) -> list[int]:
    """The same without those that do not end with it, if any does: a few tokens deep in a long
    prompt take nearly as long as a whole part there.
    """
    if not any(n == all_ for n, all_ in zip(given, unread, strict=True)):
        return list(given)
    return [n if n == all_ else 0 for n, all_ in zip(given, unread, strict=True)]


def part_of(room: int, token_s: float, *, is_alone: bool) -> int:
    """Tokens of prompts that the next forward may read, of those it has room for.

    token_s: what reading one takes, 0 if not known. is_alone: nobody waits for another token.
    """
    if is_alone:
        return room
    return min(room, max(LEAST, int(PART_S / token_s)) if token_s > 0 else LEAST)
