"""`edgespec tune` on the demo pair: what it writes is what --pair then uses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import edgespec
from edgespec.cli import main
from edgespec.cli.tune import lines_of, name_of
from edgespec.config import Config, options
from edgespec.store import pairs, tuned
from edgespec.tune import flow

PROMPTS = '{"prompt": "Tell me a story about a fox."}\n{"prompt": "I need a bus to the coast."}\n'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    prompts = tmp_path / "talk.jsonl"
    prompts.write_text(PROMPTS)
    return ["tune", "--minutes", "0.02", "-t", "1", "-td", "1", "--prompts", str(prompts)]


@pytest.mark.slow
def test_what_was_tried_is_written_as_a_pair_that_every_command_takes(words, home, capsys):
    assert main([*words, "--name", "mine", "--json", str(home / "record.json")]) == 0
    out = capsys.readouterr().out
    assert out.endswith("use it:  edgespec chat --pair mine\n")
    record = json.loads((home / "record.json").read_text())
    assert record["schema"] == "edgespec.tune/1"
    assert {row["way"] for row in record["ways"]} == set(flow.DRAFTS)
    assert record["choice"] in record["ways"]
    assert all(row["n_tokens"] and row["by_kind"]["talk"] > 0 for row in record["ways"])
    pair = tuned.find("mine")
    assert pair is not None
    assert pair.values == record["values"]
    assert pair.values["drafter"] == record["choice"]["drafter"]
    assert main(["generate", "--pair", "mine", "-p", "Hello.", "-n", "4"]) == 0
    with edgespec.load(pair="mine") as session:
        assert session.config.drafter == record["choice"]["drafter"]
        assert session.config.threads == 1


def test_a_name_or_a_draft_model_that_cannot_be_ends_it_before_a_model_is_opened(
    words, capsys, monkeypatch
):
    monkeypatch.setattr("edgespec.cli.tune.tune", None)
    for wrong, line in {
        ("--name", "demo"): "a pair of EdgeSpec's own has it",
        ("--try", "none.gguf"): "--try none.gguf: there is no such file",
        ("--minutes", "0"): "--minutes 0: expected more than 0",
    }.items():
        assert main([*words, *wrong]) == 2
        assert line in capsys.readouterr().err


def test_a_pair_is_named_after_its_models():
    assert name_of(Config()) == "demo-tuned"
    assert name_of(Config(model="/a/Big-Q4_K_M.gguf")) == "big-q4_k_m-tuned"
    assert name_of(Config(hf_repo="user/Big-GGUF:Q4_0")) == "big-gguf-tuned"
    assert name_of(Config(pair="qwen2.5-coder-1.5b-smol")) == "qwen2.5-coder-1.5b-smol-tuned"


def test_every_option_is_kept_or_chosen_or_not_the_pairs():
    known = (*flow.NAMED, *flow.CHOSEN, *flow.THREADS, *flow.KEPT, *flow.NOT_THE_PAIRS)
    assert sorted(known) == sorted(one.name for one, _ in options())


def test_a_tuned_pair_has_what_it_was_tuned_with(home):
    file = home / "chat.jinja"
    file.write_text("{{ 1 }}")
    config = Config(
        hf_repo="u/t", lora_draft="a.gguf", bridge="text", n_gpu_layers=0, loading="map",
        draft_window=256, chat_template=str(file),
    )  # fmt: skip
    found = flow.Tuning(config, filling=1.25)
    setup = flow.Setup({"device": "auto", "device_draft": "auto"}, Path("d.gguf"), lora="a.gguf")
    way = flow.Way("model", {"talk": []})
    found.choice = flow.row_of(way, way, 1.0, setup)
    found.ways = [found.choice]
    assert lines_of(found)[-1] == "--exact: a token takes 1.25 times what it takes alone"
    values = flow.values_of(found)
    assert values == {
        "hf_repo": "u/t", "draft_model": str(Path("d.gguf").resolve()),
        "lora_draft": str(Path("a.gguf").resolve()), "drafter": "model", "bridge": "text",
        "n_gpu_layers": 0, "loading": "map", "draft_window": 256, "chat_template": str(file),
    }  # fmt: skip


def test_a_link_keeps_its_name(tmp_path):
    blob, link = tmp_path / "0a1b", tmp_path / "model.gguf"
    blob.touch()
    link.symlink_to(blob)
    assert flow.whole(str(link)) == str(link)  # a hub's files are such links


def test_a_draft_model_of_the_hub_is_tried_by_its_file():
    setup = flow.Setup({}, Path("d.gguf"))
    config = setup.of(Config(hf_repo="u/t", hf_repo_draft="u/d", lora_draft="a.gguf"))
    assert config == Config(hf_repo="u/t", draft_model="d.gguf")


def test_the_fastest_of_several_draft_models_is_kept(words, home, monkeypatch):
    """Over plain decoding of the same session; the faster one is the second that is tried."""
    gains = {"drafter.gguf": 1.2, "foreign.gguf": 1.4}

    def answered(config, names, questions, budget_s, told, **more):
        model = Path(config.draft_model).name
        ways = [flow.Way(name, {"talk": []}) for name in names]
        for way in ways:
            fast = gains[model] if "model" in way.name else 1.0
            way.stats["talk"] = [flow.Stats(n_tokens=10, decode_s=1 / fast)]
        return ways

    monkeypatch.setattr(flow, "answered", answered)
    assert main([*words, "--name", "mine", "--try", str(pairs.folder() / "demo/foreign.gguf")]) == 0
    pair = tuned.find("mine")
    assert pair is not None
    assert Path(pair.values["draft_model"]).name == "foreign.gguf"
    assert pair.values["drafter"] == "ngram,model"  # as fast, and able to do more


def test_kinds_of_which_no_prompt_fits_are_left_out(home, capsys):
    words = ["tune", "--minutes", "0.02", "-t", "1", "-td", "1", "-c", "112"]
    assert main([*words, "--set", "stories,rewriting", "--json", str(home / "record.json")]) == 0
    record = json.loads((home / "record.json").read_text())
    assert {kind for row in record["ways"] for kind in row["by_kind"]} == {"stories"}


@pytest.mark.parametrize("is_here", [True, False])
def test_the_same_weights_made_into_graphs_take_part_if_they_are_here(
    is_here, words, home, monkeypatch, capsys
):
    graphs = replace(pairs.find("demo"), name="demo-graphs")
    monkeypatch.setattr(pairs, "namesakes", lambda pair: [graphs] if pair.name == "demo" else [])
    monkeypatch.setattr(pairs, "is_here", lambda entry, cache: is_here)
    usual = pairs.find
    monkeypatch.setattr(pairs, "find", lambda n: graphs if n == "demo-graphs" else usual(n))

    def answered(config, names, questions, budget_s, told, **more):
        token_s = 0.05 if config.pair == "demo-graphs" else 0.1
        runs = [flow.Stats(n_tokens=10, decode_s=10 * token_s)]
        return [flow.Way(name, {"talk": runs}) for name in names]

    monkeypatch.setattr(flow, "answered", answered)
    assert main([*words, "--name", "mine"]) == 0
    out, pair = capsys.readouterr().out, tuned.find("mine")
    assert pair is not None
    if is_here:
        assert "* 2.00  plain demo-graphs" in out
        assert "the same files run fastest as demo-graphs" in out
        assert pair.values["pair"] == "demo-graphs"
        assert "draft_model" not in pair.values
    else:
        assert "not tried: demo-graphs, the same files: type `edgespec models pull demo-g" in out
        assert pair.values["pair"] == "demo"
    out = main([*words, "--name", "mine", "-m", str(pairs.bundled(usual("demo").target))])
    assert out == 0
    assert "demo-graphs" not in capsys.readouterr().out


def test_namesakes_are_the_same_files_otherwise():
    assert [p.name for p in pairs.namesakes(pairs.find("demo"))] == []
    assert [p.name for p in pairs.namesakes(pairs.find("qwen2.5-coder-1.5b-smol"))] == [
        "qwen2.5-coder-1.5b-smol-int4",
        "qwen2.5-coder-1.5b-smol-int8",
    ]
    assert [p.name for p in pairs.namesakes(pairs.find("qwen2.5-coder-1.5b-int4"))] == [
        "qwen2.5-coder-1.5b"
    ]


@pytest.mark.slow
def test_a_tuned_pair_is_listed_shown_and_removed_but_not_its_models(capsys):
    tuned.save(tuned.TunedPair("mine", {"pair": "demo", "threads": 1}, {"cpu": "a small one"}))
    assert main(["models", "list"]) == 0
    assert "mine  tuned here: pair demo, threads 1." in capsys.readouterr().out
    assert main(["models", "show", "mine"]) == 0
    assert "cpu         a small one" in capsys.readouterr().out
    assert main(["models", "rm", "mine"]) == 0
    assert tuned.names() == []
    assert main(["models", "show", "demo"]) == 0
