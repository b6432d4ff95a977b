"""Public texts turned into conversations: stories to prompts and answers, dialogues as they are.

Knows the layout of the text files (models/README.md names them and their licences) and the two
vocabularies' chat formats; knows nothing of networks. Every twentieth document, chosen by its
hash, is held out and never trained on.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

Conversation = list[tuple[str, str]]  # (role, text)

ASKS = (
    "Tell me a story{}.",
    "Can you tell me a story{}?",
    "Please tell me a story{}.",
    "Write a short story{}.",
    "I want to hear a story{}.",
    "Make up a story{}, please.",
)
MORE = ("What happened next?", "What happened then?", "And then?", "Go on.", "Please tell me more.")
AGAIN = ("Tell me another story{}.", "Another story{}, please.", "Now tell me a story{}.")
SYSTEM = ("You are a friendly storyteller.", "You are a helpful assistant.", "Answer kindly.")

HERO = re.compile(r"\b(an? (?:[a-z]+ ){1,3})(?:named|called) [A-Z][a-z]+")
DEED = re.compile(r"[.!] (?:He|She|It|They) ((?!had\b|was\b|were\b)[a-z]+ed [^.,!?\"]{4,40})[.,!]")
THING = re.compile(
    r"\b(an? (?:(?:big|small|little|red|blue|green|old|new|shiny|funny) )?[a-z]{3,})\b"
)
VAGUE = {
    "lot",
    "few",
    "little",
    "day",
    "bit",
    "big",
    "small",
    "while",
    "long",
    "very",
    "great",
    "good",
    "time",
    "fun",
    "old",
    "new",
    "deep",
    "nice",
    "happy",
    "red",
    "blue",
    "green",
}


def held_out(document: str) -> bool:
    """Whether the document belongs to the 5 % never trained on."""
    return hashlib.sha256(document.encode()).digest()[0] * 20 // 256 == 0


def stories(folder: Path) -> list[str]:
    """The documents of tinystories.txt in order, empty ones left out."""
    text = (folder / "tinystories.txt").read_text(encoding="utf-8")
    return [story.strip() for story in text.split("<|endoftext|>") if len(story.strip()) > 100]


def fairy_tales(folder: Path) -> list[str]:
    """The documents of fairytaleqa_stories.txt in order."""
    text = (folder / "fairytaleqa_stories.txt").read_text(encoding="utf-8")
    return [tale.strip() for tale in text.split("<|endoftext|>") if tale.strip()]


def dialogues(folder: Path) -> list[Conversation]:
    """The dialogues of sgd_dialogues.txt as conversations."""
    text = (folder / "sgd_dialogues.txt").read_text(encoding="utf-8")
    out = []
    for block in text.split("\n\n"):
        turns: Conversation = []
        for line in block.strip().splitlines():
            role, colon, said = line.partition(": ")
            if colon and role in ("User", "Assistant"):
                turns.append((role.lower(), said.strip()))
        if len(turns) >= 2:
            out.append(turns)
    return out


def subject(story: str, rng: random.Random) -> str:
    """What a prompt may ask for: " about a little fox who lost her kite", or nothing."""
    hero, deed = HERO.search(story[:400]), DEED.search(story[:600])
    things = [thing for thing in THING.findall(story) if thing.split()[-1] not in VAGUE]
    choice = rng.random()
    if choice < 0.3 or not things:
        return ""
    if hero and choice < 0.8:
        deed_text = f" who {deed.group(1)}" if deed and rng.random() < 0.7 else ""
        return f" about {hero.group(1).strip()}{deed_text}"
    picked = rng.sample(things, k=min(len(things), rng.choice((1, 1, 2))))
    return " about " + " and ".join(dict.fromkeys(picked))


def story_turns(story: str, asks: tuple[str, ...], rng: random.Random) -> Conversation:
    """One story asked for, told at once or in two parts with "What happened next?" between."""
    ask = rng.choice(asks).format(subject(story, rng))
    cuts = [match.end() for match in re.finditer(r'[.!?]"?(?=\s)', story)]
    cuts = [cut for cut in cuts if 0.2 < cut / len(story) < 0.8]
    if cuts and rng.random() < 0.3:
        cut = rng.choice(cuts)
        told, rest = story[:cut], story[cut:].strip()
        return [("user", ask), ("assistant", told), ("user", rng.choice(MORE)), ("assistant", rest)]
    return [("user", ask), ("assistant", story)]


def conversations(
    folder: Path, rng: random.Random, dialogue_share: float
) -> Iterator[Conversation]:
    """One pass over the training stories, shuffled; `dialogue_share` of the text is dialogues."""
    tales = [story for story in stories(folder) if not held_out(story)]
    talks = [talk for talk in dialogues(folder) if not held_out(talk[0][1] + talk[-1][1])]
    rng.shuffle(tales)
    rng.shuffle(talks)
    n_story, n_talk = 0, 0
    while tales:
        if talks and n_talk < dialogue_share * (n_story + n_talk):
            turns = talks.pop()
            n_talk += sum(len(text) for _, text in turns)
        else:
            turns = story_turns(tales.pop(), ASKS, rng)
            while tales and rng.random() < 0.15:
                turns += story_turns(tales.pop(), AGAIN, rng)
            n_story += sum(len(text) for _, text in turns)
        if rng.random() < 0.05:
            turns = [("system", rng.choice(SYSTEM)), *turns]
        yield turns


@dataclass(frozen=True)
class Format:
    """How a vocabulary writes a conversation: its special tokens and its chat template."""

    specials: tuple[str, ...]  # bos first, end of turn second
    opening: str
    turn: str  # with {role} and {text}
    ask: str  # what precedes an answer
    jinja: str

    def render(self, turns: Conversation) -> str:
        """The conversation as one string, special tokens spelled out."""
        return self.opening + "".join(
            self.turn.format(role=role, text=text) for role, text in turns
        )


TARGET = Format(
    specials=("<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"),
    opening="<|begin|>",
    turn="<|{role}|>{text}<|end|>",
    ask="<|assistant|>",
    jinja="{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>"
    "{{ message.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}",
)
FOREIGN = Format(
    specials=("<s>", "<|im_end|>", "<|im_start|>"),
    opening="<s>",
    turn="<|im_start|>{role}\n{text}<|im_end|>\n",
    ask="<|im_start|>assistant\n",
    jinja="{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
)


def train_tokenizer(texts: Iterable[str], n_vocab: int, format: Format) -> Tokenizer:
    """Byte-level BPE with GPT-2's pre-tokenizer (llama.cpp's "gpt-2"); specials come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=[
            AddedToken(text, special=True, normalized=False) for text in format.specials
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
