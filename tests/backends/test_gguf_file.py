"""Headers of GGUF files: read exactly, and refused with one line when damaged."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf_maker import (
    Gguf,
    f32,
    malformed,
    random_damage,
    string,
    strings,
    u32,
    u32s,
    with_keys,
    with_tensor,
)

from edgespec.backends import ModelOptions
from edgespec.backends.gguf import trial as gguf_trial
from edgespec.backends.gguf.check import check_file, check_vocabulary, head_length, kv_heads, parts
from edgespec.backends.gguf.file import Array, read_header
from edgespec.backends.gguf.seen import ENOUGH, Seen
from edgespec.backends.gguf.tried import remembered, timed_ways
from edgespec.device import Others, n_cores
from edgespec.errors import EdgeSpecError, ModelFileError
from edgespec.pace.doubt import Doubt

CASES = (
    "empty", "magic alone", "wrong magic", "text", "version 1", "version 99", "big-endian",
    "too many tensors", "too many keys", "one tensor more", "cut in the header",
    "cut in the tokens", "cut in the tensors", "endless list", "cut in the weights",
    "last byte missing", "endless string",
    "no architecture", "unknown architecture", "a number for the architecture",
    "line break in the architecture", "a projector", "bad alignment", "no layers",
    "too many layers", "one layer more", "no width", "another width", "no context", "no heads",
    "heads that do not divide", "kv heads that do not divide", "odd rope",
    "rope base not a number", "unknown rope scaling", "infinite epsilon",
    "experts used, none there", "no tokenizer", "unknown tokenizer", "no tokens",
    "tokens that are numbers", "too few tokens", "byte tokens misspelled", "a token twice",
    "too few scores", "one of two parts", "no embedding", "embedding mis-shaped",
    "unknown tensor type", "integer weights", "integer matrix", "tensor of nothing",
    "tensor beyond the end",
    "five dimensions", "a layer's tensor renamed", "two tensors of one name",
)  # fmt: skip


@pytest.fixture(scope="module")
def damaged(stories260k: Path) -> dict[str, bytes]:
    return malformed(stories260k)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "model.gguf"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_every_damage_is_tried(damaged: dict[str, bytes]) -> None:
    assert sorted(damaged) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_file_is_refused_in_one_line(
    case: str, damaged: dict[str, bytes], file: Path
) -> None:
    pytest.importorskip("llama_cpp")
    from edgespec.backends.llamacpp.model import LlamaCppModel

    written(file, damaged[case])
    with pytest.raises(EdgeSpecError, match=r"\Amodel\.gguf [^\n]+: expected [^\n]+\Z") as refused:
        LlamaCppModel(file, ModelOptions(n_context=64, n_threads=1), loading="map")
    assert type(refused.value) is ModelFileError


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("wrong magic", "begins with b'GGML'"),
        ("last byte missing", "ends 1 bytes before the end of blk.4.ffn_up.weight"),
        ("embedding mis-shaped", r"token_embd.weight of shape \(512, 64\)"),
        ("kv heads that do not divide", "head_count_kv = 3: expected a divisor of 8"),
        ("a token twice", "has the token b'<s>' twice"),
        ("two tensors of one name", "names a tensor twice"),
        ("cut in the tensors", "ends inside a"),
        ("integer matrix", "blk.0.attn_q.weight of type I32: expected weights"),
        ("too few scores", "bad list tokenizer.ggml.scores: expected 512 numbers"),
        ("endless list", "ends inside tokenizer.ggml.tokens"),
        ("one of two parts", "-00001-of-00002.gguf"),
        ("tensor beyond the end", "output_norm.weight at offset 1099511627776"),
        ("experts used, none there", "expert_used_count = 4: expected 0"),
    ],
)
def test_the_line_says_what_is_wrong(
    case: str, said: str, damaged: dict[str, bytes], file: Path
) -> None:
    with pytest.raises(ModelFileError, match=said):
        check_file(written(file, damaged[case]))


def test_metadata_and_tensors_are_read_exactly(stories260k: Path) -> None:
    header = read_header(stories260k)
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.embedding_length"] == 64
    assert header.n_bytes == stories260k.stat().st_size
    tokens = header.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Array)
    assert list(header.strings("tokenizer.ggml.tokens"))[:4] == [
        b"<unk>",
        b"<s>",
        b"</s>",
        b"<0x00>",
    ]
    assert header.numbers("tokenizer.ggml.token_type")[:4].tolist() == [2, 3, 3, 6]
    assert header.numbers("llama.block_count").tolist() == [5]
    embedding = header.tensors["token_embd.weight"]
    assert (embedding.shape, embedding.kind, embedding.n_bytes) == ((64, 512), "F32", 131072)
    ends = [t.offset + t.n_bytes for t in header.tensors.values()]
    assert max(ends) == header.n_bytes
    norm = header.tensors["output_norm.weight"]
    raw = stories260k.read_bytes()[norm.offset : norm.offset + norm.n_bytes]
    assert 0.1 < float(np.frombuffer(raw, np.float32).mean()) < 100


def test_a_file_written_anew_reads_the_same(stories260k: Path, file: Path) -> None:
    written(file, Gguf.read(stories260k).bytes())
    assert file.read_bytes() == stories260k.read_bytes()


def test_every_kind_of_number_is_read(stories260k: Path, file: Path) -> None:
    kinds = {
        "a": (struct.pack("<IB", 0, 200), 200), "b": (struct.pack("<Ib", 1, -2), -2),
        "c": (struct.pack("<IH", 2, 60000), 60000), "d": (struct.pack("<Ih", 3, -300), -300),
        "e": (u32(1 << 31), 1 << 31), "f": (struct.pack("<Ii", 5, -7), -7),
        "g": (f32(0.5), 0.5), "h": (struct.pack("<I?", 7, True), True),
        "i": (struct.pack("<IQ", 10, 1 << 63), 1 << 63), "j": (struct.pack("<Iq", 11, -9), -9),
        "k": (struct.pack("<Id", 12, 0.1), 0.1), "l": (string("ä"), "ä"),
    }  # fmt: skip
    header = read_header(
        written(file, with_keys(stories260k, **{k: v for k, (v, _) in kinds.items()}))
    )
    assert {key: header.metadata[key] for key in kinds} == {k: v for k, (_, v) in kinds.items()}


def test_a_sound_model_passes(stories260k: Path) -> None:
    header = check_file(stories260k)
    assert head_length(header, "key") == head_length(header, "value") == 8
    assert kv_heads(header) == [4] * 5
    assert parts(header) == [stories260k]


def test_heads_may_differ_by_layer(stories260k: Path, file: Path) -> None:
    per_layer = {"llama__attention__head_count_kv": u32s(4, 4, 2, 4, 8)}
    header = check_file(written(file, with_keys(stories260k, **per_layer)))
    assert kv_heads(header) == [4, 4, 2, 4, 8]


def test_empty_tokens_may_repeat(stories260k: Path, file: Path) -> None:
    spellings = [bytes(s) for s in read_header(stories260k).strings("tokenizer.ggml.tokens")]
    spellings[-2:] = [b"", b""]
    changed = with_keys(stories260k, tokenizer__ggml__tokens=strings(*spellings))
    assert check_file(written(file, changed)).metadata["general.architecture"] == "llama"


def test_a_vocabulary_is_no_model_but_a_vocabulary(data_folder: Path) -> None:
    path = data_folder / "vocab" / "ggml-vocab-llama-spm.gguf"
    with pytest.raises(ModelFileError, match="vocabulary only"):
        check_file(path)
    tokens = check_vocabulary(path).metadata["tokenizer.ggml.tokens"]
    assert tokens.count == 32000


def test_a_model_without_tokenizer_is_no_vocabulary(stories260k: Path, file: Path) -> None:
    bare = with_keys(
        stories260k, tokenizer__ggml__model=string("none"), tokenizer__ggml__tokens=None
    )
    with pytest.raises(ModelFileError, match="has no tokenizer"):
        check_vocabulary(written(file, bare))


def test_all_parts_of_a_split_model_must_be_there(stories260k: Path, tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2))
    for number, path in enumerate((first, second)):
        keys = {"split__count": u32(2), "split__no": u32(number)}
        written(path, with_keys(stories260k, **keys))
    assert parts(check_file(first)) == [first, second]
    with pytest.raises(ModelFileError, match="is part 2 of 2: expected part 1"):
        check_file(second)
    written(second, second.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="ends 1 bytes before"):
        check_file(first)
    second.unlink()
    with pytest.raises(ModelFileError, match="needs m-00002-of-00002.gguf"):
        check_file(first)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.gguf does not exist"):
        check_file(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="is a folder"):
        check_file(tmp_path)
    fifo = tmp_path / "pipe.gguf"
    if hasattr(os, "mkfifo"):
        os.mkfifo(fifo)
        with pytest.raises(ModelFileError, match="is not a file"):
            check_file(fifo)


ABORTS = "import os; os.abort()"
ABORTS_REPACKED = "import os, sys; sys.argv[2] == 'repack' and os.abort()"
REFUSES = "import sys; print('m.gguf is odd: expected even'); sys.exit(3)"
SLEEPS = "import time; time.sleep(60)"
TIMED = """
import json, os, sys
ways = {"repack": None, "cpu-repack": (62, 105, 900), "map": (60, 168, 700)}
times = ways[sys.argv[2]] or os.abort()
seconds = dict(zip(("1", "4", "64"), times)) if sys.argv[4] else {}
print(json.dumps({"seconds": seconds, "busy": os.path.exists(sys.argv[1] + ".busy")}))
"""


SLOWED = """
import json, os, sys
file = sys.argv[1] + "." + sys.argv[2]
others = 1 if os.path.exists(file) else 2
open(file, "w").close()
times = {"cpu-repack": (62, 105, 900), "map": (60, 168, 700)}[sys.argv[2]]
slower = others if sys.argv[2] == "cpu-repack" else 1
print(json.dumps({"seconds": dict(zip(("1", "4", "64"), [slower * s for s in times]))}))
"""


class TestTrial:
    """gguf_trial with children that only pretend to load."""

    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(gguf_trial, "CHILD", "pass")
        monkeypatch.setattr(gguf_trial, "is_busy", lambda: False)

    @staticmethod
    def way(file: Path, *ways: str) -> str:
        return gguf_trial.best_way([file], ways or ("repack", "map"), "1", ModelOptions())

    def test_the_first_way_that_survives_is_taken(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written(file, b"x")
        assert self.way(file) == "repack"
        written(file, b"xy")
        monkeypatch.setattr(gguf_trial, "CHILD", ABORTS_REPACKED)
        assert self.way(file) == "map"

    def test_a_file_that_kills_the_child_is_refused(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", ABORTS)
        with pytest.raises(ModelFileError, match=r"model.gguf ended llama.cpp with status -6"):
            self.way(written(file, b"x"))

    def test_a_file_the_child_refuses_is_refused_in_its_words(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", REFUSES)
        with pytest.raises(ModelFileError, match=r"\Am.gguf is odd: expected even\Z"):
            self.way(written(file, b"x"))

    def test_a_file_that_hangs_the_child_is_refused(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", SLEEPS)
        monkeypatch.setattr(gguf_trial, "START_S", 0.1)
        with pytest.raises(ModelFileError, match="did not open within"):
            self.way(written(file, b"x"), "map")

    def test_a_file_is_tried_once_until_it_changes(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.way(written(file, b"x")) == "repack"
        monkeypatch.setattr(gguf_trial, "CHILD", ABORTS)
        assert self.way(file) == "repack"
        written(file, b"longer")
        with pytest.raises(ModelFileError, match="status"):
            self.way(file)

    def test_another_library_tries_again(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.way(written(file, b"x")) == "repack"
        monkeypatch.setattr(gguf_trial, "CHILD", ABORTS_REPACKED)
        assert gguf_trial.best_way([file], ("repack", "map"), "2", ModelOptions()) == "map"

    def test_without_children_the_last_way_is_taken(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(gguf_trial.sys, "executable", "")
        assert self.way(written(file, b"x")) == "map"
        assert "opened untried" in caplog.text

    WAYS = ("repack", "cpu-repack", "map")

    @pytest.mark.parametrize(("widths", "way"), [((1,), "map"), ((1, 4), "cpu-repack")])
    def test_the_fastest_way_for_the_widths_in_use_is_taken(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, widths: tuple[int, ...], way: str
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        options, heard = ModelOptions(widths=widths), list[float]()
        options = replace(options, trying=heard.append)
        assert gguf_trial.best_way([written(file, b"x")], self.WAYS, "1", options) == way
        said = gguf_trial.in_words(timed_ways()[str(file.resolve())])
        assert said.startswith("repack fails; cpu-repack 1: 62000.0 ms, 4: 105000.0 ms, 64")
        assert heard == sorted(heard)
        assert heard[-1] == 1

    def test_a_way_that_was_slowed_while_it_was_timed_is_timed_again(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", SLOWED)
        options = ModelOptions(widths=(1, 4))
        ways = ("cpu-repack", "map")
        assert gguf_trial.best_way([written(file, b"x")], ways, "1", options) == "cpu-repack"

    def test_exact_models_are_kept_in_the_first_way_that_lives(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        options = ModelOptions(exact=True)
        assert gguf_trial.best_way([written(file, b"x")], self.WAYS, "1", options) == "cpu-repack"

    def test_what_a_busy_device_measured_is_measured_again(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        now, busy = time.time(), file.with_name(file.name + ".busy")
        busy.write_text("")
        assert self.way(written(file, b"x"), *self.WAYS) == "map"
        busy.unlink()
        monkeypatch.setattr(gguf_trial, "CHILD", ABORTS)
        assert self.way(file, *self.WAYS) == "map"
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED.replace("(62,", "(30,"))
        monkeypatch.setattr("edgespec.pace.doubt.time", lambda: now + 4000)
        assert self.way(file, *self.WAYS) == "cpu-repack"
        assert remembered([file], "1").doubt == Doubt(0.0, 1)

    def test_what_is_busy_again_is_measured_again_later_and_seldomer(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        file.with_name(file.name + ".busy").write_text("")
        assert self.way(written(file, b"x"), *self.WAYS) == "map"
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED.replace("(62,", "(30,"))
        now, n_begun, child = time.time(), [], gguf_trial._child
        monkeypatch.setattr(
            gguf_trial, "_child", lambda *args: (n_begun.append(args[1][1]), child(*args))[1]
        )
        for later_s, n in ((4000, 2), (5000, 2), (4000 + 4 * 3000, 2), (4000 + 4 * 3700, 4)):
            monkeypatch.setattr("edgespec.pace.doubt.time", lambda s=later_s: now + s)
            assert self.way(file, *self.WAYS) == "map"
            assert len(n_begun) == n, later_s
        assert set(n_begun) == {"cpu-repack", "map"}

    @pytest.mark.parametrize(("read_s", "way"), [(700, "cpu-repack"), (2200, "map")])
    def test_the_price_of_a_way_has_what_reading_a_prompt_takes(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, read_s: int, way: str
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED.replace("105, 900", f"105, {read_s}"))
        options = ModelOptions(widths=(1, 4))
        assert gguf_trial.best_way([written(file, b"x")], self.WAYS, "1", options) == way

    def test_a_choice_that_noise_may_have_made_is_made_again(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noisy = SLOWED.replace("(62, 105, 900)", "(96, 105, 900)")
        monkeypatch.setattr(gguf_trial, "CHILD", noisy)
        assert self.way(written(file, b"x"), "cpu-repack", "map") == "map"
        known = remembered([file], "1")
        assert known.noise["cpu-repack"] == pytest.approx(np.log(2))
        assert known.doubt.why == gguf_trial.NOISY
        later = time.time() + 4000
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED.replace("(62,", "(30,"))
        monkeypatch.setattr("edgespec.pace.doubt.time", lambda: later)
        assert self.way(file, "cpu-repack", "map") == "cpu-repack"

    def test_nothing_is_tried_again_while_the_device_is_busy(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        file.with_name(file.name + ".busy").write_text("")
        assert self.way(written(file, b"x"), *self.WAYS) == "map"
        known = remembered([file], "1")
        monkeypatch.setattr(gguf_trial, "CHILD", ABORTS)
        monkeypatch.setattr(gguf_trial, "is_busy", lambda: True)
        monkeypatch.setattr("edgespec.pace.doubt.time", lambda: known.doubt.since + 4000)
        assert self.way(file, *self.WAYS) == "map"
        assert remembered([file], "1") == known

    def test_a_choice_that_noise_cannot_have_made_stays(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        self.way(written(file, b"x"), *self.WAYS)
        assert remembered([file], "1").doubt == Doubt()

    def test_a_trial_that_use_contradicts_is_made_again(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        assert self.way(written(file, b"x"), *self.WAYS) == "map"
        monkeypatch.setattr(Others, "compute", False)
        self.seen(file, 60.0 * 1.15)
        assert remembered([file], "1").doubt == Doubt()
        self.seen(file, 60.0 * 1.4)
        assert "a token takes 84000.0 ms in use" in remembered([file], "1").doubt.why
        later = time.time() + 4000
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED.replace("(60,", "(84,"))
        assert self.way(file, *self.WAYS) == "map"
        monkeypatch.setattr("edgespec.pace.doubt.time", lambda: later)
        assert self.way(file, *self.WAYS) == "cpu-repack"
        assert remembered([file], "1").doubt == Doubt(0.0, 1)

    @staticmethod
    def seen(file: Path, token_s: float, n: int = ENOUGH, *, n_threads: int = 0) -> None:
        one = Seen([file], "1", "map", n_threads or n_cores())
        for _ in range(n + 1):
            one.observe(1, token_s, 100)
        one.tell()

    @pytest.mark.slow
    @pytest.mark.parametrize("why", ["busy", "few", "long", "wide", "threads"])
    def test_what_tells_nothing_contradicts_nothing(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, why: str
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        self.way(written(file, b"x"), *self.WAYS)
        monkeypatch.setattr(Others, "compute", why == "busy")
        one = Seen([file], "1", "map", n_cores() + (why == "threads"))
        for _ in range(ENOUGH - 1 if why == "few" else 2 * ENOUGH):
            one.observe(1, 600.0, 5000 if why == "long" else 100)
            if why == "wide":
                one.observe(4, 600.0, 100)
        one.tell()
        assert remembered([file], "1").doubt == Doubt()

    def test_a_way_that_died_before_is_refused_where_it_is_the_only_one(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED)
        assert self.way(written(file, b"x"), *self.WAYS) == "map"
        with pytest.raises(ModelFileError, match=r"opened by repack: .*; use --loading auto"):
            self.way(file, "repack")

    def test_a_way_that_was_not_timed_is_timed_where_there_is_a_choice(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gguf_trial, "CHILD", TIMED.replace("(62,", "(30,"))
        assert self.way(written(file, b"x"), "map") == "map"
        assert self.way(file, *self.WAYS) == "cpu-repack"

    def test_a_spoilt_memory_is_forgotten(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "models-tried.json").write_text("[1, 2")
        assert self.way(written(file, b"x")) == "repack"
        monkeypatch.setattr(gguf_trial, "CHILD", ABORTS)
        assert self.way(file) == "repack"


@pytest.mark.slow
def test_random_damage_never_ends_the_process(stories260k: Path, tmp_path: Path) -> None:
    """Each damaged file in a forked child: it opens and computes, or is refused in one line."""
    pytest.importorskip("llama_cpp")
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    from edgespec.backends.llamacpp.library import library

    library()
    file, failed = tmp_path / "model.gguf", []
    for name, data in random_damage(stories260k, 400, seed=20):
        written(file, data)
        child = os.fork()
        if child == 0:
            os._exit(_opens_or_refuses(file))
        _, status = os.waitpid(child, 0)
        if status:
            failed.append((name, status))
    assert failed == []


def _opens_or_refuses(file: Path) -> int:
    import signal

    from edgespec.backends.llamacpp.model import LlamaCppModel

    signal.alarm(120)
    os.environ["GGML_NO_BACKTRACE"] = "1"
    try:
        model = LlamaCppModel(file, ModelOptions(n_context=64, n_threads=1), loading="map")
        for n in (1, 9):
            model.forward([token % model.n_vocab for token in range(n)])
        model.tokenizer.encode("once <s> upon a time é", special=True, bos=True)
        for token in range(model.n_vocab):
            model.tokenizer.piece(token)
    except EdgeSpecError as error:
        return 1 if "\n" in str(error) else 0
    except BaseException:
        return 2
    return 0


def test_a_tensor_helper_changes_what_it_names(stories260k: Path, file: Path) -> None:
    changed = with_tensor(stories260k, "blk.0.attn_q.weight", name="renamed")
    assert "renamed" in read_header(written(file, changed)).tensors
