"""A tokenizer of characters for tests of chat templates, and what they say with it."""

from __future__ import annotations

from collections.abc import Sequence

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello."}
MORE = {"role": "user", "content": "Why?"}
TURNS = [USER, ANSWER, MORE]
SIMPLE = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
CONTROL = {  # what the vocabularies of these families have, besides BOS and EOS
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi3": ("<|user|>", "<|assistant|>", "<|end|>", "<|system|>"),
    "zephyr": ("<|user|>", "<|assistant|>", "<|system|>"),
    "mistral": ("[INST]", "[/INST]"),
    "plain": (),
}
EXPECTED = {  # of TURNS, and of the same after SYSTEM
    "chatml": (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "llama3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "gemma": (
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
        "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"
        "Hello.<end_of_turn>\n<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
    ),
    "phi3": (
        "<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\n",
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n"
        "<|user|>\nWhy?<|end|>\n<|assistant|>\n",
    ),
    "zephyr": (
        "<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nWhy?</s>\n<|assistant|>\n",
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n"
        "<|user|>\nWhy?</s>\n<|assistant|>\n",
    ),
    "mistral": (
        "<s>[INST] Hi[/INST] Hello.</s>[INST] Why?[/INST]",
        "<s>[INST] Be brief.\n\nHi[/INST] Hello.</s>[INST] Why?[/INST]",
    ),
    "llama2": (
        "<s>[INST] Hi [/INST] Hello. </s><s>[INST] Why? [/INST]",
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Why? [/INST]",
    ),
    "plain": (
        "User: Hi\nAssistant: Hello.\nUser: Why?\nAssistant:",
        "Be brief.\n\nUser: Hi\nAssistant: Hello.\nUser: Why?\nAssistant:",
    ),
}


class Letters:
    """A tokenizer of characters with control tokens: "<s>" (1), "</s>" (2), and `control` from 3.

    The last of `control` ends an answer, as "</s>" does.
    """

    bos: int | None = 1
    eos: int | None = 2
    bos_text = "<s>"
    chat_template: str | None

    def __init__(
        self, chat_template: str | None = None, control: Sequence[str] = (), *, base: bool = False
    ) -> None:
        """base: "</s>" ends a text, as in a model that was never taught to answer."""
        self.chat_template = chat_template
        self._control = {text: 1 + at for at, text in enumerate(("<s>", "</s>", *control))}
        self.stop_tokens = frozenset({2, len(self._control)})
        if not base and {"<|im_end|>", "<|eot_id|>", "<end_of_turn>"} & set(control):
            self.eos = len(self._control)

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        out = [1] if bos and self.bos is not None else []
        while text:
            known = self._control if special else {}
            word = next((one for one in known if text.startswith(one)), text[0])
            out.append(known.get(word, ord(word[0])))
            text = text[len(word) :]
        return out

    def piece(self, token: int, *, special: bool = False) -> bytes:
        for text, known in self._control.items():
            if token == known:
                return text.encode() if special else b""
        return chr(token).encode()
