"""formats.py: the exact text of every format, and which of them a model was taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from letters import CONTROL, EXPECTED, SIMPLE, SYSTEM, TURNS, USER, Letters

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.text.formats import FORMS, form_of
from edgespec.text.template import ChatTemplate, end_of_turn


def vocabulary(data_folder: Path, name: str) -> LlamaCppTokenizer:
    return LlamaCppTokenizer.open(data_folder / "vocab" / f"ggml-vocab-{name}.gguf")


@pytest.mark.parametrize("name", FORMS)
def test_a_format_writes_exactly_what_its_models_were_trained_on(name: str) -> None:
    template = ChatTemplate(Letters(SIMPLE), name)
    assert template.name == name
    assert (template.text(TURNS), template.text([SYSTEM, *TURNS])) == EXPECTED[name]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("opening", [[], [SYSTEM]])
def test_the_next_turn_begins_with_what_the_cache_holds(name: str, opening: list[Any]) -> None:
    """The prompt of a turn and its answer, as the model says it, open the prompt of the next."""
    template = ChatTemplate(Letters(), name)
    first = template.text([*opening, USER])
    said = "Hello." if first.endswith(("\n", ">")) else " Hello."
    assert template.text([*opening, *TURNS]).startswith(first + said)


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "mistral"])
def test_tokens_that_a_base_model_has_as_well_show_no_format(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Their control tokens lie in the vocabulary, and nothing was trained to use them."""
    template = ChatTemplate(Letters(None, CONTROL[name], base=True))
    assert (template.name, template.stop) == ("plain", ("\nUser:",))
    (record,) = caplog.records
    assert "a plain transcript, as nothing shows that it was taught" in record.getMessage()


@pytest.mark.parametrize("name", sorted(CONTROL.keys() - {"mistral"}))
def test_a_vocabulary_shows_the_format_it_was_made_for(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    template = ChatTemplate(Letters(None, CONTROL[name]))
    assert (template.name, template.text(TURNS)) == (name, EXPECTED[name][0])
    (record,) = caplog.records
    chosen = "a plain transcript" if name == "plain" else name
    assert record.getMessage().startswith(f"the model has no chat template: using {chosen}, as")
    assert "--chat-template names another (chatml, llama3, gemma, phi3," in record.getMessage()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("llama-bpe", "llama3"),
        ("llama-bpe", "plain"),
        ("qwen2", "chatml"),
        ("qwen2", "plain"),
        ("phi-3", "phi3"),
        ("llama-spm", "plain"),
        ("gpt-2", "plain"),
    ],
)
def test_real_vocabularies_without_a_template(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, name: str
) -> None:
    monkeypatch.setattr(LlamaCppTokenizer, "chat_template", None)
    tokenizer = vocabulary(data_folder, file)
    if name in ("llama3", "chatml"):  # the files are of base models: as their taught ones have it
        (tokenizer.eos,) = tokenizer.encode(FORMS[name].end, special=True)
    template = ChatTemplate(tokenizer)
    assert template.name == name
    ids, control = template.tokens(TURNS), FORMS[name].tokens
    for text in control:
        (token,) = tokenizer.encode(text, special=True)
        assert ids.count(token) == template.text(TURNS).count(text) > 0
    assert ids.count(tokenizer.bos) == (tokenizer.bos is not None)
    assert template.stop == (("\nUser:",) if name == "plain" else ())
    assert end_of_turn(tokenizer) == (32007 if file == "phi-3" else tokenizer.eos)


def test_an_end_without_a_token_is_a_stop_string(caplog: pytest.LogCaptureFixture) -> None:
    assert ChatTemplate(Letters(), "chatml").stop == ("<|im_end|>",)
    assert "chatml: the vocabulary has no token <|im_start|>, so" in caplog.text
    caplog.clear()
    assert ChatTemplate(Letters(None, CONTROL["chatml"]), "chatml").stop == ()
    assert ChatTemplate(Letters(), "llama2").stop == ()
    assert not caplog.records


def test_a_control_token_counts_only_where_it_is_one() -> None:
    assert form_of(Letters(None, ["<|im_start|>"])) == "plain"
    assert form_of(Letters(None, ["<|im_start|>", "<|im_end|>"])) == "chatml"


@pytest.mark.parametrize("name", FORMS)
def test_an_answer_begins_after_the_space_that_the_format_puts_there(name: str) -> None:
    template = ChatTemplate(Letters(), name)
    assert template.lead == (" " if name in ("plain", "mistral", "llama2") else "")


@pytest.mark.slow
def test_a_vocabulary_that_adds_a_space_puts_one_before_answers(data_folder: Path) -> None:
    assert ChatTemplate(vocabulary(data_folder, "phi-3")).lead == " "
    assert ChatTemplate(vocabulary(data_folder, "qwen2")).lead == ""
    refusing = "{% if messages | length > 1 %}{{ raise_exception('') }}{% endif %}" + SIMPLE
    assert ChatTemplate(Letters(refusing)).lead == ""
