"""How weights are kept: which tensors are reordered without AMX, and what that computes."""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from model_maker import Sizes, make

from edgespec.backends import ModelOptions
from edgespec.backends.gguf.file import Header, Tensor
from edgespec.backends.llamacpp.layout import patterns_of
from edgespec.backends.llamacpp.model import LlamaCppModel
from edgespec.backends.llamacpp.pages import ReadPages

REAL = os.environ.get("EDGESPEC_REAL_MODELS", "")


def header(**kinds: str) -> Header:
    """A model of tensors 64 x 64, blk_0_x for blk.0.x, each of its type."""
    names = {name.replace("blk_", "blk.").replace("__", ".") + ".weight": name for name in kinds}
    tensors = {name: Tensor(name, (64, 64), kinds[key], 0, 1) for name, key in names.items()}
    return Header(Path("m.gguf"), 1, {}, tensors)


def test_only_matrices_of_the_reordered_types_are_reordered() -> None:
    model = header(
        token_embd="Q4_K", output="Q4_0", blk_0__attn_q="Q4_K", blk_1__attn_q="Q4_K",
        blk_0__ffn_down="Q6_K", blk_1__ffn_down="Q4_K", blk_11__ffn_down="Q4_1",
        blk_0__attn_norm="F32", blk_1__per_layer="Q4_K",
    )  # fmt: skip
    found = {name for name in model.tensors for p in patterns_of(model) if re.search(p, name)}
    layers = {"blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.1.ffn_down.weight"}
    assert found == {"output.weight", *layers}


def test_rows_that_do_not_come_in_eights_stay_as_they_are() -> None:
    odd = Tensor("blk.0.attn_q.weight", (64, 60), "Q4_K", 0, 1)
    assert patterns_of(Header(Path("m.gguf"), 1, {}, {odd.name: odd})) == []


def test_alike_matrices_share_a_pattern() -> None:
    model = header(**{f"blk_{i}__{m}": "Q4_K" for i in range(30) for m in ("attn_q", "ffn_up")})
    assert len(patterns_of(model)) == 1


def resident(path: Path) -> int:
    """Bytes of a file that are mapped and in memory."""
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    mine = [part for part in parts if part.partition("\n")[0].endswith(str(path.resolve()))]
    return sum(1024 * int(n) for part in mine for n in re.findall(r"\nRss: +(\d+)", part))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system tells no pages")
def test_what_was_reordered_is_not_held_twice(tmp_path: Path) -> None:
    path = make(tmp_path / "m.gguf", "llama", kind="Q4_0", sizes=Sizes(n_embd=256, n_ff=4096))
    options, shares = ModelOptions(n_context=64, device="cpu"), list[float]()
    options = replace(options, progress=shares.append)
    held = {}
    for way in ("map", "cpu-repack"):
        model = LlamaCppModel(path, options, loading=way)
        held[way] = resident(path)
        model.close()
    assert held["map"] > 0.9 * path.stat().st_size
    assert held["cpu-repack"] < 0.1 * path.stat().st_size
    assert shares[-1] == 1.0  # who watched is told as before


@pytest.mark.slow
def test_pages_are_given_back_a_few_times_while_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights with a space.bin"
    path.write_bytes(b"x" * (1 << 20))
    seen = list[int]()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        pages = ReadPages([path], lambda _: seen.append(resident(path)))
        for at in range(1, 33):
            assert mapped[at * 32768 - 1] == ord("x")
            pages(at / 32)
        assert mapped[:] == b"x" * (1 << 20)
    assert len(seen) == 32
    assert max(seen) < 1 << 18
    assert seen[-1] == 0


@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="needs EDGESPEC_REAL_MODELS")
def test_reordered_weights_say_what_mapped_ones_say() -> None:
    path = Path(REAL) / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
    ids, said = [1000 + 37 * i for i in range(24)], []
    for way in ("map", "cpu-repack"):
        model = LlamaCppModel(path, ModelOptions(n_context=256, device="cpu"), loading=way)
        said.append(model.forward(ids).copy())
        model.close()
    mapped, reordered = said
    assert ("(cpu-repack)" in model.device) == (way == "cpu-repack")
    differ = (mapped.argmax(1) != reordered.argmax(1)).nonzero()[0]
    top = mapped[differ].copy()
    top.sort(1)
    assert ((top[:, -1] - top[:, -2]) < 2 * abs(mapped - reordered).max()).all()
