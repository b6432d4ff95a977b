"""calls.py: calls told apart from text, however the text is cut into pieces."""

from __future__ import annotations

import json

import pytest

from edgespec.text.calls import Called, Calls

ARGUMENTS = '{"place": "a \\"}\\" b", "n": [1, {"x": 2}]}'
ONE = f'<tool_call>\n{{"name": "look", "arguments": {ARGUMENTS}}}\n</tool_call>'


def read(text: str, size: int, *, tagged: bool = True, is_open: bool = False):
    """The texts, joined, and calls as name and arguments, of an answer in pieces of `size`."""
    calls = Calls(tagged=tagged, is_open=is_open)
    parts = []
    for at in range(0, len(text), size):
        parts += calls.feed(text[at : at + size])
    parts += calls.flush()
    assert all(parts)
    said = "".join(part for part in parts if isinstance(part, str))
    found: list[list[str]] = []
    for part in parts:
        if isinstance(part, Called):
            if part.name:
                assert part.index == len(found)
                found.append([part.name, part.arguments])
            else:
                found[part.index][1] += part.arguments
    assert calls.n_calls == len(found)
    return said, [tuple(one) for one in found]


CASES = [
    ("Hello, a < b.", True, "Hello, a < b.", []),
    (ONE, True, "", [("look", ARGUMENTS)]),
    (f"I look.\n{ONE}\n", True, "I look.", [("look", ARGUMENTS)]),
    (f"{ONE}\n{ONE}", True, "", [("look", ARGUMENTS)] * 2),
    (f"{ONE}{ONE}", True, "", [("look", ARGUMENTS)] * 2),
    ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', True, "", [("f", '{"a": 1}')]),
    ('<tool_call>{"name": "f"}</tool_call>', True, "", [("f", "{}")]),
    ("<tool_call>{oops}</tool_call> so", True, "<tool_call>{oops}</tool_call> so", []),
    ("<tool_call>{oops", True, "<tool_call>{oops", []),
    ('{"name": "f", "parameters": {"a": 1}}', False, "", [("f", '{"a": 1}')]),
    ('<|python_tag|>{"name": "f", "parameters": {}}', False, "", [("f", "{}")]),
    ('{"type": "function", "name": "f", "parameters": {"a": 1}}', False, "", [("f", '{"a": 1}')]),
    ('{"name": "f", "parameters": {}}; {"name": "g", "parameters": {"b": 2}}', False, "",
     [("f", "{}"), ("g", '{"b": 2}')]),
    ('{"colour": "red"} is JSON', False, '{"colour": "red"} is JSON', []),
    ("Plain text {}", False, "Plain text {}", []),
    ("{ so it begins", False, "{ so it begins", []),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("text", "tagged", "said", "found"), CASES)
def test_calls_are_told_from_text(text, tagged, said, found, size) -> None:
    assert read(text, size, tagged=tagged) == (said, found)


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("tagged", [True, False])
def test_a_forced_call_begins_within_its_tag(tagged, size) -> None:
    text = '{ "name" : "f", "arguments" : {"a": "x"} }'
    assert read(text, size, tagged=tagged, is_open=True) == ("", [("f", '{"a": "x"}')])
    cut = '{"name": "f", "arguments": {"a": "x'
    assert read(cut, size, tagged=tagged, is_open=True) == ("", [("f", '{"a": "x')])


def test_arguments_come_as_they_are_written() -> None:
    calls = Calls(tagged=True)
    assert calls.feed('<tool_call>{"name": "f", "arguments": {"a"') == [
        Called(0, "f", ""),
        Called(0, "", '{"a"'),
    ]
    assert calls.feed(": 12") == [Called(0, "", ": 12")]
    assert calls.feed("}") == [Called(0, "", "}")]
    assert calls.feed("}</tool_call>") == []
    assert json.loads('{"a": 12}') == {"a": 12}
