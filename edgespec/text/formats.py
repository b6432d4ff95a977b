"""The well-known chat formats, and which of them a vocabulary was made for."""

from __future__ import annotations

from dataclasses import dataclass

from edgespec.protocols import Tokenizer
from edgespec.text.control import token_of


@dataclass(frozen=True)
class Form:
    """A well-known chat format.

    source: Jinja. end: what ends an answer, "" for the tokenizer's eos. tokens: the control tokens
    that a vocabulary made for it has; none where the format is spelled in ordinary text. shared:
    base models have these tokens too, and never saw them; what tells is which one ends a text.
    """

    source: str
    end: str = ""
    tokens: tuple[str, ...] = ()
    shared: bool = False


NO_SYSTEM = "{% if m.role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
FORMS: dict[str, Form] = {  # in the order in which they are tried
    "chatml": Form(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
        ("<|im_start|>", "<|im_end|>"),
        shared=True,
    ),
    "llama3": Form(
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
        "{% endif %}",
        "<|eot_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        shared=True,
    ),
    "gemma": Form(
        "{{ bos_token }}{% for m in messages %}" + NO_SYSTEM + "<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else 'user' }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "<end_of_turn>",
        ("<start_of_turn>", "<end_of_turn>"),
        shared=True,
    ),
    "phi3": Form(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        "<|end|>",
        ("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "zephyr": Form(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        tokens=("<|user|>", "<|assistant|>"),
    ),
    "mistral": Form(
        "{{ bos_token }}{% for m in messages %}" + NO_SYSTEM + "{% if m.role == 'assistant' %}"
        " {{ m.content | trim }}{{ eos_token }}"
        "{% else %}[INST] {{ m.content }}[/INST]{% endif %}{% endfor %}",
        tokens=("[INST]", "[/INST]"),
        shared=True,
    ),
    "llama2": Form(
        "{% if messages[0].role == 'system' %}{% set turns = messages[1:] %}"
        "{% set system = '<<SYS>>\n' + messages[0].content | trim + '\n<</SYS>>\n\n' %}"
        "{% else %}{% set turns = messages %}{% set system = '' %}{% endif %}"
        "{% for m in turns %}{% if m.role == 'assistant' %} {{ m.content | trim }} {{ eos_token }}"
        "{% else %}{{ bos_token }}[INST] {{ system if loop.first }}{{ m.content | trim }} [/INST]"
        "{% endif %}{% endfor %}",
    ),
    "plain": Form(
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content | trim }}\n\n"
        "{% else %}{{ m.role | capitalize }}: {{ m.content | trim }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}",
        "\nUser:",
    ),
}


def form_of(tokenizer: Tokenizer) -> str:
    """The format that a model was taught, by its control tokens; "plain" if none shows."""
    for name, form in FORMS.items():
        has = form.tokens and all(token_of(tokenizer, one) is not None for one in form.tokens)
        ends = form.end and token_of(tokenizer, form.end) == tokenizer.eos
        if has and (ends or not form.shared):
            return name
    return "plain"
