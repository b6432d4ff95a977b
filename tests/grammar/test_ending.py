"""Reading grammars ourselves: how short a rest may be, and texts that end in time."""

from __future__ import annotations

import json
import string

import numpy as np
import pytest

from edgespec.errors import UsageError
from edgespec.grammar.ending import FAR, Ending, Endings
from edgespec.grammar.gbnf import NEVER, Grammar
from edgespec.grammar.schema import gbnf_of
from edgespec.grammar.walk import Walk, unfinished

BOOKS = json.dumps(
    {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "parts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "pages": {"type": "integer"}},
                    "required": ["name", "pages"],
                },
            },
        },
        "required": ["title", "parts"],
    }
)


class Letters:
    """A tokenizer of every byte, some longer tokens, and an end (the last)."""

    LONG = (
        b'{"',
        b'":',
        b'","',
        b'{"title": "',
        b" the",
        b"}]",
        b"]}",
        b"[{",
        b"\xe2\x80",
        b"true",
    )

    def __init__(self) -> None:
        self.pieces = [bytes((i,)) for i in range(256)] + list(self.LONG) + [b""]
        self.n_vocab = len(self.pieces)
        self.stop_tokens = frozenset({self.n_vocab - 1})
        self.spelled = b"".join(self.pieces), np.cumsum([len(piece) for piece in self.pieces])
        self.spellings = frozenset(self.pieces)

    def piece(self, token: int) -> bytes:
        return self.pieces[token]


class ByWalk:
    """A constraint by our own reader: slow, and nothing but what the grammar says."""

    def __init__(self, grammar: Grammar, letters: Letters) -> None:
        self.walk, self.letters = Walk(grammar), letters

    def allowed(self, generated, ids):
        text = b"".join(self.letters.piece(token) for token in generated)
        place = self.walk.read(self.walk.start, text)
        return np.array([self._may(place, int(token)) for token in ids])

    def _may(self, place, token):
        if token in self.letters.stop_tokens:
            return self.walk.least(place) == 0
        return self.walk.least(self.walk.read(place, self.letters.piece(token))) < NEVER


def reads(gbnf: str, text: str) -> bool:
    walk = Walk(Grammar(gbnf))
    return walk.least(walk.read(walk.start, text.encode())) == 0


@pytest.mark.parametrize(
    "gbnf, good, bad",
    [
        ('root ::= "a" | "bc" # or\n', ["a", "bc"], ["", "ab", "b"]),
        ('root ::= ("a" "b"?)+ c*\nc ::= [x-z]', ["a", "abab", "axyz"], ["b", "xa", ""]),
        ('root ::= "ab"{2} [0-9]{1,3}', ["abab0", "abab123"], ["ab0", "abab", "abab1234"]),
        ('root ::= [^a-c\\n"]{2,}', ["xy", "é😀z", "d`"], ["x", "xa", "xc", "x\n"]),
        (r'root ::= "\x41\u00e9\"\\" [\]\-]', ['Aé"\\]', 'Aé"\\-'], ['Aé"\\x']),
        ("root ::=\n  x |\n  . .\nx ::= [é-ü]", ["é", "ab"], ["a", "abc"]),
        ('root ::= ("(" root ")")?', ["", "()", "((()))"], ["(()", ")"]),
    ],
)
def test_grammars_are_read_as_llama_cpp_reads_them(gbnf, good, bad):
    assert [text for text in good if not reads(gbnf, text)] == []
    assert [text for text in bad if reads(gbnf, text)] == []


@pytest.mark.parametrize(
    "gbnf, text, least",
    [
        (gbnf_of(""), "", 2),
        (gbnf_of(""), '{"a', 4),  # ":0}
        (gbnf_of(""), '{"a":[1,', 3),
        (gbnf_of(""), '{"a":t', 4),
        (gbnf_of(BOOKS), "", len('{"title":"","parts":[]}')),
        (gbnf_of(BOOKS), '{"title":"x', len('","parts":[]}')),
        (gbnf_of('{"type":"string","minLength":4}'), '"', 5),
        ('root ::= "é" | "日本"', "", 2),
        ("root ::= [^\\x00-\\x7f]", "", 2),
        ('root ::= "a" loop\nloop ::= "b" loop', "", NEVER),
    ],
)
def test_the_shortest_rest_is_known_anywhere_in_a_text(gbnf, text, least):
    walk = Walk(Grammar(gbnf))
    assert walk.least(walk.read(walk.start, text.encode())) == least


@pytest.mark.parametrize("raw", [b"\xed\xa0", b"\xe0\x80", b"\xf4\x90", b"\xc0", b"\x80"])
def test_what_begins_no_character_leads_nowhere(raw):
    walk = Walk(Grammar("root ::= ."))
    assert walk.least(walk.read(walk.start, raw)) == NEVER


