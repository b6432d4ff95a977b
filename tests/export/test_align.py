"""A drafter learns from its target's answers: they are written as alone, spelled as in use."""

from __future__ import annotations

import errno
import json
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgespec.export.align import lesson
from edgespec.export.align.flow import AlignPlan, check_out, kept_layers
from edgespec.export.align.gather import Asked, as_text, gather, kept, lessons
from edgespec.export.align.gguf_lora import open_gguf_lora
from edgespec.export.align.layers import least_missed, with_layers
from edgespec.export.align.merge import merge
from edgespec.export.align.recipes import KINDS, Recipe
from edgespec.export.align.written import Alone, Written, write
from edgespec.export.lora import open_lora
from edgespec.export.read.gguf import open_gguf_checkpoint
from edgespec.export.trim.answers import read_answers
from hf_maker import write_adapter
from llama_reference import numpy_logits, write_llama
from test_lora import MODULES, TOKENS, merged

import edgespec
from edgespec.adapt.labels import KEPT, labels
from edgespec.backends.fake import TableModel
from edgespec.cli import main
from edgespec.cli.adapt_train import RECIPES, asked
from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.session.session import Session
from edgespec.store import pairs

V = 12
QUESTIONS = ("Tell me a story about a fox.", "Can you find me a hotel?", "Tell me of a storm.")
ASKED = tuple(({"role": "user", "content": text},) for text in QUESTIONS)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of the test's own."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))


def counting(prefix: tuple[int, ...]) -> np.ndarray:
    """The last id plus one, two or three, by falling probability."""
    row = np.full(V, 1e-3)
    row[[(prefix[-1] + i) % V for i in (1, 2, 3)]] = 0.6, 0.3, 0.1
    return (row / row.sum()).astype(np.float32)


def silent(what: str, share: float) -> None:
    """No progress."""


def demo(name: str) -> Path:
    return pairs.folder() / "demo" / f"{name}.gguf"


def test_an_answer_ends_at_its_end_token_or_length_and_one_too_long_is_none():
    model = Alone(TableModel(counting, V, 20))
    found = dict(write(model, [[3], list(range(15)), [9, 9], [1, 2]], 6, {0}))
    assert found[1] is None
    assert [found[i].ids for i in (0, 2, 3)] == [
        (3, 4, 5, 6, 7, 8, 9), (9, 9, 10, 11, 0), (1, 2, 3, 4, 5, 6, 7, 8)
    ]  # fmt: skip
    one = found[2]
    assert one.n_prompt == 2
    assert one.ids_of[:, 0].tolist() == [10, 11, 0]
    assert one.ids_of[0, :3].tolist() == [10, 11, 0]
    law = counting((9,))
    assert one.probs[0, :3] == pytest.approx(law[[10, 11, 0]], abs=1e-3)


def test_several_at_once_are_written_as_each_alone(tmp_path: Path):
    asked = Asked(demo("target"), ASKED, 40, 2)
    found = gather(asked, tmp_path / "answers", silent)
    with edgespec.load(speculative="off", temperature=0.0, max_tokens=40) as session:
        for messages, written in found:
            prompt = session.prompt(list(messages))
            assert written.ids[: written.n_prompt] == tuple(prompt)
            alone = [token for step in session.steps(prompt, session.params())
                     for token in step.verdict.tokens]  # fmt: skip
            said = list(written.ids[written.n_prompt :])
            assert said == alone[: len(said)]
            assert len(alone) - len(said) <= 1
            assert written.probs.shape == (len(said), KEPT)


def test_a_head_is_trimmed_by_the_answers_as_text(tmp_path: Path):
    found = gather(Asked(demo("target"), ASKED, 40, 2), tmp_path / "answers", silent)
    file = tmp_path / "answers.jsonl"
    file.write_text(as_text(demo("target"), found), encoding="utf-8")
    with edgespec.load(speculative="off", temperature=0.0, max_tokens=40) as session:
        texts = ["".join(part.text for part in session.chat(list(one))) for one in ASKED]
    read = read_answers(file)
    assert sorted(text.strip() for text in read.texts + read.held_out) == sorted(
        text.strip() for text in texts
    )


