"""`edgespec adapt` on the demo pair whose drafter has another vocabulary."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from ast import literal_eval
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from edgespec.export.trim.head import trim

import edgespec
from edgespec.backends import ModelOptions
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.backends.preview import Preview, preview
from edgespec.cli import main
from edgespec.cli.adapt import ago, parts_of, text_of
from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.ngram_file import files_in, packed, read
from edgespec.errors import TokenizerError
from edgespec.store import pairs

PAIR = ["--pair", "demo-foreign"]
STORY = """The patient goblin begins to consult his relations, and they depart in the afternoon.
Good Elves attend to the jewel in the walnut; a Creature of Nature breathed on the Mountain.
Perhaps the Sea is Gold, and we discover a bony coral reason. A Deer begins to burn the cotton.
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of the test's own."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "home"


@pytest.fixture
def story(tmp_path: Path) -> Path:
    file = tmp_path / "story.txt"
    file.write_text(STORY, encoding="utf-8")
    return file


@pytest.fixture
def warmed(story: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The file of the pair's n-grams after one text."""
    assert main(["adapt", "warm", str(story), *PAIR]) == 0
    capsys.readouterr()
    (file,) = files_in(home)
    return file


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What a command that succeeds prints."""
    assert main(["adapt", *words]) == 0
    seen = capsys.readouterr()
    assert seen.err == ""
    return seen.out.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that is refused."""
    assert main(["adapt", *words]) == 2
    seen = capsys.readouterr()
    assert (seen.out, seen.err.count("\n")) == ("", 1)
    return seen.err


def test_warming_learns_and_says_what_it_is_worth(
    story: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, shares, where = said(capsys, "warm", str(story), *PAIR)
    found = re.fullmatch(r"foreign.gguf -> target.gguf: 0 n-grams before, (\d+) after .*", first)
    assert found and int(found[1]) > 5
    before, now = map(float, re.findall(r"([\d.]+)%", shares))
    assert before < now <= 100
    (file,) = files_in(home)
    assert where == f"saved in {file}"
    again, shares, _ = said(capsys, "warm", str(story), *PAIR)
    assert f"{found[1]} n-grams before, {found[1]} after" in again
    assert re.findall(r"([\d.]+)%", shares) == [str(now)] * 2


def test_a_session_drafts_with_what_was_warmed(warmed: Path) -> None:
    with edgespec.load(pair="demo-foreign", speculative="on", drafter="model") as session:
        assert session.pair.translation is not None
        assert len(session.method.translated.bridge.units.cache) > 5


@pytest.mark.slow
def test_a_long_text_is_learned_in_parts(
    story: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.cli.adapt.LENGTH", 100)
    monkeypatch.setattr("edgespec.cli.adapt.MEASURED", 2)
    assert main(["adapt", "warm", str(story), *PAIR]) == 0
    seen = capsys.readouterr()
    two_lines = len("".join(STORY.splitlines(keepends=True)[:2]))
    assert f"of the tokens of its first {two_lines} bytes" in seen.out
    assert seen.err == ""  # quicker than a second: nothing to tell


def test_a_part_that_cannot_be_written_is_not_counted(
    story: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = Ledger.sync

    def refusing(self: Ledger, context: Sequence[int]) -> list[int]:
        if self.n_syncs == 1:
            self.n_syncs += 1
            raise TokenizerError("the byte 0xff has no token")
        return sync(self, context)

    monkeypatch.setattr("edgespec.cli.adapt.LENGTH", 100)
    monkeypatch.setattr(Ledger, "sync", refusing)
    assert main(["adapt", "warm", str(story), *PAIR]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "1 of 3 parts are not counted: they cannot be written in both"


def test_the_last_word_is_learned_and_the_commonest_is_shown_first(
    story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story.write_text(STORY + "Burn, burn, burn", encoding="utf-8")
    said(capsys, "warm", str(story), *PAIR)
    best = said(capsys, "show", *PAIR)[2]
    assert re.match(r" +3  ' burn' = '", best)


def test_a_byte_order_mark_is_no_text(story: Path) -> None:
    story.write_text(STORY, encoding="utf-8-sig")
    assert text_of(story) == STORY


def test_parts_end_at_lines_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgespec.cli.adapt.LENGTH", 4)
    assert parts_of("ab\ncdefgh\n\nné") == [b"ab\n", b"cdef", b"gh\n\n", "né".encode()]


def test_nothing_is_shown_before_anything_is_learned(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "show") == [
        f"no n-grams in {home}: a drafter of another vocabulary learns them"
    ]
    assert said(capsys, "show", *PAIR)[1:] == [
        "no n-grams of foreign.gguf -> target.gguf yet: type `edgespec adapt warm FILE`"
    ]


def test_all_caches_are_shown_and_the_best_of_the_pair(
    warmed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(warmed, (0, time.time() - 7300))
    (line,) = said(capsys, "show")
    assert re.fullmatch(
        rf"{warmed.stem}  foreign\.gguf -> target\.gguf, \d+ n-grams, "
        rf"{warmed.stat().st_size} bytes, saved 2 hours ago",
        line,
    )
    same, title, *best = said(capsys, "show", *PAIR)
    assert same == line
    assert title == "of foreign.gguf -> target.gguf seen most often:"
    assert len(best) == 10
    hits = [int(one.split()[0]) for one in best]
    assert hits == sorted(hits, reverse=True)
    for one in best:
        whole, _, pieces = one.split(maxsplit=1)[1].partition(" = ")
        assert literal_eval(whole) == "".join(map(literal_eval, re.findall(r"'.*?'", pieces)))


def test_the_record_has_what_is_shown(warmed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = said(capsys, "show", *PAIR, "--json", "-")
    data = json.loads(line)
    (row,) = data["caches"]
    assert row["file"] == str(warmed)
    assert (row["draft_name"], row["target_name"]) == ("foreign.gguf", "target.gguf")
    assert row["draft"].startswith(warmed.stem[:12])
    assert row["n_bytes"] == warmed.stat().st_size
    assert len(data["top"]) == min(10, row["n_entries"])
    assert set(data["top"][0]) == {"pieces", "token", "hits", "text"}


def test_the_record_of_warming_is_all_that_is_printed(
    story: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgespec.cli.adapt.LENGTH", 100)
    (line,) = said(capsys, "warm", str(story), *PAIR, "--json", "-")
    data = json.loads(line)
    assert set(data) == {"file", "n_before", "n_entries", "share_before", "share"}
    assert data["n_before"] < data["n_entries"]
    assert data["share_before"] < data["share"] <= 1


def test_reset_deletes_the_pairs_cache_and_says_so(
    warmed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = warmed.with_name("other.bin")
    other.write_bytes(b"?")
    (line,) = said(capsys, "reset", *PAIR)
    assert re.fullmatch(rf"deleted {warmed} \(foreign.*, \d+ n-grams, .*saved just now\)", line)
    assert (warmed.exists(), other.exists()) == (False, True)
    assert said(capsys, "reset", *PAIR) == ["no n-grams of foreign.gguf -> target.gguf"]


def test_reset_all_deletes_whatever_lies_there(
    warmed: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("other.bin", "other.bin.damaged", "other.bin.x.part", "mine.txt"):
        warmed.with_name(name).write_bytes(b"?")
    assert len(said(capsys, "show")) == 3
    lines = said(capsys, "reset", "--all")
    assert [line.split()[0] for line in lines] == ["deleted"] * 4
    assert [file.name for file in warmed.parent.iterdir()] == ["mine.txt"]
    assert said(capsys, "reset", "--all")[0].startswith("no n-grams in ")


def test_another_pairs_cache_in_the_place_of_this_is_not_read(
    warmed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, entries = read(warmed)
    warmed.write_bytes(packed(replace(head, draft="0" * 64, n_draft=9999), [((9998, 1), 2, 3)]))
    assert said(capsys, "show", *PAIR)[1].startswith("no n-grams of foreign.gguf")


def test_a_damaged_cache_is_shown_as_such_and_stays(
    warmed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warmed.write_bytes(warmed.read_bytes()[:-1])
    line, none = said(capsys, "show", *PAIR)
    expected = "cannot be used: `edgespec adapt reset --all` deletes it"
    assert line == f"{warmed.stem}  {expected}"
    assert none.startswith("no n-grams of foreign.gguf")
    assert warmed.exists()


@pytest.mark.parametrize("words", [["warm", "FILE"], ["reset"]])
def test_one_vocabulary_needs_no_ngrams(
    words: list[str], story: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(story) if word == "FILE" else word for word in words]
    expected = ["drafter and target have the same vocabulary: there are no n-grams to learn"]
    assert said(capsys, *words) == expected
    assert not home.exists()


def test_a_padded_target_is_not_made_for_its_vocabulary(
    warmed: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(said(capsys, "show", "--pair", "padded-f16-foreign")) == 12
    assert [file.name for file in home.iterdir()] == ["ngrams"]


def test_vocabularies_of_trimmed_and_exported_models_are_found(
    warmed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = pairs.folder() / "demo"
    n_vocab = LlamaCppTokenizer.open(demo / "foreign.gguf").n_vocab
    trim(demo / "foreign.gguf", tmp_path / "few.gguf", range(0, n_vocab, 2))
    folder = tmp_path / "exported"
    folder.mkdir()
    shutil.copy(demo / "foreign.gguf", folder / "vocabulary.gguf")
    about = dict.fromkeys(("n_vocab", "n_embd", "n_context", "n_params"), n_vocab)
    about |= {"format": 1, "kind": "dynamic", "tokenizer": "vocabulary.gguf"}
    about |= dict.fromkeys(("architecture", "name", "quant", "token_ids"))
    (folder / "edgespec.json").write_text(json.dumps(about))
    for drafter in ("few.gguf", "exported", "exported/edgespec.json"):
        words = ["-m", str(demo / "target.gguf"), "-md", str(tmp_path / drafter)]
        title = said(capsys, "show", *words)[1]
        assert title == f"of {drafter.split('/')[0]} -> target.gguf seen most often:"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (None, "No such file or directory: expected a text file"),
        (b"", "is empty: expected a text to learn from"),
        (b"\n \n", "is empty: expected a text to learn from"),
        (b"GGUF\x03\xff", "not UTF-8 at byte 5: expected a text file"),
        (b"ab\0", "a zero byte at 2: expected a text file"),
    ],
)
def test_a_file_that_is_no_text_is_refused(
    data: bytes | None, expected: str, tmp_path: Path, home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    file = tmp_path / "file"
    if data is not None:
        file.write_bytes(data)
    line = refusal(capsys, "warm", str(file), *PAIR)
    assert line.startswith(f"edgespec: {file}")
    assert expected in line
    assert not home.exists()


def test_other_mistakes_are_one_line_too(
    story: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert "Is a directory: expected a text" in refusal(capsys, "warm", str(tmp_path), *PAIR)
    home.write_text("not a folder")
    monkeypatch.setattr("edgespec.cli.adapt.LENGTH", 100)  # with progress, had it begun
    assert "to write; set EDGESPEC_HOME to" in refusal(capsys, "warm", str(story), *PAIR)
    target = str(pairs.folder() / "demo" / "target.gguf")
    line = refusal(capsys, "warm", str(story), "-m", target)
    assert line.endswith("has no drafter: expected one; give it with -md\n")
    line = refusal(capsys, "warm", str(story), "-m", target, "-md", str(story))
    assert "story.txt has ending '.txt': expected .gguf" in line
    monkeypatch.setattr("edgespec.cli.adapt.MOST_BYTES", 10)
    assert "expected at most 256 MiB; split it" in refusal(capsys, "warm", str(story), *PAIR)


@pytest.mark.parametrize("words", [["warm"], ["show", "x"], ["reset", "x"], ["show", "--all"]])
def test_words_that_do_not_go_together_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "expected `edgespec adapt show [--plot PNG]`, `edgespec adapt" in refusal(capsys, *words)


def test_ages_are_told_in_their_largest_unit() -> None:
    ages = (0, 59, 60, 7199, 86_399, 86_400, 400_000)
    assert list(map(ago, ages)) == [
        "just now", "just now", "1 minute ago", "1 hour ago", "23 hours ago", "1 day ago",
        "4 days ago",
    ]  # fmt: skip


def test_no_vocabulary_stays_open(story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[Preview]()

    def noted(path: Path, options: ModelOptions) -> Preview:
        seen.append(preview(path, options))
        return seen[-1]

    monkeypatch.setattr("edgespec.backends.preview.preview", noted)
    for words in (["warm", str(story)], ["show"], ["reset"]):
        assert main(["adapt", *words, *PAIR]) == 0
    assert len(seen) == 6
    for one in seen:
        with pytest.raises(TokenizerError, match="the model is closed"):
            _ = one.tokenizer.vocab
