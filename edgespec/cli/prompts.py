"""Built-in prompts, and prompt files in JSON Lines.

A line has `prompt` or `messages`; Spec-Bench's `turns` and GSM8K's `question` are read too. Stories
and dialogues are what the demo models can do; the sets for assistants are files in sets/.
"""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgespec.config import Config
from edgespec.errors import UsageError
from edgespec.files import text_of
from edgespec.store import pairs
from edgespec.text.template import Message, check_message

EXPECTED = 'an object with "prompt", "messages", "turns" or "question"'
STORIES = (
    "Tell me a story about a little fox who lost her red scarf.",
    "Please tell me a story about an old boat and a storm.",
    "Write a short story about a boy who shared his bread with a bird.",
    "Can you tell me a story about two friends and a secret garden?",
    "I want to hear a story about a girl who found a strange key.",
    "Tell me a story about a dog who was afraid of the dark.",
    "Make up a story about a big tree and a tiny bug.",
    "Write a short story about a grandmother and her blue hat.",
)
DIALOGUES = (
    "I would like to book a table for four people tomorrow evening.",
    "Can you find me a bus from the city to the coast on Friday?",
    "I need a dentist near my house who is open on Saturday.",
    "What will the weather be like this weekend? I want to hike.",
    "Please find me a hotel with a free room for two nights.",
    "I want to see a film tonight. What is on?",
    "Can you play a song from the new album for me?",
    "I have to transfer some money to my sister.",
)
SETS = {"stories": STORIES, "dialogues": DIALOGUES}
ASSISTANT = ("questions", "code", "rewriting", "summarising", "json")
FEW = 4  # of each kind, where nothing was chosen
GROUPS = {"demo": tuple(SETS), "assistant": ASSISTANT, "all": (*SETS, *ASSISTANT)}


@dataclass(frozen=True)
class Prompt:
    """A conversation to answer; each of `later` is asked after the answer before it."""

    messages: tuple[Message, ...]
    later: tuple[str, ...] = ()

    def raw(self) -> str:
        """The only message's text, for plain continuation. Raises: UsageError if there are more."""
        if len(self.messages) > 1 or self.later:
            raise UsageError("a conversation of several turns cannot be continued with --raw")
        return str(self.messages[0]["content"])


def asked(text: str, *later: str) -> Prompt:
    """A prompt of one question and perhaps later ones."""
    return Prompt(({"role": "user", "content": text},), later)


def set_names(text: str) -> list[str]:
    """The sets of a comma list, groups spelled out. Raises: ArgumentTypeError."""
    names: list[str] = []
    for name in filter(None, map(str.strip, text.split(","))):
        if name not in (*GROUPS["all"], *GROUPS):
            known = ", ".join((*GROUPS["all"], *GROUPS))
            raise ArgumentTypeError(f"no set is called {name!r}: expected some of {known}")
        names += GROUPS.get(name, (name,))
    return names


def built_in(name: str) -> list[Prompt]:
    """The prompts of a set."""
    if name in SETS:
        return [asked(text) for text in SETS[name]]
    return read_prompts(Path(__file__).with_name("sets") / f"{name}.jsonl")


def usual(config: Config) -> dict[str, list[Prompt]]:
    """What is asked where nothing was chosen: what the demo models can do, others some of each."""
    is_demo = not (config.model or config.hf_repo or pairs.find(config.pair).target.repo)
    names, first = (GROUPS["demo"], None) if is_demo else (ASSISTANT, FEW)
    return {name: built_in(name)[:first] for name in names}


def interleaved(names: Sequence[str]) -> list[Prompt]:
    """All prompts of these sets, which are equally large, in turns."""
    sets = zip(*map(built_in, names), strict=True)
    return [prompt for prompts in sets for prompt in prompts]


def read_prompts(path: Path) -> list[Prompt]:
    """All prompts of a file, blank lines skipped. Raises: UsageError naming file and line."""
    text = text_of(path, expected="a file of JSON lines")
    prompts = []
    # Not splitlines: JSON allows U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            prompts.append(parsed(line, f"{path}:{number}"))
    if not prompts:
        raise UsageError(f"{path}: no prompts: expected {EXPECTED} on each line")
    return prompts


def parsed(line: str, place: str) -> Prompt:
    """One line as a prompt. Raises: UsageError naming `place` and what was expected."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not JSON ({error}): expected {EXPECTED}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{place}: {line.strip()!r:.60}: expected {EXPECTED}")
    try:
        return prompt_of(data)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def prompt_of(data: Mapping[str, Any]) -> Prompt:
    """One object as a prompt. Raises: UsageError."""
    if "messages" in data:
        messages = data["messages"]
        if not isinstance(messages, list) or not messages:
            raise UsageError(f'"messages" is {messages!r:.60}: expected a list of role, content')
        return Prompt(tuple(check_message(one, at) for at, one in enumerate(messages)))
    if "turns" in data:
        turns = data["turns"]
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise UsageError(f'"turns" is {turns!r:.60}: expected a list of texts')
        return asked(*turns)
    for key in ("prompt", "question"):
        if key in data:
            if not isinstance(data[key], str) or not data[key]:
                raise UsageError(f'"{key}" is {data[key]!r:.60}: expected a text')
            return asked(data[key])
    keys = ", ".join(map(repr, data)) or "no keys"
    raise UsageError(f"{keys:.80}: expected {EXPECTED}")
