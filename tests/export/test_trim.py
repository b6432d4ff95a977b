"""`edgespec export trim`: what the files hold, what is refused, what is reported."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from edgespec.export.trim import flow as trim_flow
from edgespec.export.trim import head as trim_module
from edgespec.export.trim.head import trim, vocabulary_path
from llama_reference import value, write_llama
from model_maker import DEMO, make

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.llamacpp import opening as llamacpp_opening
from edgespec.cli import main
from edgespec.errors import BackendError, EdgeSpecError, ModelFileError, UsageError

TARGET = DEMO.with_name("target.gguf")
TEXT = 'One day the fox found 12 red kites. "I\'ll fly!" she said, and off they went.\n' * 150
KEPT = np.arange(0, 512, 2)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def untried(monkeypatch):
    """Files are opened without a trial in a child process, and timed for moments only."""
    monkeypatch.setattr(llamacpp_opening, "best_way", lambda files, ways, *_: ways[-1])
    monkeypatch.setattr("edgespec.export.trim.pair.STEPS_S", 0.03)


def command(*words: object) -> int:
    return main(["export", "trim", *map(str, words)])


def refused(capsys, *words: object) -> str:
    """What `edgespec export trim` says in its one line."""
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


# What is written


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tied"), [("Q4_0", False), ("F16", True), ("BF16", False)])
def test_rows_are_taken_as_stored_and_the_rest_is_copied(tmp_path, stories260k, kind, tied):
    source = make(
        tmp_path / "a.gguf", "qwen2", kind=kind, tied=tied, head_bias=True, vocabulary=stories260k
    )
    assert trim(source, tmp_path / "b.gguf", KEPT[::-1]) == tmp_path / "b.vocab.gguf"
    before = {t.name: t for t in gguf.GGUFReader(source).tensors}
    after = {t.name: t for t in gguf.GGUFReader(tmp_path / "b.gguf").tensors}
    assert list(before) == list(after)
    for name, tensor in before.items():
        cut = name in ("token_embd.weight", "output.weight", "output.bias")
        expected = tensor.data[KEPT] if cut else tensor.data
        assert after[name].tensor_type == tensor.tensor_type
        assert np.array_equal(after[name].data, expected), name
    (table,) = gguf.GGUFReader(tmp_path / "b.vocab.gguf").tensors
    assert table.name == "token_embd.weight"
    assert np.array_equal(table.data, before["token_embd.weight"].data)


def test_metadata_is_kept_but_for_the_tokenizer(tmp_path, stories260k):
    source = make(tmp_path / "a.gguf", "gemma2", vocabulary=stories260k)
    trim(source, tmp_path / "b.gguf", KEPT)
    fields = gguf.GGUFReader(tmp_path / "b.gguf").fields
    assert [name for name in fields if name.startswith("tokenizer.")] == ["tokenizer.ggml.model"]
    for key in ("gemma2.attn_logit_softcapping", "gemma2.attention.sliding_window",
                "gemma2.context_length", "general.file_type"):  # fmt: skip
        assert value(tmp_path / "b.gguf", key) == value(source, key) is not None
    assert value(tmp_path / "b.gguf", "gemma2.vocab_size") == len(KEPT)
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.bos_token_id"):
        assert value(tmp_path / "b.vocab.gguf", key) == value(source, key) is not None


def test_what_is_there_already_is_replaced(tmp_path, stories260k):
    target = tmp_path / "b.gguf"
    trim(stories260k, target, KEPT)
    before = target.read_bytes()
    trim(stories260k, target, KEPT[:64])
    assert len(target.read_bytes()) < len(before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.gguf", "b.vocab.gguf"]


def test_a_model_that_computes_otherwise_is_not_written(tmp_path, stories260k, monkeypatch):
    write = trim_module.write_model

    def wrong(path, source, ids, *rest):
        write(path, source, ids, *rest)
        raw = bytearray(path.read_bytes())
        raw[-4000] ^= 64
        path.write_bytes(raw)

    monkeypatch.setattr(trim_module, "write_model", wrong)
    with pytest.raises(BackendError, match=r"logits are off by up to .*: expected those of"):
        trim(stories260k, tmp_path / "b.gguf", KEPT)
    assert list(tmp_path.iterdir()) == []


class Full:
    """Stands for a disk that is full after so many bytes."""

    def __init__(self, monkeypatch, room: int) -> None:
        write = gguf.GGUFWriter.write_tensor_data
        left = [room]

        def written(writer, tensor, **kwargs):
            left[0] -= tensor.nbytes
            if left[0] < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(writer, tensor, **kwargs)

        monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", written)


@pytest.mark.parametrize("room", [0, 140_000, 300_000])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path, stories260k, corpus, monkeypatch, capsys, room
):
    Full(monkeypatch, room)
    out = tmp_path / "out"
    out.mkdir()
    said = refused(capsys, stories260k, "--text", corpus, "--keep", 384, "-o", out / "b.gguf")
    assert "No space left on device" in said
    assert "choose another folder" in said
    assert list(out.iterdir()) == []


def test_no_room_is_seen_before_anything_is_written(tmp_path, stories260k, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UsageError, match="GB free, b.* needs"):
        trim(stories260k, tmp_path / "b.gguf", KEPT)


# What is refused


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([], "0 rows to keep: expected 1 to 512"),
        (range(513), "513 rows to keep: expected 1 to 512"),
        ([3, 3], "expected each of 0 to 511 once"),
        ([-1, 3], "rows -1 to 3 to keep"),
        ([3, 512], "rows 3 to 512 to keep"),
    ],
)
def test_ids_that_are_no_rows_are_refused(tmp_path, stories260k, ids, why):
    with pytest.raises(UsageError, match=why):
        trim(stories260k, tmp_path / "b.gguf", ids)


def test_sizes_beyond_the_vocabulary_are_refused_in_one_line(capsys, tmp_path, stories260k, corpus):
    rest = ("--text", corpus, "-o", tmp_path / "b.gguf")
    assert "--keep is 0: expected 1 to the 512" in refused(capsys, stories260k, "--keep", 0, *rest)
    assert "--keep is 513: expected" in refused(capsys, stories260k, "--keep", 513, *rest)
    assert "--keep is 100: expected at least 349" in refused(
        capsys, stories260k, "--keep", 100, *rest
    )
    assert "--coverage is 1.5" in refused(capsys, stories260k, "--coverage", 1.5, *rest)
    assert "not allowed with" in refused(
        capsys, stories260k, "--coverage", 0.5, "--keep", 300, *rest
    )
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.txt"]


def test_empty_text_is_refused(capsys, tmp_path, stories260k):
    (tmp_path / "empty.txt").write_text(" \n\n")
    words = (stories260k, "--text", tmp_path / "empty.txt", "--keep", 300)
    assert "the calibration text is empty" in refused(capsys, *words, "-o", tmp_path / "b.gguf")
    words = (stories260k, "--text", tmp_path / "none.txt", "--keep", 300)
    assert "none.txt: No such file" in refused(capsys, *words, "-o", tmp_path / "b.gguf")


def test_no_source_of_text_is_named_with_the_ways_out(capsys, tmp_path, stories260k):
    said = refused(capsys, stories260k, "--keep", 300, "-o", tmp_path / "b.gguf")
    assert "--target FILE" in said
    assert "--endpoint URL" in said
    said = refused(
        capsys, stories260k, "--budget", "auto", "--from", "drafter", "-o", tmp_path / "b.gguf"
    )
    assert "--budget auto without a target" in said


def test_an_unsupported_architecture_is_named_with_the_supported_ones(capsys, tmp_path, corpus):
    source = write_llama(tmp_path / "a.gguf", architecture="gemma3n")
    said = refused(capsys, source, "--text", corpus, "--keep", 32)
    assert "architecture 'gemma3n', which cannot be trimmed: expected one of llama, qwen2" in said


@pytest.mark.parametrize("what", ["missing", "text", "a folder", "trimmed"])
def test_a_source_that_is_no_whole_model_is_refused(capsys, tmp_path, corpus, stories260k, what):
    source = tmp_path / "source.gguf"
    if what == "text":
        source.write_text(TEXT)
    elif what == "a folder":
        source.mkdir()
    elif what == "trimmed":
        trim(stories260k, source, KEPT)
    said = refused(capsys, source, "--text", corpus, "--keep", 300, "-o", tmp_path / "b.gguf")
    expected = {
        "missing": "No such file",
        "text": "not a complete GGUF",
        "a folder": "is a folder: expected a GGUF file",
        "trimmed": "is trimmed already (256 of 512 rows): expected a whole model",
    }
    assert expected[what] in said


def test_the_source_is_not_overwritten(capsys, tmp_path, stories260k, corpus):
    source = tmp_path / "a.gguf"
    shutil.copy(stories260k, source)
    for out in (source, tmp_path / "." / "a.gguf"):
        said = refused(capsys, source, "--text", corpus, "--keep", 384, "-o", out)
        assert "is the model to trim: choose another name" in said
    # Nor as the vocabulary file of the result.
    shutil.copy(stories260k, tmp_path / "c.vocab.gguf")
    with pytest.raises(UsageError, match="is the model to trim"):
        trim(tmp_path / "c.vocab.gguf", tmp_path / "c.gguf", KEPT)
    assert source.read_bytes() == stories260k.read_bytes()


def test_a_target_elsewhere_or_without_ending_is_refused(capsys, tmp_path, stories260k, corpus):
    words = (stories260k, "--text", corpus, "--keep", 384, "-o")
    assert "expected a name ending in .gguf" in refused(capsys, *words, tmp_path / "b.bin")
    assert "is not a folder" in refused(capsys, *words, tmp_path / "none" / "b.gguf")


def test_a_model_whose_rows_and_tokens_differ_is_refused(tmp_path, stories260k):
    source = make(tmp_path / "a.gguf", vocabulary=stories260k)
    raw = source.read_bytes().replace(b"token_embd.weight", b"token_embx.weight")
    source.write_bytes(raw)
    with pytest.raises(ModelFileError, match="no vocabulary or no weights"):
        trim(source, tmp_path / "b.gguf", KEPT)


# From end to end


def test_trimming_by_text_reports_coverage_sizes_and_steps(
    capsys, tmp_path, stories260k, corpus, untried
):
    out = tmp_path / "b.gguf"
    words = (stories260k, "--text", corpus, "--coverage", 0.97, "-o", out, "--json", "-")
    assert command(*words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == "edgespec.trim/1"
    assert 0.97 <= said["coverage"] <= 1
    assert 0.9 < said["coverage_held_out"] <= 1
    assert said["n_kept"] % 32 == 0
    assert said["n_always_kept"] <= said["n_kept"] < said["n_vocab"] == 512
    cut = (512 - said["n_kept"]) * 64 * 2
    assert said["n_params"]["before"] - said["n_params"]["after"] == cut
    assert said["n_bytes"]["before"] == stories260k.stat().st_size
    assert said["n_bytes"]["after"] == out.stat().st_size
    assert said["draft_step_s"]["before"] > 0
    assert said["pair"]["before"] == "no target was given"
    assert said["mbsu"] is None
    assert set(said["files"]) == {str(out), str(vocabulary_path(out))}


@pytest.mark.slow
def test_trimming_the_demo_pair_by_budget_measures_the_pair(capsys, tmp_path, monkeypatch, untried):
    monkeypatch.setattr("edgespec.export.trim.flow.MOST_TOKENS", 24)
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"Tell me a story about a {who}."} for who in ("fox", "cat", "bee", "cow")]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out, record = tmp_path / "b.gguf", tmp_path / "r.json"
    words = ("--prompts", prompts, "-n", 40, "-t", 1, "-o", out, "--json", record)
    assert command(DEMO, "--target", TARGET, *words) == 0
    printed, data = capsys.readouterr().out, json.loads(record.read_text())
    assert [one["n_kept"] for one in data["candidates"]] == [4096, 2048, 1024, 512]
    assert data["n_kept"] == max(data["candidates"], key=lambda c: c["tokens_per_s"])["n_kept"]
    covered = [one["coverage"] for one in data["candidates"]]
    assert 1 == covered[0] >= covered[1] >= covered[2] > covered[3]
    before, after = data["pair"]["before"], data["pair"]["after"]
    assert before["outputs"] == after["outputs"]
    assert before["n_prompts"] == 1  # the one that is held out
    c = data["n_params"]["after"] / 7_900_000
    assert data["mbsu"]["after"] == pytest.approx(after["block_efficiency"] / (4 * c + 1), rel=0.01)
    assert "memory-bound speed-up" in printed
    assert "1 of 1 identical" in printed
    assert f"{data['n_kept']} of 4096" in printed
    answers = (tmp_path / "b.answers.jsonl").read_text().splitlines()
    assert len(answers) == 4
    # A second run asks nothing again.
    monkeypatch.setattr("edgespec.export.trim.pair.Answerer.ask", None)
    assert command(DEMO, "-m", TARGET, *words, "--keep", 352) == 0
    data = json.loads(record.read_text())
    accepted = [data["pair"][side]["n_accepted"] for side in ("before", "after")]
    assert 0 < accepted[1] < accepted[0]
    assert data["loss_of_accepted"] == pytest.approx(1 - accepted[1] / accepted[0])
    assert (tmp_path / "b.answers.jsonl").read_text().splitlines() == answers


def test_who_is_not_the_demos_is_asked_what_assistants_are(monkeypatch):
    plans = []

    def run(plan, progress):
        plans.append(plan)
        raise EdgeSpecError("stop")

    monkeypatch.setattr(trim_flow, "run", run)
    command()
    command("a/b.gguf", "--keep", 5, "--from", "drafter", "--samples", 2)
    command("a/b.gguf", "-m", TARGET, "--set", "code,json")
    assert plans[0].source == DEMO
    assert plans[0].target == TARGET
    assert plans[0].out == Path("drafter-trimmed.gguf")
    assert len(plans[0].questions) == 128
    assert plans[1].target is None
    assert plans[1].origin == "drafter"
    assert plans[1].out == Path("b-trimmed.gguf")
    assert len(plans[1].questions) == 160
    assert len(plans[2].questions) == 32
    assert "Python" in str(plans[2].questions[0].messages)


@pytest.mark.slow
def test_trimming_to_onnx_keeps_the_logits_of_kept_rows(tmp_path, corpus, untried):
    pytest.importorskip("onnx")
    from edgespec.export.onnx.export import GraphOptions, export
    from edgespec.export.read.gguf import open_gguf_checkpoint

    out, record = tmp_path / "small", tmp_path / "record.json"
    words = (DEMO, "--text", corpus, "--keep", 500, "--to", "onnx", "--precision", "fp32")
    assert command(*words, "-o", out, "--json", record) == 0
    n_params = json.loads(record.read_text())["n_params"]
    assert n_params["before"] - n_params["after"] == (4096 - 512) * 128
    export(open_gguf_checkpoint(DEMO), tmp_path / "whole", GraphOptions(precision="fp32"))
    options = ModelOptions(n_context=64, n_threads=1, device="cpu")
    small, whole = open_model(out, options), open_model(tmp_path / "whole", options)
    tokens = [0, 700, 4000, 55, 2000, 1]
    assert len(small.token_ids) == 512
    assert small.n_vocab == 4096
    expected = whole.forward(tokens)[:, small.token_ids]
    assert np.abs(small.forward(tokens) - expected).max() < 1e-4
    small.close()
    whole.close()
