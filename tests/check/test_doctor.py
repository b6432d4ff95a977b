"""The doctor's judgement: overlap, memory, break-even, advice; and the command's report."""

from __future__ import annotations

import json
import shutil
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import pytest
from edgespec.export.trim.head import trim, vocabulary_path
from gguf_maker import ARRAY, Gguf, string, strings, u32, u32s, with_keys
from hybrid_maker import make as make_recurrent
from hypothesis import given, settings
from hypothesis import strategies as st
from model_maker import DEMO
from onnx_maker import dynamic_folder, opened
from vocab_maker import GreedyTokenizer, vocabularies, vocabulary
from width_model import WidthModel
from window_maker import make as make_windowed

from edgespec.backends import ModelOptions, open_model
from edgespec.backends.exact import Exact
from edgespec.backends.fake import TableModel
from edgespec.backends.filling import filling_of
from edgespec.backends.llamacpp import library as llamacpp_library
from edgespec.backends.llamacpp.library import library
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.backends.onnx.inputs import inputs_of
from edgespec.backends.preview import Cache, Preview, preview
from edgespec.check.doctor import report as reporting
from edgespec.check.doctor import suited
from edgespec.check.doctor import trial as trying
from edgespec.check.doctor.advice import notes, percent, recommendation, vocabulary_line
from edgespec.check.doctor.breakeven import fastest, least, widths_of
from edgespec.check.doctor.memory import memory_of
from edgespec.check.doctor.overlap import kind_of, overlap_of, text_share
from edgespec.check.doctor.report import Report, examine, judged
from edgespec.check.doctor.special import special_of
from edgespec.check.doctor.suited import known_pairs, suited_drafters
from edgespec.check.doctor.trial import Trial, costs_now, step_seconds
from edgespec.cli import doctor as command
from edgespec.cli import main
from edgespec.drafters.bridges.coverage import coverage
from edgespec.drafters.bridges.mapping import Mapping
from edgespec.drafters.bridges.pairing import vocabulary_of
from edgespec.errors import ModelFileError, TokenizerError, UsageError
from edgespec.pace.cost import CostTable
from edgespec.session.session import Session
from edgespec.store import pairs
from edgespec.text.vocabulary import Vocabulary
from edgespec.types import Draft

TARGET, FOREIGN = DEMO.with_name("target.gguf"), DEMO.with_name("foreign.gguf")
OPTIONS = ModelOptions(n_threads=1, device="cpu")
TEXTS = ["Once upon a time, there was a fox.", "I want to see a film tonight."]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder for all tests of a run, an even shorter trial, a wide terminal."""
    monkeypatch.setenv("EDGESPEC_HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(trying, "TRIAL_TOKENS", 8)


def vocabulary_file(path: Path, source: Path = DEMO, **changes: bytes) -> Path:
    """A vocabulary without weights; `__` in a key stands for a point."""
    made = Gguf.read(source)
    made.keys |= {key.replace("__", "."): value for key, value in changes.items()}
    made.tensors, made.data = {}, b""
    path.write_bytes(made.bytes())
    return path


def diffusion_file(path: Path) -> Path:
    """The same vocabulary in a model that writes by diffusion."""
    made = Gguf.read(vocabulary_file(path))
    for name, value in list(made.keys.items()):
        if name.startswith("llama."):
            made.keys["llada." + name[6:]] = value
    made.keys["general.architecture"] = string("llada")
    path.write_bytes(made.bytes())
    return path


@cache
def listed(path: Path) -> tuple[list[str], list[int]]:
    """Spellings and types of a file's tokens."""
    fields = gguf.GGUFReader(path).fields
    names = ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type")
    tokens, kinds = (fields[name].contents() for name in names)
    return tokens, kinds


def longer_file(path: Path, *more: str, kind: int) -> Path:
    """The demo vocabulary with more tokens of one type at its end."""
    tokens, kinds = listed(DEMO)
    kinds = [*kinds, *[kind] * len(more)]
    return vocabulary_file(
        path,
        tokenizer__ggml__tokens=strings(*tokens, *more),
        tokenizer__ggml__token_type=struct.pack(f"<IIQ{len(kinds)}i", ARRAY, 5, len(kinds), *kinds),
    )


def judge(target: Path, draft: Path | None = None, *, free: int | None = 1 << 40) -> Report:
    return examine(target, draft, (OPTIONS, OPTIONS), TEXTS, free)


def side(**changes: object) -> Preview:
    """A made-up model of 40 MiB with 1 MiB of cache for 256 tokens."""
    made = Preview(
        Path("m.gguf"), "llamacpp", "llama", "Q4_0", 200_000_000, 40 * MIB, 0, 100, None, None,
        Cache(4096, 2048, 256), more_context=1.5,
    )  # fmt: skip
    return replace(made, **changes)


