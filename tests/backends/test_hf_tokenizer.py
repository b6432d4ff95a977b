"""A Hugging Face tokenizer against llama.cpp's of the same vocabulary, and what can be wrong."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hf_maker import ROOT, write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from edgespec.backends.hf_tokenizer import HfTokenizer
from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.backends.vocabulary import open_tokenizer
from edgespec.errors import ModelFileError, TokenizerError, UsageError
from edgespec.text.detokenizer import Detokenizer
from edgespec.text.template import ChatTemplate

DEMO = ROOT / "models" / "demo" / "target.gguf"
TEXTS = [
    "",
    " ",
    "a  b\n\n\tc   ",
    "Once upon a time, 12345 foxes' dens weren't there…",
    "naïve café 🦊🦊 日本語 \u0301 ﬁ",
    "\r\n\x00\x7f\u200b",
    "<|end|> <|user|> <s> </s> <0x0A> ▁",
]


@pytest.fixture(scope="module", params=["demo", "stories"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[HfTokenizer, LlamaCppTokenizer]:
    """The same vocabulary by either library: byte-level, and SentencePiece with byte tokens."""
    source = DEMO if request.param == "demo" else request.getfixturevalue("stories260k")
    folder = write_tokenizer(tmp_path_factory.mktemp(request.param), source)
    return HfTokenizer(folder), LlamaCppTokenizer.open(source)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's tokenizer; tests change copies of it."""
    return write_tokenizer(tmp_path_factory.mktemp("demo"), DEMO)