def test_answers_that_are_kept_are_not_asked_for_again(tmp_path: Path, monkeypatch, caplog):
    asked = Asked(demo("target"), ASKED[:2], 10, 2)
    found = gather(asked, tmp_path, silent)
    (file, *others) = sorted(tmp_path.iterdir())
    data = file.read_bytes()
    for damaged in (b"", data[:-9], data[:200], b"\x93NUMPY", b"damaged"):
        file.write_bytes(damaged)
        assert kept(file) is None
    i = data.index(b"ids") + 60
    file.write_bytes(data[:i] + b"?" * 30 + data[i + 30 :])
    assert kept(file) is None
    lesson.save(file, replace(found[0][1], probs=found[0][1].probs[1:]))
    assert kept(file) is None
    assert caplog.messages[-1] == f"{file} cannot be read: its prompt is answered again"
    told = []
    again = gather(asked, tmp_path, lambda what, share: told.append(share))
    assert told == [1.0]  # one was asked for again
    for (_, one), (_, other) in zip(found, again, strict=True):
        assert one.ids == other.ids
        assert np.abs(one.probs - other.probs).max() < 1e-3
    monkeypatch.setattr("edgespec.export.align.gather.open_target", None)
    gather(asked, tmp_path, silent)


def test_a_drafter_of_the_targets_vocabulary_learns_every_token():
    ids_of = np.array([[4, 5, 0], [6, 7, 1]], np.int32)
    probs = np.array([[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]], np.float32)
    one = lesson.lesson(Written((1, 2, 4, 6), 2, ids_of, probs), lesson.same, lambda ids: ids)
    assert one.ids.tolist() == [1, 2, 4, 6]
    assert one.rows.tolist() == [1, 2]
    assert one.labels.ids[:, 0].tolist() == [4, 6]
    assert one.labels.probs[:, 0] == pytest.approx([0.5, 0.7])
    assert one.labels.piece.tolist() == [-1, -1]


@pytest.mark.slow
def test_over_vocabularies_labels_stand_where_both_spell_the_same(tmp_path: Path):
    found = gather(Asked(demo("target"), ASKED, 40, 3), tmp_path, silent)
    spelled = list(lessons(demo("foreign"), demo("target"), found, silent))
    with edgespec.load(demo("target"), draft_model=demo("foreign")) as session:
        check_spelling(session, found, spelled)


