"""Regular expressions as grammars, against Python's own."""

from __future__ import annotations

import json
import re

import pytest

from edgespec.errors import UsageError
from edgespec.grammar.gbnf import Grammar
from edgespec.grammar.schema import gbnf_of
from edgespec.grammar.walk import Walk

PATTERNS = [
    "^a+b?$", "ab", "^ab", "ab$", "^(a|bc)*$", "^(?:ab){2,3}$", "^a{2}$", "^[a-c]{1,}$", "a|b$",
    "^[^a]*$", "^.b.$", r"^\d+-\w$", r"^\W\S\D$", r"^a\.b$", r"^[\w.-]+@[a-c]+\.b$", "^$", "^a*?$",
    r"^[\"\\]+$", r"^\\$", r"^a\nb$", r"^\s$", r"^[a\-b]$", "^(a(b|c)?)+$",
    r"^\x61b$", "^[é-ü]b?$", "^(|a)b$", "^a{0,2}$", r"^/\/$",
]  # fmt: skip


def texts() -> list[str]:
    """All up to three of these letters, and some longer ones."""
    out = [""]
    for text in out:
        if len(text) < 3:
            out += [text + letter for letter in 'ab1-.é"\\\n /c']
    return [*out, "aaaa", "ababab", "abab", "a.c@b.b", "bcabc", "日b日", "12-a"]


def written(text: str) -> bytes:
    """As JSON has it, escaped only where it must be."""
    return json.dumps(text, ensure_ascii=False).encode()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_grammar_has_the_strings_that_its_pattern_is_found_in(pattern):
    walk = Walk(Grammar(gbnf_of(json.dumps({"type": "string", "pattern": pattern}))))
    found = [t for t in texts() if walk.least(walk.read(walk.start, written(t))) == 0]
    python = re.compile(pattern.replace("$", r"\Z"), re.ASCII)
    expected = [t for t in texts() if python.search(t)]
    named = [t for t in expected if "\n" not in t or r"\n" in pattern or r"\s" in pattern]
    assert set(named) <= set(found) <= set(expected)
    assert expected


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("(?=a)b", r"'\(\?=a': expected a plain group"),
        (r"(a)\1", r"'\\\\1': expected no such escape"),
        (r"\bword", "expected no such escape"),
        (r"\p{L}", "expected no such escape"),
        (r"\u{61}", "expected no such escape"),
        ("a$b", "'b': expected the end of the pattern"),
        ("a)", r"'\)': expected the end of the pattern"),
        ("(a", "'the end': expected a parenthesis"),
        ("[a", "'the end': expected a bracket"),
        ("[]", "'a class': expected one of characters"),
        ("[b-a]", "'-a': expected a range of two characters"),
        ("*a", r"'\*': expected a character, a class or a group"),
        ("a++", r"'\+': expected a character"),
        ("a^b", "expected a character, a class or a group"),
        ("a{3,2}", r"'\{3,2}': expected repetitions from up to 2000 to 5000"),
        ("a{2001}", "expected repetitions from up to 2000"),
        ("a{0,5001}", "expected repetitions from up to 2000"),
        ("(a*)*", r"'\*': expected a group that is not empty"),
        ("(a|b?){2,}", "expected a group that is not empty"),
        ("a\\", "expected a character after it"),
        ("(" * 60 + "a" + ")" * 60, "expected a plain group, at most 50 deep"),
        (3, "'3': expected a regular expression"),
    ],
)
def test_what_a_grammar_cannot_say_of_a_pattern_is_refused(pattern, message):
    with pytest.raises(UsageError, match=message) as caught:
        gbnf_of(json.dumps({"type": "string", "pattern": pattern}))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
