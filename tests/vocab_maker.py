"""Made-up vocabularies of a few tokens, and walks over a text with a ledger in step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from hypothesis import strategies as st

from edgespec.drafters.bridges.ledger import Ledger
from edgespec.drafters.bridges.mapping import Mapping as Between
from edgespec.errors import TokenizerError
from edgespec.text.vocabulary import Vocabulary

LETTERS = ("a", "b", " ", "\n", "é", "語")
CONTROL = ("<s>", "</s>", "<end>", "<other>")


class GreedyTokenizer:
    """Implements protocols.Tokenizer by longest match over bytes; of equal pieces the last is used.

    control: texts of control tokens by id, which have no piece. normalise: what is done to a text
    before. texts: every text that `encode` was asked for.
    """

    chat_template: str | None = None
    bos_text = ""

    def __init__(
        self,
        pieces: Sequence[bytes],
        *,
        control: Mapping[int, str] | None = None,
        bos: int | None = None,
        eos: int | None = None,
        adds_space: bool = False,
        normalise: Callable[[str], str] = str,
    ) -> None:
        self.pieces, self.control = list(pieces), dict(control or {})
        self.bos, self.eos = bos, eos
        self.stop_tokens = frozenset() if eos is None else frozenset({eos})
        self.adds_space, self.normalise = adds_space, normalise
        self.ids = {piece: token for token, piece in enumerate(self.pieces) if piece}
        self.longest = max(map(len, self.pieces))
        self.texts: list[str] = []

    def encode(self, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        assert not special
        assert not bos
        self.texts.append(text)
        text = self.normalise(text)
        data = (" " * (self.adds_space and text != "") + text).encode()
        ids: list[int] = []
        while data:
            ends = range(min(self.longest, len(data)), 0, -1)
            piece = next((data[:end] for end in ends if data[:end] in self.ids), None)
            if piece is None:
                raise TokenizerError(f"the byte {data[0]} cannot be written: expected a known one")
            ids.append(self.ids[piece])
            data = data[len(piece) :]
        return ids

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if not 0 <= token < len(self.pieces):
            raise TokenizerError(f"token {token} is unknown")
        if token in self.control:
            return self.control[token].encode() if special else b""
        return self.pieces[token]


def vocabulary(*words: str | bytes, adds_space: bool = False, **options: object) -> Vocabulary:
    """A vocabulary of all bytes (ids 0 to 255), CONTROL's first three, and these words.

    The control tokens are BOS, end of the text and end of a turn, ids 256 to 258.
    """
    spelled = [word.encode() if isinstance(word, str) else word for word in words]
    pieces = [bytes([byte]) for byte in range(256)] + [b""] * 3 + spelled
    control = {256 + i: text for i, text in enumerate(CONTROL[:3])}
    tokenizer = GreedyTokenizer(
        pieces, control=control, bos=256, eos=257, adds_space=adds_space, **options
    )
    return Vocabulary(tokenizer, len(pieces), end_of_turn=258)


@st.composite
def vocabularies(draw: st.DrawFn) -> Vocabulary:
    """All bytes of LETTERS as tokens, and some of their sequences, characters cut in half too.

    With or without a space before texts, a BOS, an end of turn of its own, a control token
    without a role, tokens spelled twice, ids that spell nothing, rows beyond the tokenizer.
    """
    texts = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4).map(str.encode)
    cuts = st.tuples(texts, st.integers(0, 3), st.integers(1, 6))
    words = st.one_of(texts, cuts.map(lambda c: c[0][c[1] : c[1] + c[2]]))
    singles = [bytes([byte]) for byte in sorted(set("".join(LETTERS).encode()))]
    roles = draw(st.sets(st.sampled_from(CONTROL)))
    words = draw(st.lists(words, max_size=12))
    # Which of two equal halves of characters a tokenizer would use cannot be asked of it.
    words = [w for i, w in enumerate(words) if is_text(w) or w not in singles + words[:i]]
    pieces = singles + words + [b""] * draw(st.integers(0, 1))
    entries = draw(st.permutations([(piece, "") for piece in pieces] + [(b"", r) for r in roles]))
    control = {token: role for token, (_, role) in enumerate(entries) if role}
    ids = {role: token for token, role in control.items()}
    tokenizer = GreedyTokenizer(
        [piece for piece, _ in entries],
        control=control,
        bos=ids.get("<s>"),
        eos=ids.get("</s>"),
        adds_space=draw(st.booleans()),
    )
    n_vocab = len(entries) + draw(st.integers(0, 2))
    return Vocabulary(tokenizer, n_vocab, end_of_turn=ids.get("<end>"))


def is_text(data: bytes) -> bool:
    return data.decode(errors="ignore").encode() == data


def visible(side: Vocabulary, ids: Sequence[int], crossing: set[int]) -> list[bytes | int]:
    """Texts and control tokens that cross, without the spaces that the vocabulary adds itself.

    Independent of the ledger: what it must keep equal on both sides.
    """
    out: list[bytes | int] = [b""]
    opens = True
    for is_control, group in groupby(ids, side.is_control):
        if is_control:
            for token in group:
                opens = True
                if token in crossing:
                    out += [token, b""]
            continue
        text = side.spelling(group)
        if text:
            out[-1] += text[opens and side.adds_space and text[:1] == b" " :]
            opens = False
    return out


def walk(mapping: Between, ledger: Ledger, data: bytes, rng: random.Random, *, n: int = 6) -> None:
    """Write `data` in rounds: draft what the drafter says, accept some, add the target's own token.

    Begins at a random place and goes back to another n times. The ledger must close after every
    round, and at the end the target's ids spell `data`.
    """
    draft, target = mapping.draft, mapping.target
    opening = [target.roles["bos"]] if "bos" in target.roles else []
    ids = target.encode(data, start=True)
    whole = target.spelling(ids)
    assert whole == (b" " * (target.adds_space and data != b"") + data)
    context = opening + ids[: rng.randint(0, len(ids))]
    while True:
        own = ledger.sync(context)
        theirs, ours = ledger.check()
        assert theirs == ours == ledger.spelled
        done = target.spelling(context)
        assert whole.startswith(done)
        rest = whole[len(done) :]
        if rest:
            proposed = translated(mapping, draft.encode(rest[:48])[: rng.randint(1, 6)])
            accepted = proposed[: rng.randint(0, len(proposed))]
            rest = rest[len(target.spelling(accepted)) :]
            context = context + accepted + target.encode(rest[:48])[:1]
        elif n == 0:
            break
        else:
            n -= 1
            context = context[: rng.randint(len(opening), len(context))]
    assert done == whole
    assert min(own + context, default=0) >= 0
    assert max(own, default=0) < draft.n_vocab
    assert max(context, default=0) < target.n_vocab
    crossing = set(mapping.preimage[opening].tolist())
    assert visible(draft, own, crossing)[-1] == visible(target, context, set(opening))[-1] == data


def translated(mapping: Between, ids: Sequence[int]) -> list[int]:
    """The target's ids for the drafter's, up to the first that has none."""
    out: list[int] = []
    for token in ids:
        image = int(mapping.image[token])
        found = (image,) if image >= 0 else mapping.split_of(token)
        if not found:
            break
        out += found
    return out