def report(**changes: object) -> Report:
    """Of a made-up pair of one vocabulary that was measured: 80 % accepted, cheap drafts."""
    one = vocabulary("the", "cat")
    made = Report(
        side(), side(), overlap_of(one, one, ["the cat"]), None, memory_of(side(), side(), 0, None),
        trial=Trial(CostTable((0.01, 0.012, 0.014, 0.016, 0.018)), 0.001, 100, 80),
    )  # fmt: skip
    return replace(made, **changes)


# Vocabularies


def spelled(path: Path) -> set[bytes]:
    """The byte strings of a vocabulary by the gguf package and the byte-level letters alone."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}
    return {
        bytes(letters[letter] for letter in token)
        for token, kind in zip(*listed(path), strict=True)
        if kind == gguf.TokenType.NORMAL
    }


def test_a_file_beside_it_whose_vocabulary_cannot_be_read_does_not_suit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizers = list[LlamaCppTokenizer]()

    def unreadable(tokenizer: LlamaCppTokenizer, n_vocab: int) -> Vocabulary:
        tokenizers.append(tokenizer)
        raise TokenizerError("the model has no vocabulary: expected one")

    monkeypatch.setattr(suited, "vocabulary_of", unreadable)
    assert suited_drafters(side(weights_bytes=1 << 40), vocabulary("the"), None) == []
    assert tokenizers and all(is_closed(one) for one in tokenizers)


def is_closed(tokenizer: LlamaCppTokenizer) -> bool:
    try:
        return not tokenizer.vocab
    except TokenizerError:
        return True


@pytest.mark.parametrize("order", [1, -1])
def test_a_missing_side_leaves_no_vocabulary_open(
    order: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[Preview]()

    def noted(path: Path, options: ModelOptions) -> Preview:
        seen.append(preview(path, options))
        return seen[-1]

    monkeypatch.setattr(reporting, "preview", noted)
    with pytest.raises(ModelFileError, match=r"none\.gguf"):
        judge(*[TARGET, tmp_path / "none.gguf"][::order])
    assert all(is_closed(one.tokenizer) for one in seen)


def test_overlap_of_the_bundled_pair_is_an_independent_count() -> None:
    found = judge(TARGET, FOREIGN).overlap
    assert found is not None
    ours, theirs = spelled(TARGET), spelled(FOREIGN)
    assert (found.n_target_spelled, found.n_draft_spelled) == (len(ours), len(theirs))
    assert found.n_shared == found.n_proposable == len(ours & theirs) > 500
    assert found.kind == "other"
    assert found.target_share == len(ours & theirs) / len(ours)
    assert found.draft_share == len(ours & theirs) / len(theirs)


@settings(max_examples=30, deadline=None)
@given(vocabularies(), vocabularies(), st.text("ab é語\n", max_size=30))
def test_shares_are_those_that_the_bridges_see(
    target: Vocabulary, draft: Vocabulary, text: str
) -> None:
    known = coverage(Mapping(draft, target), [text.encode()], [])
    found = overlap_of(target, draft, [text])
    assert (found.draft_share, found.target_share) == (known.draft, known.target)
    if target.adds_space == draft.adds_space:  # else a token of that space alone counts or not
        assert found.text_share == pytest.approx(known.natural.direct)


def test_running_text_is_compared_where_it_stands() -> None:
    target, draft = vocabulary("the", " cat", "sat"), vocabulary("the", " ca", "sat")
    assert text_share(target, draft, ["the cat"]) == 1 / 2
    assert text_share(target, draft, ["the cat", "sat"]) == 2 / 3
    assert text_share(vocabulary("cat"), vocabulary("at"), ["cat"]) == 0
    opening = vocabulary(" the", " cat", adds_space=True)
    assert text_share(opening, vocabulary("the", " cat"), ["the cat"]) == 1 / 2
    # A second token " ", which the tokenizer uses at the start, is not the one that is translated.
    pieces = [b" ", b"\n", b"a", b" ", b"\n "]
    once, twice = (GreedyTokenizer(pieces[:n], adds_space=True) for n in (3, 5))
    assert text_share(Vocabulary(once, 3), Vocabulary(twice, 5), ["\n"]) == 1 / 2
    assert text_share(target, target, []) == 0


def test_a_text_that_the_drafter_cannot_spell_counts_as_missed() -> None:
    poor = GreedyTokenizer([b"a", b"b"])
    assert text_share(vocabulary(), Vocabulary(poor, 2), ["ab", "zz"]) == 2 / 4


def test_a_trimmed_head_proposes_what_it_has_rows_for() -> None:
    one = vocabulary("the", "cat")
    found = overlap_of(one, one, ["the"], np.array([97, 259], np.int32))
    assert (found.kind, found.n_shared, found.n_proposable) == ("same", 258, 2)


@pytest.mark.parametrize(
    ("kind", "more", "expected", "n_unused"),
    [
        (gguf.TokenType.UNUSED, ("[PAD4096]", "[PAD4097]"), "padded", 2),
        (gguf.TokenType.USER_DEFINED, ("[PAD4096]",), "padded", 1),
        (gguf.TokenType.CONTROL, ("<|tool|>",), "control", 0),
        (gguf.TokenType.USER_DEFINED, ("zebra",), "other", 0),
    ],
)
def test_more_tokens_at_the_end_are_told_apart(
    tmp_path: Path, kind: int, more: tuple[str, ...], expected: str, n_unused: int
) -> None:
    longer = longer_file(tmp_path / "longer.gguf", *more, kind=kind)
    found = judge(longer, DEMO).overlap
    assert found is not None
    assert (found.kind, found.n_unused) == (expected, n_unused)
    assert found.n_shared == len(spelled(DEMO))


def test_every_id_is_compared() -> None:
    words = ["a1", "b2", "c3"]
    assert kind_of(vocabulary(*words), vocabulary(*words)) == "same"
    assert kind_of(vocabulary(*words), vocabulary("a1", "c3", "b2")) == "other"
    one, other = vocabulary(), vocabulary()
    other.tokenizer.control[258] = "<turn>"  # type: ignore[attr-defined]
    assert kind_of(one, other) == "control"


def test_templates_and_control_tokens_are_compared(tmp_path: Path) -> None:
    same, foreign = judge(TARGET, DEMO).special, judge(TARGET, FOREIGN).special
    assert same is not None
    assert foreign is not None
    assert (same.template, same.differing) == ("same", [])
    assert foreign.template == "different"
    assert foreign.roles["end_of_turn"] == ("<|end|>", "<|im_end|>")
    bare = Gguf.read(vocabulary_file(tmp_path / "bare.gguf"))
    del bare.keys["tokenizer.chat_template"]
    (tmp_path / "bare.gguf").write_bytes(bare.bytes())
    pairs = [(TARGET, "target only"), (tmp_path / "bare.gguf", "none")]
    for target, expected in pairs:
        found = judge(target, tmp_path / "bare.gguf").special
        assert found is not None
        assert found.template == expected


def test_templates_are_compared_by_what_they_write() -> None:
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tools = "{% if tools %}{{ tools }}{% endif %}"
    asks = "{% if add_generation_prompt %}assistant: {% endif %}"

    def special(one: str, other: str) -> str:
        sides = vocabulary(), vocabulary()
        for side, source in zip(sides, (one, other), strict=True):
            side.tokenizer.chat_template = source
        return special_of(*sides).template

    assert special(plain + asks, tools + plain + asks) == "same"
    assert special(plain, plain + asks) == "different"
    assert special(plain, plain.replace("messages", "messages[:3]")) == "different"
    assert special(plain, "You are kind.\n" + plain) == "different"
    assert special("{% broken", "{%   broken") == "same"
    assert special("{% broken", plain) == "different"


# Files


def test_a_preview_knows_what_opening_finds() -> None:
    options = ModelOptions(n_context=300, n_threads=1, device="cpu")
    seen, model = preview(TARGET, options), open_model(TARGET, options)
    assert seen.cache is not None
    assert seen.cache.n_bytes(300) == model.kv_bytes
    assert (seen.n_vocab, seen.n_params) == (model.n_vocab, model.n_params)
    assert (seen.quant, seen.architecture) == ("F16", "llama")
    assert seen.weights_bytes == TARGET.stat().st_size
    seen.close()
    model.close()


def test_a_preview_counts_the_cache_as_it_is_kept(stories260k: Path) -> None:
    whole, small = (preview(TARGET, replace(OPTIONS, kv_type=one)) for one in ("f16", "q8_0"))
    assert small.cache is not None and whole.cache is not None
    assert small.cache.n_bytes(256) == whole.cache.n_bytes(256) * 17 // 32
    for seen in (whole, small):
        seen.close()
    with pytest.raises(UsageError, match="a cache in q8_0 does not fit the heads of 8 in stories"):
        preview(stories260k, replace(OPTIONS, kv_type="q8_0"))


@pytest.mark.parametrize(
    ("file_type", "quant"),
    [(15, "Q4_K - Medium"), (7, "Q8_0"), (0, "all F32"), (999, "F16"), (None, "F16")],
)
def test_a_preview_has_the_files_own_word_for_its_quantization(
    file_type: int | None, quant: str, tmp_path: Path
) -> None:
    """Most weights of a file called Q4_K_M can be of another type; a file may not say."""
    path = tmp_path / "m.gguf"
    value = None if file_type is None else u32(file_type)
    path.write_bytes(with_keys(DEMO, general__file_type=value))
    seen = preview(path, OPTIONS)
    seen.close()
    assert seen.quant == quant


def test_an_onnx_folder_is_judged_by_its_files() -> None:
    folder = dynamic_folder(DEMO)
    model, seen = opened(folder, 96), preview(folder, OPTIONS)
    assert seen.cache is not None
    assert seen.cache.n_bytes(96) == model.kv_bytes > 0
    assert seen.cache.n_bytes(9999) == seen.cache.n_bytes(1024) > seen.cache.n_bytes(1000)
    assert (seen.backend, seen.n_vocab, seen.problems) == ("onnx", model.n_vocab, ())
    assert seen.weights_bytes > 4 * model.n_params
    seen.close()
    model.close()


def test_an_onnx_drafter_overlaps_by_its_own_tokenizer() -> None:
    found = judge(TARGET, dynamic_folder(DEMO))
    assert found.overlap is not None
    assert found.overlap.kind == "same"
    assert found.works


@pytest.mark.parametrize("n_kept", [0, 7, 2000])
def test_half_a_graph_is_no_graph(tmp_path: Path, n_kept: int) -> None:
    whole = (dynamic_folder(DEMO) / "model.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[:n_kept])
    with pytest.raises(ModelFileError, match="is no complete ONNX graph"):
        inputs_of(tmp_path / "half.onnx")


@pytest.mark.slow
def test_a_trimmed_drafter_is_judged_with_its_vocabulary(tmp_path: Path) -> None:
    out = tmp_path / "trimmed.gguf"
    trim(DEMO, out, np.arange(1000, dtype=np.int32))
    found = judge(TARGET, out)
    assert found.overlap is not None
    assert found.overlap.kind == "same"
    assert found.overlap.n_proposable == len({*pieces(DEMO)[:1000]} - {b""})
    assert any("can propose" in note for note in notes(found))
    assert [p for p in judge(out).problems if "trimmed head (1,000 rows)" in p]
    vocabulary_path(out).unlink()
    assert [p for p in judge(TARGET, out).problems if "needs trimmed" in p]


def pieces(path: Path) -> list[bytes]:
    tokenizer = LlamaCppTokenizer.open(path)
    return vocabulary_of(tokenizer, tokenizer.n_vocab).pieces


@pytest.mark.parametrize(
    ("name", "expected"),
    [("llada", "writes by diffusion"), ("wombat", "unknown model architecture: 'wombat'")],
)
def test_models_that_cannot_run_are_problems(tmp_path: Path, name: str, expected: str) -> None:
    path = tmp_path / f"{name}.gguf"
    if name == "llada":
        diffusion_file(path)
    else:
        vocabulary_file(path, general__architecture=string(name))
    for pair in ((path, None), (TARGET, path), (path, path)):
        found = judge(*pair)
        assert len(found.problems) == pair.count(path)
        assert all(expected in problem for problem in found.problems)
        assert recommendation(found).startswith("this cannot work here: ")
        assert ("--drafter ngram" in recommendation(found)) == (pair[0] == TARGET)


def test_two_threads_that_open_models_have_one_library_and_their_own_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib, path = library(), vocabulary_file(tmp_path / "w.gguf", general__architecture=string("w"))
    lib.forget_errors()
    assert not lib.api.llama_model_load_from_file(bytes(path), lib.api.llama_model_default_params())
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lib.forget_errors).result()
        assert pool.submit(lib.last_error).result() == ""
    assert lib.last_error() == "unknown model architecture: 'w'"
    made = list[int]()

    def slowly() -> int:
        made.append(0)
        time.sleep(0.05)
        return len(made)

    monkeypatch.setattr(llamacpp_library, "_only", cache(slowly))
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: library(), range(2))) == [1, 1]


def test_what_llama_cpp_makes_of_a_token_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens, _ = listed(DEMO)
    spelled = strings(*tokens[:-1], "<|endoftext|>")  # of type normal
    path = vocabulary_file(tmp_path / "v.gguf", tokenizer__ggml__tokens=spelled)
    with caplog.at_level("DEBUG", "edgespec.llamacpp"):
        preview(path, OPTIONS).close()
    said = [one for one in caplog.records if "control-looking" in one.message]
    assert said
    assert {one.levelname for one in said} == {"DEBUG"}


def test_metadata_that_contradicts_itself_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    made = Gguf.read(DEMO)
    made.keys["llama.attention.head_count_kv"] = u32s(3, 3, 3)
    (tmp_path / "odd.gguf").write_bytes(made.bytes())
    assert judge(tmp_path / "odd.gguf").problems


# Memory


def test_the_largest_context_that_fits_is_found() -> None:
    needed = 40 * MIB + 8 * MIB  # 2,048 tokens
    exactly = memory_of(side(), None, 0, needed)
    assert (exactly.n_bytes, exactly.fits, exactly.most_context) == (needed, True, 2048)
    less = memory_of(side(), None, 0, needed - 1)
    assert (less.fits, less.most_context) == (False, 1792)
    least_bytes = 41 * MIB
    assert memory_of(side(), None, 0, least_bytes).most_context == 256
    assert memory_of(side(), None, 0, least_bytes - 1).most_context == 0
    assert memory_of(side(), None, 1000, 1 << 40).target.n_context == 1000


def test_a_context_beyond_what_the_target_was_made_for_is_not_counted() -> None:
    found = memory_of(side(), None, 5000, 1 << 40)
    assert (found.target.n_context, found.most_context, found.asked) == (2048, 2048, 5000)
    assert notes(report(memory=found)) == [
        "the target was made for 2,048 tokens of context: beyond those, of the 5,000 asked for, "
        "its answers get worse"
    ]
    assert notes(report(memory=memory_of(side(), None, 2048, 1 << 40))) == []


def test_a_drafter_of_another_vocabulary_gets_a_larger_context() -> None:
    found = memory_of(side(), side(n_vocab=99), 1024, 1 << 40)
    assert found.drafter is not None
    assert found.drafter.kv_bytes == 1536 * 4096
    assert found.n_bytes == found.target.n_bytes + found.drafter.n_bytes


@pytest.mark.parametrize("change", [{"shares_memory": False}, {"n_params": 0}, {"cache": None}])
def test_what_cannot_be_told_is_not_claimed(change: dict[str, object]) -> None:
    found = memory_of(side(), side(**change), 0, 1)
    assert (found.free_bytes, found.fits, found.most_context) == (None, None, None)


def test_a_model_that_is_too_big_is_a_problem() -> None:
    found = judged([side(), side()], 0, TEXTS, 60 * MIB)
    assert found.problems[0].startswith("both models take 86.0 MB even with the smallest context")
    tight = judged([side(), side()], 0, TEXTS, 85 * MIB)
    assert tight.works
    assert "use -c 512" in notes(tight)[0]


# When drafting pays


def test_break_even_is_where_a_round_pays_for_itself() -> None:
    widths = widths_of(CostTable((1.0, 1.2, 1.4, 1.6, 1.8)), 0.1)
    assert [width.k for width in widths] == [1, 2, 3, 4]
    assert [width.round for width in widths] == pytest.approx([1.3, 1.6, 1.9, 2.2])
    assert widths[0].acceptance == pytest.approx(0.3)
    for width in widths:
        assert width.acceptance is not None
        assert width.speed(width.acceptance) == pytest.approx(1.0, abs=1e-6)
    assert least(widths) == widths[0]
    assert (fastest(widths, 0.3).k, fastest(widths, 0.9).k) == (1, 4)


def test_no_acceptance_pays_where_a_round_costs_all_that_it_can_emit() -> None:
    widths = widths_of(CostTable((1.0, 1.2, 3.0)), 0.8)
    assert [width.acceptance for width in widths] == [None, None]
    assert least(widths) is None
    just = widths_of(CostTable((1.0, 1.2)), 0.79)
    assert just[0].acceptance == pytest.approx(0.99)


@settings(max_examples=50)
@given(
    st.lists(st.floats(0.1, 10), min_size=2, max_size=20), st.floats(0, 5), st.floats(0.01, 0.99)
)
def test_above_break_even_a_round_is_faster(
    seconds: list[float], step_s: float, acceptance: float
) -> None:
    widths = widths_of(CostTable(tuple(seconds)), step_s)
    assert len(widths) == min(len(seconds) - 1, 16)
    for width in widths:
        pays = width.acceptance is not None and acceptance > width.acceptance + 1e-6
        unpaid = width.acceptance is None or acceptance < width.acceptance - 1e-6
        assert not (pays and width.speed(acceptance) < 1)
        assert not (unpaid and width.speed(acceptance) > 1)


class Steady:
    """A speculator whose tokens take a second each, the first draft ten more."""

    name = "steady"

    def __init__(self, n_tokens: int) -> None:
        self.now_s, self.n_tokens, self.asked = 10.0, n_tokens, list[int]()

    def propose(self, context: list[int], room: int, drawing: None) -> Draft:
        self.asked.append(len(context))
        self.now_s += self.n_tokens + (10 if len(self.asked) == 1 else 0)
        return Draft((7,) * self.n_tokens)


def test_a_draft_step_is_timed_once_the_prompt_is_read() -> None:
    drafter = Steady(4)
    assert step_seconds(drafter, [1, 2], clock=lambda: drafter.now_s) == 1.0
    assert drafter.asked[:3] == [2, 6, 10]
    assert step_seconds(Steady(0), [1, 2]) is None


def test_the_price_of_exact_is_that_of_filling_a_token_up() -> None:
    model, now = WidthModel(lambda n: n), [0.0]

    def clock() -> float:
        now[0] += model.widths[-1] if model.widths else 1.0
        return now[0]

    assert filling_of(model, clock=clock) is None
    assert filling_of(Exact(model, (1, 2)), clock=clock) == 1.0
    assert filling_of(Exact(model, (4,)), clock=clock) == 4.0
    trial = Trial(CostTable((1.0, 1.1)), 0.1, 10, 8, filling=1.131)
    assert any("a token takes 1.13 times what" in one for one in notes(report(trial=trial)))


def test_kept_costs_are_scaled_to_what_a_token_takes_now() -> None:
    class Slow:
        length, now_s = 3, 0.0

        def forward(self, tokens: list[int]) -> None:
            self.now_s += 4.0 if self.now_s else 9.0

        def truncate(self, n: int) -> None:
            assert n == 3

    model = Slow()
    found, slowdown = costs_now(CostTable((3.0, 4.5)), model, clock=lambda: model.now_s)
    assert slowdown == 4 / 3
    assert found.seconds == (4.0, 6.0)


def test_kept_costs_that_are_another_story_are_measured_again() -> None:
    model = TableModel(lambda _: np.array([0.5, 0.5], np.float32), 2)
    seen = iter(range(10_000))
    found, slowdown = costs_now(CostTable((9.0, 9.0)), model, clock=lambda: next(seen) / 100)
    assert slowdown == pytest.approx(1 / 900)
    assert found.seconds[:2] == pytest.approx((0.01, 0.01))
    assert len(found.seconds) > 2
    assert model.length == 0


# Advice


def test_a_drafter_that_pays_is_recommended() -> None:
    said = recommendation(report())
    assert said.startswith("use it: 80% of 100 drafted tokens were right")
    assert "from 30% on (1 token a round)" in said
    assert said.endswith("3 tokens a round would be 1.6 times as fast as none")
    alone = recommendation(report(drafter=None, overlap=None))
    assert alone.startswith("use --drafter ngram: ")


def test_a_drafter_that_does_not_pay_is_not() -> None:
    trial = report().trial
    assert trial is not None
    poor = report(trial=replace(trial, n_accepted=10), suited=(Path("other.gguf"),))
    assert recommendation(poor).startswith("not this drafter: 10% of 100 drafted tokens")
    assert "try -md other.gguf" in recommendation(poor)
    assert not notes(poor)
    hardly = report(trial=replace(trial, n_accepted=32))
    assert recommendation(hardly).startswith("it hardly pays: ")


def test_another_vocabulary_is_told_in_whole_sentences() -> None:
    one, other = vocabulary("the", "cat"), vocabulary("the", "c", "at")
    overlap = replace(
        overlap_of(one, other, []),
        text_share=0.9996,
        n_shared=999,
        n_draft_spelled=1000,
        n_target_spelled=1001,
    )
    told = (
        "the drafter has another vocabulary, so its tokens would be translated (99% of a mixed "
        "text falls into the same ones); "
    )
    unknown = "the target's own vocabulary would need none of that; nothing was measured (--quick)"
    found = report(overlap=overlap, trial=None, untried="--quick")
    assert recommendation(found) == f"{told}a drafter with {unknown}"
    suited = replace(found, suited=(Path("own.gguf"),))
    assert recommendation(suited) == f"{told}-md own.gguf with {unknown}"
    assert vocabulary_line(overlap) == (
        "another: the drafter has 99.8% of the target's tokens, the target 99.9% of the drafter's; "
        "99% of a short mixed text (news, code, a letter, German) falls into the same tokens"
    )
    assert percent(1.0) == "100%"


def test_a_target_alone_is_told_how_to_be_measured() -> None:
    alone = report(drafter=None, overlap=None, trial=None, untried="--quick")
    assert recommendation(alone) == ("nothing was measured (--quick): leave --quick out to measure")


def test_a_neighbour_that_is_a_link_is_named_by_the_link(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    for source, name in ((TARGET, "target.gguf"), (DEMO, "small.gguf"), (DEMO, "too.gguf")):
        blob = blobs / source.stem
        shutil.copy(source, blob)
        (snapshot / name).symlink_to(blob)
    found = judge(snapshot / "target.gguf", FOREIGN).suited
    assert found == (pairs.folder() / "demo" / "drafter.gguf", snapshot / "small.gguf")
    assert judge(snapshot / "target.gguf", snapshot / "small.gguf").suited == ()


def test_control_characters_of_a_file_are_shown_as_pictures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = vocabulary_file(tmp_path / "v.gguf", tokenizer__chat_template=string("x"))
    link = tmp_path / "a\x1b[2Jb.gguf"
    link.symlink_to(path)
    assert run(capsys, "-m", link, "-md", FOREIGN, "--quick")[1].count("\u241b[2Jb") >= 1


def test_a_slow_drafter_is_called_that() -> None:
    trial = Trial(CostTable((0.01, 0.013, 0.02, 0.024)), 0.008, 100, 99)
    assert recommendation(report(trial=trial)) == (
        "no drafter: a draft step costs 0.80 of a target token and verifying 4 tokens 2.4, so no "
        "acceptance pays; use --drafter ngram or --speculative off"
    )
    dear = Trial(CostTable((0.01, 0.02)), 0.008, 100, 99)
    assert recommendation(report(trial=dear)).endswith("pays; use --speculative off")


def test_nothing_is_promised_that_was_not_measured() -> None:
    quick = report(trial=None, untried="--quick")
    assert "was not measured (--quick)" in recommendation(quick)
    assert not notes(quick)
    busy = report(trial=Trial(CostTable((0.01, 0.012)), 0.001, 100, 80, slowdown=3.0))
    assert notes(busy)[0].startswith("a token takes 3.0 times what it took")
    assert recommendation(busy).startswith("the device was too busy to tell: run this again")
    crowded = report(trial=Trial(CostTable((0.01, 0.012)), 0.001, 100, 80, load=1.4))
    assert notes(crowded)[0].startswith("1.4 programs wanted each core in the last minute")
    assert recommendation(crowded).startswith("the device was too busy to tell: run this again")
    silent = report(trial=Trial(CostTable((1.0, 1.1)), None, 0, 0))
    assert "proposed nothing" in recommendation(silent)


@pytest.mark.parametrize(
    ("quant", "verify", "n_params", "expected"),
    [
        ("Q4_0", 2.4, 200_000_000, "verifying 4 tokens costs 2.4x one here"),
        ("Q4_0", 1.5, 200_000_000, ""),
        ("Q4_0", 2.4, 9_000_000, ""),
        ("all F32", 1.4, 200_000_000, "in 4 bits a target answers a little differently"),
        ("F16", 1.4, 200_000_000, "in 4 bits a target answers a little differently"),
    ],
)
def test_other_quantizations_are_named_with_where_they_were_measured(
    quant: str, verify: float, n_params: int, expected: str
) -> None:
    costs = CostTable((0.01, 0.012, 0.014, 0.01 * verify))
    found = notes(
        report(target=side(quant=quant, n_params=n_params), trial=Trial(costs, 0.001, 9, 8))
    )
    assert [note.startswith(expected) for note in found] == [True] * bool(expected)
    assert all("elsewhere (" in note for note in found)
    assert ("--precision int8-channel" in "".join(found)) == expected.startswith("verifying")


def test_known_pairs_are_found_by_the_name_of_the_target() -> None:
    assert "qwen2.5-7b" in known_pairs(Path("x/Qwen2.5-7B-Instruct.Q8_0.gguf"))
    assert "qwen2.5-7b" in known_pairs(Path("qwen2.5-7b-instruct-fp16-00001-of-00004.gguf"))
    assert "llama-3.2-3b" in known_pairs(Path("Llama-3.2-3B-Instruct-IQ4_XS.gguf"))
    assert known_pairs(Path("unheard-of-7b-q4_0.gguf")) == []
    noted = notes(report(known=("llama-3.2-3b",)))
    assert noted == ["known pairs for this target: llama-3.2-3b (`edgespec models show "
                     "llama-3.2-3b`)"]  # fmt: skip


@pytest.mark.slow
def test_a_drafter_must_be_much_smaller_to_be_named(tmp_path: Path) -> None:
    target, draft = tmp_path / "target.gguf", tmp_path / "z.gguf"
    for name in ("target.gguf", "twin.gguf"):
        shutil.copy(TARGET, tmp_path / name)
    shutil.copy(DEMO, draft)
    bundled = pairs.folder() / "demo" / "drafter.gguf"
    assert judge(target, FOREIGN).suited == (bundled.resolve(), draft.resolve())
    assert judge(target).suited == judge(target, FOREIGN).suited
    assert judge(target, draft).suited == ()


# The command


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["doctor", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.slow
def test_the_demo_pair_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    file = tmp_path / "doctor.json"
    code, out, _ = run(capsys, "-t", 1, "--json", file)
    assert code == 0
    assert "vocabulary: the same, id for id" in out
    assert "rows of logits" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 60
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["schema"] == "edgespec.doctor/1"
    measured = found["measured"]
    assert len(measured["verify_s"]) == 17
    assert [width["k"] for width in measured["widths"]] == list(range(1, 17))
    assert measured["draft_step_s"] > 0
    assert measured["trial"]["n_tested"] > 50
    assert found["works"]
    assert found["recommendation"] in " ".join(out.split())
    documented = str(command.__doc__)
    keys = {*found, *measured, *measured["widths"][0], *found["memory"], *found["overlap"]}
    assert not [key for key in keys if key not in documented]


def test_another_vocabulary_names_the_drafter_that_suits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "--pair", "demo-foreign", "--quick", "--json", "-")
    assert code == 0
    found = json.loads(out)
    bundled = str((pairs.folder() / "demo" / "drafter.gguf").resolve())
    assert found["suited"][0] == bundled
    assert found["known_pairs"] == []
    assert found["measured"] is None
    assert "--quick" in found["not_measured"]
    assert bundled in found["recommendation"]


def test_a_pair_that_cannot_work_ends_with_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(capsys, "-m", TARGET, "-md", diffusion_file(tmp_path / "llada.gguf"))
    assert code == 1
    assert "problem:    llada.gguf writes by diffusion" in out
    assert "advice:     this cannot work here" in out
    monkeypatch.setattr(command, "free_memory", lambda: 20 * MIB)
    code, out, _ = run(capsys, "-m", TARGET, "-md", DEMO)
    assert code == 1
    assert "both models take" in out


def test_a_smaller_context_is_used_where_the_usual_one_does_not_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed, contexts = judge(TARGET, DEMO).memory.n_bytes, list[int]()

    def seen(session: Session, _: object) -> Trial:
        contexts.append(session.target.n_context)
        return Trial(CostTable((1.0, 1.1)), 0.1, 10, 8)

    monkeypatch.setattr(command, "free_memory", lambda: needed - 4 * MIB)
    monkeypatch.setattr(command, "tried", seen)
    code, out, _ = run(capsys, "-m", TARGET, "-md", DEMO)
    assert (code, contexts) == (0, [512])
    assert "does not fit" in out
    assert "use -c 512" in out


def test_the_load_is_that_before_anything_was_opened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying.os, "getloadavg", lambda: (3.0, 0.0, 0.0))
    monkeypatch.setattr(trying, "n_cores", lambda: 2)
    made = Trial(CostTable((1.0, 1.1)), 0.1, 10, 8)
    monkeypatch.setattr(command, "tried", lambda *_: made)
    code, out, _ = run(capsys, "-m", TARGET, "-md", DEMO, "--json", "-")
    assert (code, json.loads(out)["measured"]["load"]) == (0, 1.5)
    assert json.loads(out)["recommendation"].startswith("the device was too busy to tell")


def test_a_trial_that_fails_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Trial:
        raise ModelFileError("m.gguf ended llama.cpp: expected a sound model")

    monkeypatch.setattr(command, "tried", fail)
    code, out, _ = run(capsys)
    assert code == 1
    assert "problem:    m.gguf ended llama.cpp" in out


def test_a_vocabulary_alone_is_judged_without_measuring(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = vocabulary_file(tmp_path / "v.gguf")
    code, out, _ = run(capsys, "-m", path, "-md", FOREIGN)
    assert code == 0
    assert "a vocabulary without weights" in " ".join(out.split())
    assert "costs:" not in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-m", "nothing.gguf"], "nothing.gguf does not exist: expected a model file"),
        (["-md", "nothing.gguf"], "nothing.gguf does not exist: expected a model file"),
        (["-m", "no-such-folder"], "no-such-folder does not exist: expected a model file"),
        (["-m", __file__], "has ending '.py': expected .gguf"),
        (["-dev", "npu", "--quick"], "device 'npu' is not here: expected one of auto, cpu"),
        (["x.gguf"], "unrecognized arguments: x.gguf: a model is given with -m: see"),
        (["--json", "no/such/folder/x", "--quick"], "expected a file to write"),
        (["--bridge", "tli"], "--bridge tli: the drafter has the target's vocabulary"),
    ],
)
def test_bad_input_is_one_line_and_ends_with_2(
    capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert expected in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("lfm2", "(up to 16 tokens are taken back for free)"),
        ("mamba2", "(copied each round, and what stays is read again)"),
    ],
)
def test_a_recurrent_memory_is_told(
    kind: str, how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make_recurrent(tmp_path / f"{kind}.gguf", kind)
    code, out, _ = run(capsys, "-m", file, "-md", DEMO, "--quick")
    assert code == 0
    said = " ".join(out.split())
    assert "recurrent states of " in said and how in said
    with closing(open_model(file, ModelOptions(n_context=512, device="cpu"))) as model:
        assert model.kv_bytes == judge(file, None).target.cache.n_bytes(512)


@pytest.mark.slow
def test_a_window_is_told_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, record = make_windowed(tmp_path / "gemma3.gguf", "gemma3"), tmp_path / "doctor.json"
    code, out, _ = run(capsys, "-m", file, "-md", DEMO, "--quick", "-c", "2048", "--json", record)
    assert code == 0
    assert "most layers keep the last 512 tokens only" in " ".join(out.split())
    options = ModelOptions(n_context=2048, device="cpu", windows=True)
    with closing(open_model(file, options)) as model:
        said = json.loads(record.read_text())["memory"]["target"]["kv_bytes"]
        assert said == model.kv_bytes < 0.5 * 2048 * 7 * 2 * 2 * 16 * 2