@pytest.mark.parametrize("letter", ["é", "߿", "ࠀ", "€", "\ud7ff", "\U00010000", "\U0010ffff"])
def test_a_character_that_has_begun_is_finished(letter):
    raw = letter.encode()
    walk = Walk(Grammar("root ::= ."))
    for n in range(1, len(raw)):
        low, high, n_missing = unfinished(raw[:n])
        assert low <= ord(letter) <= high and n_missing == len(raw) - n
        for end in (low, high):
            assert chr(end).encode("utf-8", "surrogatepass")[:n] == raw[:n]
        assert walk.least(walk.read(walk.start, raw[:n])) == n_missing
    only = Walk(Grammar(f'root ::= "{letter}"'))
    assert only.least(only.read(only.start, raw[:1])) == len(raw) - 1
    assert only.least(only.read(only.start, bytes((raw[0] ^ 1,)))) == NEVER


GRAMMARS = [
    gbnf_of(""),
    gbnf_of(BOOKS),
    gbnf_of('{"type":"array","items":{"enum":["é","日","true"]},"minItems":4}'),
    'root ::= [a-y]* ("z" [a-z]{9})?',
    "root ::= [^\\x00-\\x7f]{3} [à-ü\\u4e00-\\u4e80]{2} .",
]


@pytest.mark.slow
@pytest.mark.parametrize("gbnf", GRAMMARS)
def test_the_fewest_tokens_of_an_ending_are_counted_at_every_place(gbnf):
    """Along random texts, after every token; one of them always leaves one less."""
    letters, grammar = Letters(), Grammar(gbnf)
    walk, by, rng = Walk(grammar), ByWalk(grammar, letters), np.random.default_rng(0)
    endings, all_ids = Endings(walk, letters), np.arange(letters.n_vocab)
    for _ in range(2):
        place, path = walk.start, []
        while len(path) < 16:
            found = endings.after(place, all_ids)
            may = by.allowed(path, all_ids)
            assert (found[:-1] < FAR).tolist() == may[:-1].tolist() and found[-1] == FAR
            n_left = endings.n_tokens(place)
            assert walk.least(place) <= grammar.most_bytes()
            assert n_left == fewest(walk.rest(place).text, letters)
            assert walk.read(place, walk.rest(place).text).begun == b""
            if n_left:
                assert found.min() <= n_left - 1
            for token in np.flatnonzero(may[:-1])[:: rng.integers(1, 9)]:
                after = walk.read(place, letters.piece(token))
                assert found[token] == fewest(walk.rest(after).text, letters)
            path.append(int(rng.choice(np.flatnonzero(may[:-1])))) if may[:-1].any() else None
            if not may[:-1].any():
                break
            place = walk.read(place, letters.piece(path[-1]))


def fewest(text: bytes, letters: Letters) -> int:
    """Tokens that spell a text."""
    best = [0] + [10**9] * len(text)
    for i in range(len(text)):
        for piece in letters.pieces[:-1]:
            if text.startswith(piece, i):
                best[i + len(piece)] = min(best[i + len(piece)], best[i] + 1)
    return best[-1]


@pytest.mark.slow
@pytest.mark.parametrize("schema", ["", BOOKS, '{"type":"array","items":{"enum":["é","日"]}}'])
@pytest.mark.parametrize("n_tokens", [24, 40])
def test_every_text_ends_in_time_and_parses(schema, n_tokens):
    """Random tokens, and those that lead farthest from an end; as many at a time or few."""
    letters, grammar = Letters(), Grammar(gbnf_of(schema))
    end = letters.n_vocab - 1
    ids = np.array([*range(0x20, 0x7F), *range(0x80, letters.n_vocab)])
    for seed in range(3):
        rng = np.random.default_rng(seed)
        ending = Ending(ByWalk(grammar, letters), grammar, letters, n_tokens)
        path: list[int] = []
        while end not in path:
            may = ids[ending.allowed(path, ids)]
            few = ids[
                np.concatenate(
                    [ending.allowed(path, ids[i : i + 9]) for i in range(0, len(ids), 9)]
                )
            ]
            assert may.tolist() == few.tolist()
            structure = [
                t for t in may if letters.piece(t) in (b'"', b"{", b"[", b",", b"[{", b'{"')
            ]
            path.append(int(rng.choice(structure if seed % 2 and structure else may)))
            assert len(path) <= n_tokens
        json.loads(b"".join(map(letters.piece, path)).decode())


def test_what_may_follow_is_asked_once_for_each_place_in_the_grammar():
    """Within a string that is the same place again and again."""
    letters, grammar = Letters(), Grammar(gbnf_of(""))
    inner, ids, asked = ByWalk(grammar, letters), np.arange(letters.n_vocab), []

    class Counted:
        def allowed(self, generated, ids):
            asked.append(len(ids))
            return inner.allowed(generated, ids)

    ending = Ending(Counted(), grammar, letters, 500)
    path = list(b'{"a": "Once upon a time')
    for n in range(8, len(path)):
        assert (ending.allowed(path[:n], ids) == inner.allowed(path[:n], ids)).all()
    assert asked == [letters.n_vocab]
    assert ending.allowed(path, ids[:99]).tolist() == inner.allowed(path, ids[:99]).tolist()
    few = ids[ord('"') : ord('"') + 1]
    assert ending.allowed([*path, ord('"')], few).tolist() == [False]