def check_spelling(
    session: Session, found: Sequence[tuple[object, Written]], spelled: Sequence[lesson.Lesson]
) -> None:
    """One of a label's columns begins what the target said there; else the next piece is one."""
    assert session.pair.translation is not None
    draft, target = session.pair.translation.mapping.draft, session.pair.translation.mapping.target
    n_mapped = 0
    for (_, written), one in zip(found, spelled, strict=True):
        said = target.spelling(written.ids[written.n_prompt :])
        first = int(one.rows[0]) + 1
        assert draft.spelling(one.ids[first:].tolist()) == said
        for row, ids, piece in zip(one.rows, one.labels.ids, one.labels.piece, strict=True):
            before = len(draft.spelling(one.ids[first : row + 1].tolist()))
            if piece >= 0:
                assert piece == one.ids[row + 1]
            else:
                n_mapped += 1
                pieces = [draft.pieces[column] for column in ids if column >= 0]
                assert not said[before:] or any(map(said[before:].startswith, filter(None, pieces)))
        assert (one.is_mapped == (one.labels.piece < 0)).all()
    assert n_mapped > 40


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "off"), [("f16", 0.003), ("q8_0", 0.03), ("q4_1", 0.4)])
def test_a_merged_model_says_what_base_and_adapter_say(tmp_path: Path, kind: str, off: float):
    base = write_llama(tmp_path / "base.gguf", n_kv_heads=2, dtype=np.float32)
    added = write_adapter(tmp_path / "adapter", MODULES)
    whole = {module: 1.5 * more for module, more in added.items()}
    expected = numpy_logits(merged(base, tmp_path / "by-hand.gguf", whole), TOKENS)
    checkpoint = open_gguf_checkpoint(base)
    lora = open_lora(tmp_path / "adapter", checkpoint)
    out = merge(checkpoint, lora, tmp_path / "out.gguf", kind)
    kinds = {name: tensor.kind for name, tensor in open_gguf_checkpoint(out).tensors.items()}
    assert kinds["blk.0.attn_q.weight"] == kind.upper()
    assert kinds["token_embd.weight"] == "F32"
    seen = numpy_logits(out, TOKENS)
    scale = np.abs(expected).max()
    assert np.abs(seen - expected).max() < off * scale
    assert np.abs(numpy_logits(base, TOKENS) - expected).max() > 0.5 * scale


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "--lora", "0"], "--lora is 0: expected 1 to 256"),
        (["train", "--epochs", "0"], "--epochs is 0: expected 1 to 100"),
        (["train", "--rate", "nan"], "--rate is nan: expected 1e-06 to 0.1"),
        (["show", "--lora", "8"], "--lora goes with `edgespec adapt train`"),
        (["train", "--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_words_are_one_line(words: list[str], line: str, capsys):
    assert main(["adapt", *words]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_the_command_names_every_recipe():
    assert tuple(KINDS) == RECIPES
    with pytest.raises(UsageError, match="'kl': expected one of covering, omnidraft, "):
        Recipe("kl")


def test_a_prompt_given_twice_is_answered_once(tmp_path: Path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "One"}\n{"prompt": "Two"}\n{"prompt": "One"}\n', "utf-8")
    found, whose = asked(Namespace(prompts=str(prompts)), Config(), 20)
    assert [messages[0]["content"] for messages in found] == ["One", "Two"]
    assert whose == f"2 of {prompts}"


def a_lesson(m: int, reference: Sequence[float] = (), *, n_pieces: int = 0) -> lesson.Lesson:
    """Of m rows in a drafter of V tokens, whose target says 1; of some a piece alone is known."""
    ids = np.zeros((m, 2), np.int64) + [1, 2]
    probs = np.zeros((m, 2), np.float32) + np.float32([0.8, 0.1])
    piece = np.full(m, -1)
    ids[:n_pieces], probs[:n_pieces], piece[:n_pieces] = -1, 0, 1
    text = np.array([token for i in range(m) for token in (3 + i, 1)], np.int32)
    rows = np.arange(0, 2 * m, 2, dtype=np.int32)
    known = labels(ids, probs, piece=piece)
    return lesson.Lesson(text, rows, known, np.array(reference, np.float32))


def test_what_a_reference_shows_to_be_learnable_is_learned_from():
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    from edgespec.export.align.train import worth

    batch = [a_lesson(3, [0.1, 0.9, 0.4]), a_lesson(4, [9, 9, 0.2, 0.3], n_pieces=2)]
    losses = np.float32([0.5, 1.0, 0.4, 9, 9, 1.2, 0.9])  # above: 0.4, 0.1, 0.0, -, -, 1.0, 0.6
    assert worth(losses, batch, 0.4).tolist() == [5, 6]  # of those whose law is known
    assert worth(losses, batch, 0.01).tolist() == [5]
    assert worth(losses, [a_lesson(3), a_lesson(4)], 0.4).tolist() == list(range(7))


class Toy:
    """A network whose states are its ids' rows of a table, which is what learns."""

    def __init__(self) -> None:
        import torch

        torch.manual_seed(0)
        self.head = torch.randn(V, 4)
        self.table = torch.randn(V, 4, requires_grad=True)
        self.parameters = [self.table]

    def hidden(self, ids: Any) -> Any:
        return self.table[ids]

    def state(self) -> dict[str, Any]:
        return {"table": self.table.detach().clone()}

    def become(self, state: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            self.table.copy_(state["table"])


@pytest.mark.parametrize("name", KINDS)
def test_a_network_learns_by_every_recipe(name: str, tmp_path: Path):
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    from edgespec.export.align.train import scores, teach

    network, told = Toy(), []
    lessons = [a_lesson(1 + i % 6, n_pieces=i % 2) for i in range(40)]
    recipe = Recipe(name, epochs=30, rate=0.05, tokens=48)
    before = scores(network, lessons, 48)
    file = tmp_path / "checkpoint.pt"
    teach(network, lessons, recipe, file, lambda what, share: told.append((what, share)), of="toy")
    after = scores(network, lessons, 48)
    assert after.overlap > before.overlap + 0.1
    begun = [what.split(",")[0] for what, share in told if share == 1]
    phases = ["training a reference", "asking the reference", "training"]
    assert begun == phases[2 * (name != "adaspec") :]
    told.clear()
    again = Toy()
    teach(again, lessons, recipe, file, lambda what, share: told.append((what, share)), of="toy")
    assert not any("training" in what for what, _ in told)  # nothing is taught twice
    assert scores(again, lessons, 48) == after


def test_a_reference_leaves_the_network_as_it_was(tmp_path: Path):
    pytest.importorskip("torch", reason="the extra `train` is not installed")
    from edgespec.export.align.train import referred, rows_of, scored

    network = Toy()
    lessons = [a_lesson(1 + i % 6, n_pieces=i % 2) for i in range(40)]
    recipe = Recipe("adaspec", epochs=30, rate=0.05, tokens=48)
    before = network.state()["table"]
    file = tmp_path / "checkpoint.pt"
    found = referred(network, lessons, recipe, file, lambda what, share: None, of="toy")
    assert (network.state()["table"] == before).all()
    for one, other in zip(found, lessons, strict=True):
        untaught, _ = scored(network, rows_of(network, [other]), one.labels, recipe.kind.loss)
        assert len(one.reference) == len(one.rows)
        assert (one.reference[other.is_mapped] < untaught[other.is_mapped]).all()


@pytest.mark.slow
def test_training_brings_a_drafter_nearer_to_its_target(tmp_path: Path, monkeypatch, capsys):
    pytest.importorskip("peft", reason="the extra `train` is not installed")
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    things = "cat dog fox tree boat car ball bird fish girl boy king queen moon star hat frog duck"
    lines = [f'{{"prompt": "Tell me a story about a {one}."}}' for one in things.split()]
    lines += [f'{{"prompt": "I need a {one} for tomorrow."}}' for one in things.split()]
    prompts.write_text("\n".join(lines), encoding="utf-8")
    words = ["adapt", "train", "--pair", "demo", "--prompts", str(prompts), "-n", "40"]
    words += ["--lora", "8", "--epochs", "10", "--json", "-"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["after"]["overlap"] > record["before"]["overlap"] + 0.03
    assert all(math.isfinite(value) for value in record["after"].values())
    assert [Path(file).name for file in record["files"]] == [
        "drafter-aligned.gguf", "drafter-aligned.onnx_adapter", "drafter-aligned.merged.gguf"
    ]  # fmt: skip
    assert main([*words, "--epochs", "10"]) == 0  # nothing is asked or trained again
    assert json.loads(capsys.readouterr().out)["after"] == record["after"]
    Path("drafter-aligned.merged.gguf").rename("taught.gguf")
    assert main([*words, "--drop-layers", "1", "--epochs", "1"]) == 0
    fewer = json.loads(capsys.readouterr().out)
    kept, adapter, whole = fewer["kept"], *map(Path, fewer["files"])
    n = open_gguf_checkpoint(demo("drafter")).decoder.n_layers
    assert len(kept) == n - 1
    assert adapter.name == f"adapter-{n - 1}.gguf"  # in the folder of what is kept
    base = with_layers(open_gguf_checkpoint(demo("drafter")), kept)
    again = merge(base, open_gguf_lora(adapter, base), tmp_path / "again.gguf")
    expected = numpy_logits(whole, TOKENS)
    assert np.abs(numpy_logits(again, TOKENS) - expected).max() < 0.02 * np.abs(expected).max()
    assert main([*words, "-md", "taught.gguf", "-m", str(demo("target")), "--epochs", "1",
                 "-o", "drafter-aligned"]) == 0  # fmt: skip
    anew = json.loads(capsys.readouterr().out)  # begun anew, not taught the same once more
    assert anew["after"]["overlap"] > anew["before"]["overlap"] > record["before"]["overlap"]


def test_what_is_kept_to_go_on_from_is_of_its_models(tmp_path: Path, caplog):
    one = AlignPlan(Asked(demo("target"), ASKED, 10, 2), demo("drafter"), tmp_path / "mine")
    others = [replace(one, drafter=demo("foreign"))]
    others.append(replace(one, asked=replace(one.asked, target=demo("foreign"))))
    assert len({plan.models for plan in (one, replace(one, out=Path("b")), *others)}) == 3
    file = tmp_path / "layers-1.json"
    for text, found in (
        (f'{{"of": "{one.models}", "layers": [0, 2]}}', [0, 2]), ("[0, 2]", []), ("[0,", []),
        (f'{{"of": "{others[0].models}", "layers": [0, 2]}}', []),
    ):  # fmt: skip
        file.write_text(text)
        assert kept_layers(file, one.models) == found
    assert caplog.messages == 2 * [f"{file} cannot be read: layers are judged again"]


@pytest.mark.parametrize("ending", [".merged.gguf", ".gguf"])
def test_a_model_is_not_written_over_by_what_it_teaches_or_learns(ending: str, tmp_path: Path):
    mine = tmp_path / f"mine{ending}"
    mine.write_bytes(b"")
    plan = AlignPlan(Asked(demo("target"), ASKED, 10, 2), mine, tmp_path / "mine")
    with pytest.raises(UsageError, match=f"mine would write over .*{ending}: expected another"):
        check_out(plan)
    with pytest.raises(UsageError, match="would write over"):
        check_out(replace(plan, drafter=demo("drafter"), asked=replace(plan.asked, target=mine)))
    check_out(replace(plan, out=tmp_path / "yours"))


def test_files_that_cannot_be_written_are_one_line_before_anything_long(
    tmp_path: Path, monkeypatch
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "half.gguf").mkdir()
    one = AlignPlan(Asked(demo("target"), ASKED, 10, 2), demo("drafter"), tmp_path / "mine")
    for out, line in (
        ("nowhere/mine", "nowhere is not a folder: create it"),
        ("folder", "folder is a folder: expected the name of files in it; type -o .*drafter$"),
        ("mine.gguf", "expected a name without ending, to which .* are added: type -o .*/mine$"),
        ("mine.merged.gguf", "type -o .*/mine$"),
        ("mine.onnx_adapter", "type -o .*/mine$"),
        ("half", "half would write .*half.gguf, a folder: expected another name"),
    ):
        with pytest.raises(UsageError, match=line):
            check_out(replace(one, out=tmp_path / out))
    one.work.write_bytes(b"")
    with pytest.raises(UsageError, match="mine.work: Not a directory: expected a folder to write"):
        check_out(one)

    def forbidden(dir: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr("edgespec.export.align.flow.TemporaryFile", forbidden)
    with pytest.raises(UsageError, match=f"{tmp_path}: Permission denied: expected a folder to"):
        check_out(one)


@pytest.mark.parametrize("n_dropped", [0, 1, 3])
def test_the_layers_least_missed_are_found(n_dropped: int):
    worth = [5.0, 0.1, 3.0, 0.2, 4.0, 0.05, 2.0]

    def score(layers: Sequence[int]) -> float:
        missing = [worth[i] for i in range(len(worth)) if i not in layers]
        return -sum(missing) - 0.01 * len(missing) ** 2

    kept = least_missed(len(worth), n_dropped, score, lambda share: None)
    order = sorted(range(len(worth)), key=lambda i: worth[i])
    assert kept == sorted(set(range(len(worth))) - set(order[:n_dropped]))


def test_a_layer_that_is_missed_once_another_is_gone_stays():
    def score(layers: Sequence[int]) -> float:
        return len(layers) - 10.0 * (not {1, 2} & set(layers)) + 0.5 * (3 in layers)

    assert least_missed(4, 2, score, lambda share: None) in ([1, 3], [2, 3])


def test_a_model_without_layers_computes_with_the_others(tmp_path: Path):
    base = write_llama(tmp_path / "base.gguf", n_kv_heads=2, dtype=np.float32)
    checkpoint = with_layers(open_gguf_checkpoint(base), [1])
    assert checkpoint.decoder.n_layers == 1
    assert "blk.1.attn_q.weight" not in checkpoint.tensors
    whole = open_gguf_checkpoint(base)
    for name in ("attn_q", "ffn_down"):
        assert (
            checkpoint[f"blk.0.{name}.weight"].floats() == whole[f"blk.1.{name}.weight"].floats()
        ).all()
    first = {name: shape for name, shape in MODULES.items() if ".0." in name}
    write_adapter(tmp_path / "adapter", first)
    out = merge(checkpoint, open_lora(tmp_path / "adapter", checkpoint), tmp_path / "out.gguf")
    assert open_gguf_checkpoint(out).decoder.n_layers == 1
    assert np.isfinite(numpy_logits(out, TOKENS)).all()


def test_packages_that_are_missing_are_named_before_anything_is_asked(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("network", "train"):
        monkeypatch.delitem(sys.modules, f"edgespec.export.align.{name}", raising=False)
    assert main(["adapt", "train", "--pair", "demo"]) == 2
    said = capsys.readouterr().err
    assert "is not installed" in said
    assert "pip install edgespec[train]" in said
    assert said.count("\n") == 1