@pytest.fixture
def changed(demo: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the demo's folder with more configuration files, or broken ones."""

    def change(**files: Any) -> Path:
        (tmp_path / "tokenizer.json").write_bytes((demo / "tokenizer.json").read_bytes())
        config = (demo / "tokenizer_config.json").read_text(encoding="utf-8")
        (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
        for name, content in files.items():
            path = tmp_path / f"{name}.json"
            if isinstance(content, dict) and path.is_file():
                content = json.loads(path.read_text(encoding="utf-8")) | content
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return change


@pytest.mark.slow
def test_control_tokens_and_sizes_are_llama_cpps(both) -> None:
    own, reference = both
    for name in ("n_vocab", "bos", "eos", "stop_tokens"):
        assert getattr(own, name) == getattr(reference, name), name


@pytest.mark.parametrize("special", [False, True])
def test_every_piece_is_llama_cpps(both, special: bool) -> None:
    own, reference = both
    for token in range(reference.n_vocab):
        assert own.piece(token, special=special) == reference.piece(token, special=special), token
        assert own.text(token) == reference.text(token)


@pytest.mark.parametrize("name", ["tinystories", "fairytaleqa_stories", "sgd_dialogues"])
def test_ids_of_real_text_are_llama_cpps(both, name: str, data_folder: Path) -> None:
    own, reference = both
    text = (data_folder / "text" / f"{name}.txt").read_text(encoding="utf-8")[:40_000]
    assert own.encode(text) == reference.encode(text)
    assert own.encode(text[:500], bos=True) == reference.encode(text[:500], bos=True)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_ids_of_awkward_text_are_llama_cpps(both, text: str, special: bool) -> None:
    own, reference = both
    assert own.encode(text, special=special) == reference.encode(text, special=special)


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_pieces_give_the_text_back(both, text: str) -> None:
    own, _ = both
    told = Detokenizer()
    out = "".join(told.feed(own.piece(t)) for t in own.encode(text)) + told.flush()
    opening = " " if own.n_vocab == 512 and text else ""  # SentencePiece begins with a space
    assert out == opening + text


def test_a_spelled_control_token_stays_text(both) -> None:
    own, _ = both
    spelled = own.piece(own.eos, special=True).decode()
    tokens = own.encode(f"hi {spelled} there")
    assert own.eos not in tokens
    assert spelled.encode() in b"".join(own.piece(token) for token in tokens)
    assert own.eos in own.encode(f"hi {spelled} there", special=True)
    assert own.piece(own.eos) == b""


def test_control_tokens_not_marked_special_are_recognised(demo: Path, tmp_path: Path) -> None:
    held = json.loads((demo / "tokenizer.json").read_text(encoding="utf-8"))
    for token in held["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")
    own = HfTokenizer(tmp_path)
    assert 1 not in own.encode("<|end|>")
    assert own.encode("<|end|>", special=True) == [1]
    assert own.piece(1) == b""
    assert own.stop_tokens == {1}


def test_user_defined_tokens_stay_tokens_and_visible(demo: Path, tmp_path: Path) -> None:
    held = json.loads((demo / "tokenizer.json").read_text(encoding="utf-8"))
    own_words = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    held["added_tokens"].append({"id": 4096, "content": "<think>", "special": False, **own_words})
    (tmp_path / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")
    own = HfTokenizer(tmp_path)
    assert own.n_vocab == 4097
    assert own.encode("<think>") == [4096]
    assert own.piece(4096) == b"<think>"


def test_limits_of_padding_and_truncation_are_ignored(demo: Path, tmp_path: Path) -> None:
    held = json.loads((demo / "tokenizer.json").read_text(encoding="utf-8"))
    held["truncation"] = {
        "direction": "Right",
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")
    assert HfTokenizer(tmp_path).encode("one two " * 9) == HfTokenizer(demo).encode("one two " * 9)


def test_bos_is_what_the_configuration_or_the_post_processor_adds(changed, demo: Path) -> None:
    assert HfTokenizer(demo).bos == 0
    unadded = HfTokenizer(changed(tokenizer_config={"add_bos_token": False}))
    assert (unadded.bos, unadded.bos_text) == (None, "<|begin|>")  # templates may write it
    folder = changed(tokenizer_config={"add_bos_token": None})
    assert HfTokenizer(folder).bos is None
    path = folder / "tokenizer.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    begin = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}
    held["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|begin|>": {"id": "<|begin|>", "ids": [0], "tokens": ["<|begin|>"]},
        },
    }
    path.write_text(json.dumps(held), encoding="utf-8")
    own = HfTokenizer(folder)
    assert own.bos == 0
    assert own.encode("one", bos=True) == [0, *own.encode("one")]


def test_stop_tokens_come_from_every_configuration(changed) -> None:
    folder = changed(
        generation_config={"eos_token_id": [7, 1]},
        config={"text_config": {"eos_token_id": 9, "vocab_size": 4096}},
    )
    assert HfTokenizer(folder).stop_tokens == {1, 7, 9}


def test_eos_without_a_name_is_the_first_stated(changed) -> None:
    folder = changed(tokenizer_config={"eos_token": None}, generation_config={"eos_token_id": [7]})
    assert HfTokenizer(folder).eos == 7


def test_a_padded_vocabulary_has_empty_pieces_at_its_end(changed) -> None:
    folder = changed(config={"vocab_size": 4100})
    own = HfTokenizer(folder)
    assert own.n_vocab == 4100
    assert own.piece(4099) == b""
    assert HfTokenizer(folder, n_vocab=4104).n_vocab == 4104
    with pytest.raises(TokenizerError, match="token 4100 is unknown: expected 0 to 4099"):
        own.piece(4100)


def test_the_chat_template_is_found_wherever_it_stands(changed) -> None:
    assert HfTokenizer(changed()).chat_template is None
    assert HfTokenizer(changed(chat_template={"chat_template": "c"})).chat_template == "c"
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    folder = changed(tokenizer_config={"chat_template": named})
    assert HfTokenizer(folder).chat_template == "d"
    (folder / "chat_template.jinja").write_text("<|user|>{{ messages[0].content }}<|end|>")
    own = HfTokenizer(folder)
    tokens = ChatTemplate(own).tokens([{"role": "user", "content": "Hi"}])
    assert tokens == [0, 3, *own.encode("Hi"), 1]


def test_vocabularies_open_by_the_name_of_their_file(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "vocabulary.gguf").write_bytes(DEMO.read_bytes())
    by_gguf = open_tokenizer(tmp_path, "vocabulary.gguf")
    by_json = open_tokenizer(demo, "tokenizer.json", n_vocab=4100)
    assert by_gguf.encode("a fox") == by_json.encode("a fox")
    assert (by_gguf.n_vocab, by_json.n_vocab) == (4096, 4100)
    with pytest.raises(ModelFileError, match="names the tokenizer 'x': expected vocabulary.gguf"):
        open_tokenizer(demo, "x")
    with pytest.raises(ModelFileError, match=r"has no vocabulary.gguf: .* export it again"):
        open_tokenizer(demo, "vocabulary.gguf")


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"tokenizer": "{"}, r"tokenizer.json is not a tokenizer \(.*fetch it again"),
        ({"tokenizer_config": "{"}, r"tokenizer_config.json is not JSON \(.*fetch it again"),
        ({"config": "[1]"}, r"config.json is a list: expected an object"),
        ({"generation_config": {"eos_token_id": ["x"]}}, "eos_token_id = 'x': expected 0 to 4095"),
        ({"generation_config": {"eos_token_id": 5000}}, "eos_token_id = 5000: expected 0 to 4095"),
    ],
)
def test_broken_files_are_refused_in_one_line(changed, files, line: str) -> None:
    with pytest.raises(ModelFileError, match=line) as caught:
        HfTokenizer(changed(**files)).stop_tokens  # noqa: B018
    assert "\n" not in str(caught.value)


def test_folders_without_tokenizer_json_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="has no tokenizer: expected tokenizer.json"):
        HfTokenizer(tmp_path)
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(ModelFileError, match=r"only tokenizer.model: .*AutoTokenizer write it"):
        HfTokenizer(tmp_path)


def test_vocabularies_of_another_kind_are_refused(changed) -> None:
    folder = changed()
    held = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    held["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    (folder / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(ModelFileError, match="has the decoder WordPiece: expected a byte-level"):
        HfTokenizer(folder)


def test_text_without_tokens_is_refused_not_dropped(changed, demo: Path) -> None:
    folder = changed()
    held = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    del held["model"]["vocab"]["ð"]  # the byte F0, which begins an emoji
    held["model"]["merges"] = [pair for pair in held["model"]["merges"] if "ð" not in str(pair)]
    (folder / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")
    own = HfTokenizer(folder)
    assert own.encode("fox") == HfTokenizer(demo).encode("fox")
    with pytest.raises(TokenizerError, match="cannot be written in this vocabulary"):
        own.encode("a 🦊")
    with pytest.raises(TokenizerError, match=r"lone surrogate '\\ud800' at 1: expected Unicode"):
        own.encode("a\ud800")


def test_a_missing_library_is_named(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="type `pip install tokenizers`"):
        HfTokenizer(demo)