def test_far_from_the_limit_nothing_is_held_back():
    letters, grammar = Letters(), Grammar(gbnf_of(""))
    inner, ids = ByWalk(grammar, letters), np.arange(letters.n_vocab)
    ending = Ending(inner, grammar, letters, 500)
    for text in ("", '{"a', '{"a":[', '{"a":1}'):
        path = list(text.encode())
        assert (ending.allowed(path, ids) == inner.allowed(path, ids)).all()


@pytest.mark.parametrize(
    "gbnf, most",
    [
        ('root ::= "ab"* ("cd" | "xyz")?', 6),
        ('root ::= "a" x "b"{3}\nx ::= [a-z]{0,4} "é"?', 7),
        (gbnf_of(BOOKS), 27),
        (gbnf_of(""), NEVER),
        ('root ::= "(" root ")" | "a"', NEVER),
    ],
)
def test_what_no_ending_has_more_bytes_than_is_known_unless_rules_nest(gbnf, most):
    assert Grammar(gbnf).most_bytes() == most


def test_a_text_that_may_not_fit_is_not_held_back():
    letters, grammar = Letters(), Grammar(gbnf_of(BOOKS))
    ending = Ending(ByWalk(grammar, letters), grammar, letters, 10)
    assert ending.allowed([], np.array([ord("{"), ord("x")])).tolist() == [True, False]


def test_the_mask_is_a_function_of_the_text_alone():
    letters, grammar = Letters(), Grammar(gbnf_of(""))
    ids = np.arange(letters.n_vocab)
    used = Ending(ByWalk(grammar, letters), grammar, letters, 20)
    rng = np.random.default_rng(1)
    for _ in range(30):
        path = list(b'{"abc":["d","e'[: rng.integers(14)])
        fresh = Ending(ByWalk(grammar, letters), grammar, letters, 20)
        assert (used.allowed(path, ids) == fresh.allowed(path, ids)).all()


@pytest.mark.parametrize(
    "gbnf, message",
    [
        ("root ::= x", "lacks the rule x"),
        ('a ::= "b"', "lacks the rule root"),
        ('root ::= "a', "expected GBNF there"),
        ('root ::= ("a"', "has 'the end': expected \\)"),
        ("root ::= *", r"has '\*': expected a rule"),
        ("root ::= <[7]>", "expected GBNF there"),
        ('root "a"', "expected ::= there"),
    ],
)
def test_what_is_no_grammar_is_refused(gbnf, message):
    with pytest.raises(UsageError, match=message):
        Grammar(gbnf)


def test_long_repetitions_are_read_at_once():
    walk = Walk(Grammar(gbnf_of('{"type":"string","minLength":2000,"maxLength":5000}')))
    text = '"' + string.ascii_letters * 60
    assert walk.least(walk.read(walk.start, text.encode())) == 1
    assert walk.least(walk.start) == 2002


def test_an_ending_is_forced_when_its_tokens_have_to_begin_and_not_before():
    letters, grammar = Letters(), Grammar('root ::= [a-z]* "=" "true" "true" ("}" "]")?')
    ending = Ending(ByWalk(grammar, letters), grammar, letters, 10)
    ids = np.array([ord("x"), ord("=")])
    text = list(b"abcdef")
    assert [ending.allowed(text[:n], ids).tolist() for n in (0, 5, 6)] == [
        [True, True],
        [True, True],
        [False, True],
    ]
    true, close = (letters.pieces.index(piece) for piece in (b"true", b"}]"))
    path = [*text, ord("="), true]
    assert ending.allowed(path, np.array([ord("t"), true])).tolist() == [False, True]
    after = ending.allowed([*path, true], np.array([close, ord("}"), letters.n_vocab - 1]))
    assert after.tolist() == [False, False, True]


def test_the_limit_forced_a_text_only_where_it_refused_what_was_likelier():
    letters, grammar = Letters(), Grammar('root ::= [a-z]* "=" "true"?')
    letters.pieces[3] = b""  # a control token
    ending = Ending(ByWalk(grammar, letters), grammar, letters, 6)
    x, eq, control, stop = ord("x"), ord("="), 3, letters.n_vocab - 1
    for n, likelier, forced in (
        (3, [x], False), (4, [control, stop, ord("!")], False), (4, [], False), (4, [x], True),
    ):  # fmt: skip
        path = [x] * n
        allowed = ending.allowed(path, np.array([x, eq]))
        ending.note(path, np.array(likelier, int))
        assert allowed.tolist() == [n < 4, True]
        assert ending.forced([*path, eq, stop]) == forced
    assert not ending.forced([x, x, x, eq, stop])
