"""A check that was ended goes on where it was, and finds what it would have found at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from check.test_lossless import PARAMS, PROMPTS, SAMPLED, Guess, law_after, stream, wobbly

from edgespec.backends.fake import TableModel
from edgespec.check.kept import Kept, Parting
from edgespec.check.lossless import Stream, check_greedy
from edgespec.check.sampled import N_KEPT, check_sampling
from edgespec.errors import UsageError
from edgespec.types import SamplingParams, Step

OF = {"target": "abc", "length": {"max_tokens": 12}}


class Ended(Exception):
    """As if the process had been ended."""


def ending(start: Stream, after: int) -> Stream:
    """Streams of which only the first so many are begun."""
    numbers = iter(range(after))

    def limited(prompt: Sequence[int], params: SamplingParams) -> Iterator[Step]:
        if next(numbers, None) is None:
            raise Ended
        return start(prompt, params)

    return limited


@pytest.mark.parametrize("after", [1, 2])
def test_texts_are_compared_once(tmp_path: Path, after: int) -> None:
    path, model = tmp_path / "kept", wobbly(3.0)
    plain, drafted = stream(model, None), stream(model, Guess())
    at_once = check_greedy(model, plain, drafted, PROMPTS, PARAMS)
    assert [one["kind"] for one in at_once["divergences"]] == ["tie"] * 3
    with pytest.raises(Ended):
        check_greedy(model, plain, ending(drafted, after), PROMPTS, PARAMS, kept=Kept(path, OF))
    rest = ending(drafted, len(PROMPTS) - after)
    ticks = list[int]()
    found = check_greedy(
        model, plain, rest, PROMPTS, PARAMS, kept=Kept(path, OF), tick=ticks.append
    )
    assert found == at_once
    assert ticks == [1, 2, 3]
    none = ending(drafted, 0)
    assert check_greedy(model, plain, none, PROMPTS, PARAMS, kept=Kept(path, OF)) == at_once


def test_draws_go_on_with_the_next_seed(tmp_path: Path) -> None:
    path, model = tmp_path / "kept", TableModel(law_after, 6)
    drafted = stream(model, Guess())

    def checked(drafted: Stream, n: int, kept: Kept | None = None) -> dict[str, Any]:
        return check_sampling(model, drafted, [1], SAMPLED, n, lambda _: None, kept)

    at_once = checked(drafted, 5 * N_KEPT + 7)
    with pytest.raises(Ended):
        checked(ending(drafted, 2 * N_KEPT + 3), 5 * N_KEPT + 7, Kept(path, OF))
    assert Kept(path, OF).draws.n == 2 * N_KEPT
    rest = ending(drafted, 3 * N_KEPT + 7)
    assert checked(rest, 5 * N_KEPT + 7, Kept(path, OF)) == at_once


def test_the_place_is_found_once(tmp_path: Path) -> None:
    Kept(tmp_path / "kept", OF).placed([1, 2, 3])
    assert Kept(tmp_path / "kept", OF).place == [1, 2, 3]


def test_a_line_that_was_being_written_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    Kept(path, OF).placed([1, 2, 3])
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        again = Kept(path, OF)
        assert again.place in ([], [1, 2, 3])
        again.placed([4])
        assert Kept(path, OF).place == [4]


def test_another_check_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    Kept(path, OF).placed([1])
    before = path.read_bytes()
    with pytest.raises(UsageError, match="another length: expected the same"):
        Kept(path, {**OF, "length": {"max_tokens": 13}})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"place": [1]}', '{"of": 3}', '{"of": {}}', "null", '{"a": 1, "b": 2}']
)
def test_what_is_no_such_file_is_refused_and_left_as_it_is(tmp_path: Path, line: str) -> None:
    path = tmp_path / "kept"
    for end in ("\n", ""):
        path.write_text(line + end)
        if line == "{" and not end:
            continue  # the beginning of ours
        with pytest.raises(UsageError, match="kept:1: .*expected what an earlier check"):
            Kept(path, OF)
        assert path.read_text() == line + end


@pytest.mark.parametrize("text", ["my only words", '{"a": 1}'])
def test_another_text_of_no_whole_line_is_not_cut_off(tmp_path: Path, text: str) -> None:
    (path := tmp_path / "kept").write_text(text)
    with pytest.raises(UsageError, match="kept(:1)?: .*expected what an earlier check"):
        Kept(path, OF)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "line",
    [{"text": {}}, {"draws": {"pairs": [[1, 2]]}}, {"place": ["a"]}, {"other": 1}, {"text": 3}],
)
def test_a_line_of_another_kind_is_refused(tmp_path: Path, line: dict[str, object]) -> None:
    path = tmp_path / "kept"
    Kept(path, OF).placed([1])
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match="kept:3: .*expected what an earlier check"):
        Kept(path, OF)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--resume .*expected a file to write"):
        Kept(tmp_path / "no" / "kept", OF)


def test_what_is_near_by_the_noise_of_all_texts_is_a_tie() -> None:
    parted = Parting(3, 1.0, is_own=True, is_own_clean=False)
    assert [parted.kind(noise) for noise in (0.0, 0.4, 0.5)] == ["bug", "bug", "tie"]
    assert Parting(3, 9.0, is_own=True, is_own_clean=True).kind(0.0) == "tie"
    assert Parting(3, 0.1, is_own=False, is_own_clean=False).kind(9.0) == "bug"


def test_prompts_can_be_more_than_those_of_the_file(tmp_path: Path) -> None:
    path, model = tmp_path / "kept", TableModel(law_after, 6)
    plain, drafted = stream(model, None), stream(model, Guess())
    check_greedy(model, plain, drafted, PROMPTS[:1], PARAMS, kept=Kept(path, OF))
    found = check_greedy(model, plain, ending(drafted, 2), PROMPTS, PARAMS, kept=Kept(path, OF))
    assert found["n_identical"] == 3
    assert len(path.read_text().splitlines()) == 4
