"""tuned.py: pairs that a user tuned, as files, and what they lie below."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from edgespec.config import Config, layers, with_values
from edgespec.errors import UsageError
from edgespec.store import tuned
from edgespec.store.offers import unnamed

PAIR = tuned.TunedPair(
    "mine",
    {"pair": "demo-foreign", "threads": 3, "drafter": "ngram"},
    {"cpu": 'an "old" one\n', "ways": [{"way": "plain", "by kind": {"code": 1.25}}], "n": 2},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    return tmp_path


def read(flags: dict[str, object], **environ: str) -> Config:
    return tuned.applied(layers(Namespace(**flags), environ), Config())


def test_a_tuned_pair_comes_back_as_it_was_saved() -> None:
    tuned.save(PAIR)
    assert tuned.find("mine") == PAIR
    assert tuned.names() == ["mine"]


def test_it_lies_below_what_the_user_says_and_names_the_models() -> None:
    tuned.save(PAIR)
    assert read({"pair": "mine"}) == Config(pair="demo-foreign", threads=3, drafter="ngram")
    assert read({"pair": "mine", "threads": 1}).threads == 1


def test_its_drafter_gives_way_to_one_that_is_named_otherwise() -> None:
    tuned.save(tuned.TunedPair("mine", {"pair": "demo", "draft_model": "d", "lora_draft": "a"}))
    assert read({"pair": "mine"}) == Config(draft_model="d", lora_draft="a")
    assert read({"pair": "mine", "hf_repo_draft": "u/d"}) == Config(hf_repo_draft="u/d")


def test_it_takes_the_place_of_models_named_before_it() -> None:
    tuned.save(tuned.TunedPair("mine", {"model": "t", "draft_model": "d", "threads": 3}))
    mine = Config(model="t", draft_model="d", threads=3)
    for before in ({"EDGESPEC_PAIR": "demo-foreign"}, {"EDGESPEC_MODEL": "x"},
                   {"EDGESPEC_DRAFT_MODEL": "e", "EDGESPEC_LORA_DRAFT": "b"}):  # fmt: skip
        assert read({"pair": "mine"}, **before) == mine
    assert read({"lora_draft": "b"}, EDGESPEC_PAIR="mine") == replace(mine, lora_draft="b")
    assert read({"pair": "demo"}, EDGESPEC_PAIR="mine") == Config()


def test_what_it_chose_goes_where_another_model_comes() -> None:
    tuned.save(PAIR)
    config = read({"pair": "mine", "top_k": 3})
    assert unnamed(config) == Config(top_k=3)
    said = with_values(config, {"threads": 3}, "said")
    assert unnamed(said) == Config(top_k=3, threads=3)


def test_it_changes_nothing_that_is_otherwise_than_by_default() -> None:
    tuned.save(PAIR)
    mine = Config(pair="demo-foreign", threads=1, drafter="ngram")
    assert tuned.applied([({"pair": "mine"}, "/model")], Config(threads=1)) == mine


def test_an_adapter_stays_with_its_drafter(caplog: pytest.LogCaptureFixture) -> None:
    tuned.save(tuned.TunedPair("mine", {"model": "t", "draft_model": "d", "threads": 3}))
    given = {"EDGESPEC_PAIR": "mine", "EDGESPEC_LORA_DRAFT": "a"}
    other = Config(model="t", draft_model="e", threads=3)
    assert read({"draft_model": "e"}, **given) == other
    assert read({"draft_model": "d"}, **given) == replace(other, draft_model="d", lora_draft="a")
    assert "--lora-draft a is left out" in caplog.text
    tuned.save(tuned.TunedPair("mine", {"model": "t", "draft_model": "d", "lora_draft": "b"}))
    both = Config(model="t", draft_model="d", lora_draft="b")
    assert read({"pair": "mine", "draft_model": "d"}) == both
    assert read({"pair": "mine", "draft_model": "e"}) == replace(other, threads=0)
    assert "--lora-draft b is left out" in caplog.text


def test_it_says_nothing_where_a_model_is_named() -> None:
    tuned.save(PAIR)
    assert read({"pair": "mine", "model": "x.gguf"}).threads == 0


@pytest.mark.parametrize("name", ["", "../up", "a b", "demo", "padded"])
def test_a_name_that_is_none_or_taken_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="^--name .*: expected|own has it: expected another"):
        tuned.save(tuned.TunedPair(name, {}))
    assert tuned.names() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("threads = ", "not valid TOML"), ("thread = 2", "did you mean 'threads'"),
     ("threads = 'x'", "threads is 'x': expected a whole number")],
)  # fmt: skip
def test_a_damaged_file_is_named(home: Path, text: str, message: str) -> None:
    (home / "pairs").mkdir()
    (home / "pairs" / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=f"mine.toml: .*{message}"):
        read({"pair": "mine"})


def test_removing_one_frees_its_file_only() -> None:
    path = tuned.save(PAIR)
    n_bytes = path.stat().st_size
    assert tuned.remove("mine") == n_bytes
    assert tuned.find("mine") is None
