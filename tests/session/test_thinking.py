"""A model that thinks: its thoughts are apart from its answer, and can be switched off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgespec
from edgespec.errors import TokenizerError
from edgespec.session.conversation import Conversation

# Which model thinks is told by its template; what it says is forced by a grammar.
TEMPLATE = """{%- for one in messages %}{{ one.role }}: {{ one.content.split('</think>')[-1] }}
{% endfor %}{% if add_generation_prompt %}assistant:{% if enable_thinking is defined and not
enable_thinking %}<think></think>{% elif mood is defined %} {{ mood }}{% endif %}{% endif %}"""
OPENS = TEMPLATE.replace("{% elif", "{% elif enable_thinking is defined %}<think>\n{% elif")
SAYS = 'root ::= "<think>red fox.</think>\\n\\nThe red fox ran."'
ASK = [{"role": "user", "content": "Say it."}]


@pytest.fixture(scope="module", params=["off", "on"])
def session(request, tmp_path_factory) -> Iterator[edgespec.Session]:
    folder = tmp_path_factory.mktemp("thinking")
    file = folder / "thinks.jinja"
    file.write_text(OPENS)
    with edgespec.load(chat_template=str(file), speculative=request.param) as one:
        yield one


def split(pieces) -> tuple[str, str]:
    parts = [(piece.text, piece.is_thought) for piece in pieces]
    return "".join(t for t, is_t in parts if is_t), "".join(t for t, is_t in parts if not is_t)


def says(folder: Path, text: str) -> str:
    file = folder / "says.gbnf"
    file.write_text(text)
    return str(file)


@pytest.mark.slow
def test_thoughts_are_pieces_of_their_own(session, tmp_path: Path) -> None:
    grammar = says(tmp_path, SAYS)
    assert split(session.chat(ASK, grammar=grammar)) == ("red fox.", "The red fox ran.")
    raw = "".join(p.text for p in session.generate("Say it.", grammar=grammar))
    assert raw == "<think>red fox.</think>\n\nThe red fox ran."  # a raw prompt has no template


def test_thoughts_that_the_prompt_begins(session, tmp_path: Path) -> None:
    grammar = says(tmp_path, 'root ::= "red fox.</think>The red fox ran."')
    said = split(session.chat(ASK, grammar=grammar, think="on"))
    assert said == ("red fox.", "The red fox ran.")
    assert split(session.chat(ASK, grammar=grammar))[0] == ""  # no tag began them


def test_what_has_to_be_json_is_the_answer_though_the_prompt_began_thoughts(session) -> None:
    how = {"response_format": {"type": "json_object"}, "max_tokens": 24, "think": "on"}
    (choice,) = session.create_chat_completion(ASK, **how)["choices"]
    assert choice["message"]["content"].startswith("{")
    assert "reasoning_content" not in choice["message"]


def test_what_a_template_refuses_is_an_error_of_that_call(session, monkeypatch) -> None:
    render, template = session.template._render, session.template

    def particular(**how: object) -> str:
        if how.get("depth") == "two":
            raise TokenizerError("depth is no number")
        return render(**how)

    monkeypatch.setattr(template, "_render", particular)
    monkeypatch.setattr(template, "name", "model")
    with pytest.raises(edgespec.UsageError, match="refuses {'depth': 'two'}: depth is no number"):
        session.create_chat_completion(ASK, chat_template_kwargs={"depth": "two"}, max_tokens=1)
    session.create_chat_completion(ASK, chat_template_kwargs={"depth": 2}, max_tokens=1)
    assert template.name == "model"


def test_empty_thoughts_are_none(session, tmp_path: Path) -> None:
    grammar = says(tmp_path, 'root ::= "<think>\\n\\n</think>\\n\\nHi."')
    (choice,) = session.create_chat_completion(ASK, grammar=grammar)["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hi."}


def test_a_template_is_told_not_to_think(session) -> None:
    text = {how: session.decode(session.prompt(ASK, how).ids) for how in (None,)}
    assert "<think></think>" not in text[None]
    off = session.prompt(ASK, {"enable_thinking": False})
    assert session.decode(off.ids).endswith("<think></think>")
    assert not off.is_open and off.thinks
    assert session.prompt(ASK, {"enable_thinking": True}).is_open


def test_stop_strings_end_answers_and_not_thoughts(session, tmp_path: Path) -> None:
    grammar = says(tmp_path, SAYS)
    assert split(session.chat(ASK, grammar=grammar, stop="fox")) == ("red fox.", "The red ")
    assert session.turns.finish == "stop"


def test_a_conversation_does_not_keep_them(session, tmp_path: Path) -> None:
    talk = Conversation(session)
    session.config = session.config.__class__(
        **{**vars(session.config), "grammar": says(tmp_path, SAYS)}
    )
    try:
        assert split(talk.ask("Say it.")) == ("red fox.", "The red fox ran.")
        assert talk.messages[-1] == {"role": "assistant", "content": "The red fox ran."}
        assert split(talk.ask("Again."))[1] == "The red fox ran."
        assert len(talk.messages) == 4
    finally:
        session.config = session.config.__class__(**{**vars(session.config), "grammar": ""})


@pytest.mark.slow
@pytest.mark.parametrize("scored", [False, True])
def test_completions_have_reasoning_content(session, scored: bool, tmp_path: Path) -> None:
    grammar = says(tmp_path, SAYS)
    how = {"grammar": grammar, "logprobs": scored}
    (choice,) = session.create_chat_completion(ASK, **how)["choices"]
    assert choice["message"]["content"] == "The red fox ran."
    assert choice["message"]["reasoning_content"] == "red fox."
    n_scores = len(choice["logprobs"]["content"]) if scored else 0
    chunks = list(session.create_chat_completion(ASK, stream=True, **how))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(one.get("reasoning_content", "") for one in deltas) == "red fox."
    assert "".join(one.get("content", "") for one in deltas) == "The red fox ran."
    if scored:
        scores = [chunk["choices"][0]["logprobs"] for chunk in chunks]
        assert sum(len(one["content"]) for one in scores if one) == n_scores > 10


def test_a_template_takes_what_a_call_gives_it(session, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(session.template, "_render", lambda **how: seen.append(how) or "a")
    how = {"mood": "calm", "messages": "not this"}
    session.create_chat_completion(ASK, chat_template_kwargs=how, max_tokens=1, think="off")
    assert seen[-1]["mood"] == "calm" and seen[-1]["enable_thinking"] is False
    assert seen[-1]["messages"][0]["content"] == "Say it."


@pytest.mark.parametrize("bad", ["no", ["enable_thinking"], {1: 2}])
def test_what_is_no_object_is_refused(session, bad: object) -> None:
    with pytest.raises(edgespec.UsageError, match="chat_template_kwargs is"):
        session.create_chat_completion(ASK, chat_template_kwargs=bad)


def test_a_model_without_thoughts_says_so_once(caplog, tmp_path: Path) -> None:
    with edgespec.load(speculative="off", think="off") as session:
        grammar = says(tmp_path, SAYS)
        said = split(session.chat(ASK, grammar=grammar))
        assert said == ("", "<think>red fox.</think>\n\nThe red fox ran.")
        list(session.chat(ASK, max_tokens=2))
    assert caplog.text.count("has no switch for thoughts") == 1
