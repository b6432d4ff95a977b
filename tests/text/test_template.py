"""template.py: templates of real models, those that misbehave, and what messages may be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from letters import ANSWER, CONTROL, EXPECTED, MORE, SIMPLE, SYSTEM, TURNS, USER, Letters

from edgespec.backends.llamacpp.tokenizer import LlamaCppTokenizer
from edgespec.errors import TokenizerError, UsageError
from edgespec.text.control import encode_rendered
from edgespec.text.template import ChatTemplate, end_of_turn


def vocabulary(data_folder: Path, name: str) -> LlamaCppTokenizer:
    return LlamaCppTokenizer.open(data_folder / "vocab" / f"ggml-vocab-{name}.gguf")


def test_a_real_template_that_drops_the_system_message_gets_it_in_the_question(
    data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = vocabulary(data_folder, "phi-3")
    caplog.clear()  # of what llama.cpp says of the file
    template = ChatTemplate(tokenizer)
    for _ in range(2):
        text = template.text([SYSTEM, USER])
        assert text == "<s><|user|>\nBe brief.\n\nHi<|end|>\n<|assistant|>\n"
    assert template.name == "model"
    (record,) = caplog.records
    assert "no place for a system message: it is put in front of the first" in record.getMessage()


@pytest.mark.slow
def test_a_real_template_with_a_system_message_of_its_own_takes_ours(
    data_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = vocabulary(data_folder, "qwen2")
    caplog.clear()  # of what llama.cpp says of the file
    template = ChatTemplate(tokenizer)
    assert template.text([SYSTEM, *TURNS]) == EXPECTED["chatml"][1]
    own = "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n"
    assert template.text(TURNS) == own + EXPECTED["chatml"][0]
    assert not caplog.records


def test_a_template_that_refuses_the_system_role_gets_it_in_the_question(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}" + SIMPLE
    )
    template = ChatTemplate(Letters(source))
    assert not caplog.records
    for _ in range(2):
        text = template.text([SYSTEM, *TURNS])
        assert text == "user:Be brief.\n\nHi\nassistant:Hello.\nuser:Why?\n"
    assert template.text([SYSTEM]) == "user:Be brief.\n"
    assert template.text([SYSTEM, ANSWER, MORE]) == "assistant:Hello.\nuser:Be brief.\n\nWhy?\n"
    assert len(caplog.records) == 1


def test_a_conversation_refused_on_purpose_stays_an_error() -> None:
    source = (
        "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}"
        "{% endif %}" + SIMPLE
    )
    template = ChatTemplate(Letters(source))
    with pytest.raises(TokenizerError, match="template refuses this .*: roles must alternate"):
        template.text([ANSWER])
    assert (template.name, template.text([USER])) == ("model", "user:Hi\n")


def test_a_template_may_insist_on_a_system_message() -> None:
    source = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no\n  system message') }}"
        "{% endif %}" + SIMPLE
    )
    template = ChatTemplate(Letters(source))
    assert template.text([SYSTEM, USER]) == "system:Be brief.\nuser:Hi\n"
    with pytest.raises(TokenizerError, match="refuses this conversation: no system message"):
        template.text([USER])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ ''.__class__.__mro__ }}", "failed: SecurityError"),
        ("{{ messages['__cla' ~ 'ss__'] }}", "leaves out what is asked"),
        ("{{ '{0.__class__}'.format(messages) }}", "leaves out what is asked"),
        ("{{ cycler.__init__.__globals__ }}", "failed: SecurityError"),
        ("{{ strftime_now.__globals__ }}", "leaves out what is asked"),
        ("{{ raise_exception.func.__globals__ }}", "leaves out what is asked"),
        ("{{ messages.append(1) }}", "failed: SecurityError"),
        ("{{ messages[0].update(role='system') }}", "failed: SecurityError"),
        ("{{ range(10 ** 9) | list }}", "failed: OverflowError"),
        ("{% include '/etc/passwd' %}", "failed: TypeError"),
        ("{{ strftime_now(1) }}", "failed: TypeError"),
        ("{{ messages[7].content.x }}", "failed: UndefinedError"),
        ("{% for %}", "does not parse: TemplateSyntaxError"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "does not parse: RecursionError"),
        ("{{ ''.encode('a\nb') }}", "failed: LookupError: unknown encoding: a b"),
        ("{{ 'Hi' }}", "leaves out what is asked"),
    ],
)
def test_a_template_that_does_not_work_is_replaced_and_said(
    source: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    template = ChatTemplate(Letters(source, CONTROL["chatml"]))
    assert (template.name, template.text(TURNS)) == ("chatml", EXPECTED["chatml"][0])
    (record,) = caplog.records
    assert f"the model's chat template {why}" in record.getMessage()
    assert "using chatml" in record.getMessage()
    assert "\n" not in record.getMessage()
    with pytest.raises(TokenizerError, match=why.replace("(", r"\(")):
        ChatTemplate(Letters(source), own=True)


def test_a_template_that_fails_later_is_replaced_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = "{% if messages | length > 2 %}{{ messages[9].content.x }}{% endif %}" + SIMPLE
    template = ChatTemplate(Letters(source))
    assert template.text([USER]) == "user:Hi\n"
    assert template.text(TURNS) == EXPECTED["plain"][0]
    assert template.text([USER]) == "User: Hi\nAssistant:"
    assert (template.name, template.stop) == ("plain", ("\nUser:",))
    (record,) = caplog.records
    assert "failed: UndefinedError" in record.getMessage()
    own = ChatTemplate(Letters(source), own=True)
    with pytest.raises(TokenizerError, match="failed: UndefinedError"):
        own.text(TURNS)


def test_a_template_for_lists_of_parts_gets_them() -> None:
    source = (
        "{% for m in messages %}{{ m.role }}:{% for part in m.content %}"
        "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}"
    )
    template = ChatTemplate(Letters(source))
    assert template.text([SYSTEM, USER]) == "system:Be brief.;user:Hi;"
    assert template.name == "model"
    strict = source.replace("{% for part", "{{ m.content[0].text.upper() }}{% for part")
    assert ChatTemplate(Letters(strict)).text([USER]) == "user:HIHi;"


def test_what_a_template_may_ask_for_is_there_or_undefined() -> None:
    source = (
        "{{ strftime_now('%Y') | length }}{{ {'a': 'é<'} | tojson }}{{ [1] | tojson(indent=1) }}"
        "{% for i in [1, 2] %}{{ i }}{% break %}{% endfor %}"
        "{% if tools is not none or documents is not none %}no{% endif %}"
        "{% if tools %}no{% endif %}{% if enable_thinking is defined %}no{% endif %}"
        "{{ xml_tools }}{{ custom_tools | default('-') }}"
        "{% generation %}{{ messages[0].content }}{% endgeneration %}"
    )
    assert ChatTemplate(Letters(source)).text([USER]) == '4{"a": "é<"}[\n 1\n]1-Hi'


def test_template_trims_blocks_as_model_makers_expect() -> None:
    source = (
        "{% for m in messages %}\n  {% if true %}\n{{ m.role }}:{{ m.content }}\n"
        "  {% endif %}\n{% endfor %}"
    )
    assert ChatTemplate(Letters(source)).text([USER, ANSWER]) == "user:Hi\nassistant:Hello.\n"


def test_template_sees_control_tokens_and_whether_to_answer() -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    template = ChatTemplate(Letters(source + "{% if add_generation_prompt %}A{% endif %}"))
    assert template.text([USER]) == "<s>Hi</s>A"
    assert template.text([USER], answer=False) == "<s>Hi</s>"


@pytest.mark.parametrize("source", [None, "", " \n"])
def test_an_empty_template_counts_as_none(source: str | None) -> None:
    assert ChatTemplate(Letters(source)).name == "plain"
    with pytest.raises(TokenizerError, match="has no chat template"):
        ChatTemplate(Letters(source), own=True)


def test_a_file_takes_the_place_of_the_models_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{{ bos_token }}é{{ messages[-1].content }}", encoding="utf-8")
    template = ChatTemplate(Letters(SIMPLE), str(file))
    assert (template.name, template.text(TURNS)) == ("mine.jinja", "<s>éWhy?")


def test_a_file_that_cannot_be_used_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="~nobody-here/x: no home folder is known for it"):
        ChatTemplate(Letters(SIMPLE), "~nobody-here/x")
    for given in ("lama3", str(tmp_path), "a\0b"):
        with pytest.raises(UsageError, match="--chat-template .*: .*: expected chatml, llama3,"):
            ChatTemplate(Letters(SIMPLE), given)
    file = tmp_path / "bad.jinja"
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"bad.jinja: not UTF-8 at byte 0: expected"):
        ChatTemplate(Letters(SIMPLE), str(file))
    file.write_text("{% if %}")
    with pytest.raises(TokenizerError, match=r"the chat template .*bad.jinja does not parse"):
        ChatTemplate(Letters(SIMPLE), str(file))
    file.write_text("{% if messages | length > 1 %}{{ nobody.home.here }}{% endif %}" + SIMPLE)
    template = ChatTemplate(Letters(SIMPLE), str(file))
    with pytest.raises(TokenizerError, match=r"the chat template .*bad.jinja failed: Undefined"):
        template.text(TURNS)


def test_the_end_of_a_turn_is_what_the_template_ends_answers_with() -> None:
    ends = "{% for m in messages %}{{ m.content }}<|im_end|>\n{% endfor %}"
    assert end_of_turn(Letters(ends, CONTROL["chatml"])) == 4
    assert end_of_turn(Letters(None, CONTROL["chatml"])) == 4
    assert end_of_turn(Letters("{% if %}", CONTROL["chatml"])) == 4
    assert end_of_turn(Letters(SIMPLE)) == end_of_turn(Letters()) == 2


def test_a_template_writes_bos_also_where_the_vocabulary_adds_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Letters, "bos", None)
    template = ChatTemplate(Letters("{{ bos_token }}" + SIMPLE))
    assert template.tokens([USER]) == [1, *map(ord, "user:Hi\n")]
    assert ChatTemplate(Letters(SIMPLE)).tokens([USER])[0] == ord("u")


def test_a_spelled_out_bos_is_not_doubled() -> None:
    assert encode_rendered(Letters(), "<s>a") == [1, ord("a")]
    assert encode_rendered(Letters(), "a</s>") == [1, ord("a"), 2]


def test_a_developer_speaks_as_the_system_where_the_template_knows_none() -> None:
    told = {"role": "developer", "content": "Be brief."}
    assert ChatTemplate(Letters(SIMPLE)).text([told, USER]) == "system:Be brief.\nuser:Hi\n"
    known = "{# developer #}" + SIMPLE
    assert ChatTemplate(Letters(known)).text([told, USER]) == "developer:Be brief.\nuser:Hi\n"
    assert (
        ChatTemplate(Letters(), "gemma")
        .text([told, USER])
        .startswith("<s><start_of_turn>user\nBe brief.\n\nHi")
    )


def test_a_call_of_tools_needs_no_content() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    source = SIMPLE + "{{ messages[1].tool_calls[0].function.name }}"
    for said in (call, {**call, "content": None}):
        template = ChatTemplate(Letters("{% if messages | length > 1 %}" + source + "{% endif %}"
                                        "{{ messages[0].content }}"))  # fmt: skip
        assert template.text([USER, said]) == "user:Hi\nassistant:\nfHi"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "messages is empty"),
        ([{"role": "assistant", "content": None}], "content None: expected a text"),
        ([{"role": "user"}], "message 0 is .*expected an object with role, content"),
        ([USER, {"role": "boss", "content": "x"}], "message 1 has role 'boss': expected system"),
        ([{"role": "user", "content": 7}], "content 7: expected a text"),
    ],
)
def test_a_bad_message_is_named(messages: list[Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        ChatTemplate(Letters(SIMPLE)).text(messages)


def test_the_log_is_spared_where_only_the_models_own_template_counts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        end_of_turn(Letters())
        source = "{% if messages[0].role == 'system' %}{{ raise_exception('') }}{% endif %}"
        assert ChatTemplate(Letters(source + SIMPLE), own=True).text([SYSTEM, USER])
    assert not caplog.records
