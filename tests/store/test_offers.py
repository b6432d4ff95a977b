"""What a name alone opens: pairs, tuned pairs, the hub's cache and a folder's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgespec.config import Config
from edgespec.store import tuned
from edgespec.store.offers import offers
from edgespec.store.tuned import TunedPair

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No models but the bundled ones; the hub's cache."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGESPEC_REAL_MODELS", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_pairs_say_what_is_missing() -> None:
    found = offers()
    assert found["demo"].is_here and found["demo-foreign"].is_here
    assert not found["llama-3.1-8b"].is_here and found["llama-3.1-8b"].n_missing > 1 << 30
    assert "type `edgespec models pull llama-3.1-8b`" in found["llama-3.1-8b"].missing
    assert not found["padded-q8_0"].is_here


def test_models_of_the_hub_and_of_a_folder_have_names(empty: Path, tmp_path: Path) -> None:
    snapshot = empty / "models--maker--tiny-GGUF" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    for file in (snapshot / "tiny-Q4_K_M.gguf", tmp_path / "folder" / "own.gguf"):
        file.write_bytes(b"GGUF")
    (tmp_path / "folder" / "notes.txt").write_text("none")
    found = offers(tmp_path / "folder")
    hub = found["maker/tiny-GGUF:Q4_K_M"].config(Config())
    assert hub.hf_repo == "maker/tiny-GGUF:Q4_K_M" and hub.offline
    own = found["own"].config(Config(pair="padded-f16", draft_model="x.gguf", threads=3))
    assert own.model == str(tmp_path / "folder" / "own.gguf")
    assert (own.draft_model, own.threads) == ("", 3)  # what is of another pair is left behind
    assert "notes" not in found and "own" not in offers()


def test_tuned_pairs_are_offered_as_they_were_tuned() -> None:
    tuned.save(TunedPair("mine", {"pair": "demo-foreign", "threads": 1}))
    config = offers()["mine"].config(Config(model="y.gguf", threads=4))
    assert (config.pair, config.model, config.threads) == ("demo-foreign", "", 1)


def test_a_tuned_pair_that_is_damaged_is_left_out_and_the_others_are_told() -> None:
    tuned.save(TunedPair("mine", {"pair": "demo"}))
    (tuned.folder() / "torn.toml").write_text("= 3")
    (tuned.folder() / "old.toml").write_text("no_such_option = 3")
    (tuned.folder() / "gone.toml").write_text('pair = "no-such-pair"')
    assert offers()["mine"].is_here
    assert not {"torn", "old", "gone"} & set(offers())


@pytest.mark.parametrize(
    ("values", "absent"),
    [
        ({"model": "/none/x.gguf"}, "x.gguf"),
        ({"hf_repo": "maker/none-GGUF:Q4_K_M"}, "maker/none-GGUF:Q4_K_M"),
        ({"draft_model": "/none/y.gguf"}, "y.gguf"),
        ({"pair": "llama-3.1-8b"}, "llama"),
    ],
)
def test_a_tuned_pair_whose_models_are_gone_is_missing(values: dict[str, str], absent: str) -> None:
    tuned.save(TunedPair("mine", values))
    found = offers()["mine"]
    assert not found.is_here and f"needs {absent}" in found.missing
