"""bounded.py: what a template may ask of the machine it runs on."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from edgespec.errors import TokenizerError
from edgespec.text import bounded
from edgespec.text.sandbox import MOST_SOURCE, compiled

TALK = [{"role": "user", "content": "Hi"}]
LOOP = "{% for i in range(100000) %}"
GROWING = "{% set n = namespace(a='xxxxxxxx') %}" + LOOP + "{% set n.a = {} %}{% endfor %}"
BOMBS = [
    LOOP * 3 + "{% set a = i %}" + "{% endfor %}" * 3,
    LOOP * 3 + "x" + "{% endfor %}" * 3,
    "{{ 'x' * 3000000000 }}",
    "{{ 3000000000 * 'x' }}",
    "{{ [1] * 300000000 }}",
    "{{ '%999999999s' % 1 }}",
    "{{ '%*s' % (999999999, 1) }}",
    "{{ '%.999999999f' % 1 }}",
    "{{ '%999999999s' | format(1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ '{x:999999999}'.format_map({'x': 1}) }}",
    "{{ 10 ** 1000000000 }}",
    "{{ [1, [2]] | tojson(indent=3000000000) }}",
    "{{ range(10000) | list | tojson(separators=('x' * 1000000, ':')) }}",
    "{{ 'x'.center(3000000000) }}",
    "{{ 'x'.ljust(width=3000000000) if 0 else 'x'.zfill(3000000000) }}",
    "{{ '\t'.expandtabs(tabsize=3000000000) }}",
    "{{ 'x' | indent(3000000000, true) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 1000000) | replace('a', 'b' * 1000000) }}",
    "{{ ('a' * 1000000).join('b' * 1000000) }}",
    "{{ range(100000) | join('a' * 1000000) }}",
    "{{ range(100000) | map('replace', '', 'a' * 1000000) | list }}",
    "{{ (5).to_bytes(3000000000) }}",
    "{{ ''.encode().center(3000000000) }}",
    GROWING.replace("{}", "n.a ~ n.a"),
    GROWING.replace("{}", "n.a + n.a"),
    GROWING.replace("{}", "[n.a, n.a]"),
    GROWING.replace("{}", "(n.a, n.a)"),
    GROWING.replace("{}", "{1: n.a, 2: n.a}"),
    GROWING.replace("{}", "dict(a=n.a, b=n.a)"),
    GROWING.replace("{% set n.a = {} %}", "{% set a %}{{ n.a }}{{ n.a }}{% endset %}"
                    "{% set n.a = a %}"),
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
    "{% macro m(n) %}xx{% if n %}{{ m(n - 1) ~ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
    "{% for i in [0] recursive %}{{ loop([0, 1]) }}{{ loop([0, 1]) }}{% endfor %}",
    "{% set a = 'x' * 4000000 %}" + LOOP + "{{ a }}{% endfor %}",
    "{% set a = 'x' * 4000000 %}" + LOOP + "{% if a ~ 1 == a %}{% endif %}{% endfor %}",
    "{{ lipsum(n=1000000) }}",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("source", BOMBS)
def test_a_template_that_asks_for_too_much_is_refused(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within its time, and in little memory."""
    monkeypatch.setattr(bounded, "SECONDS", 0.05)
    monkeypatch.setattr(bounded, "ALL", 1 << 24)
    render = compiled(source, "it")
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(TokenizerError, match="it failed: (Overflow|Recursion|Undefined)Error"):
            render(messages=TALK)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 2
    assert peak < 1 << 26


def test_a_long_template_is_not_read() -> None:
    with pytest.raises(TokenizerError, match="does not parse: OverflowError: it has 65,537 lett"):
        compiled("x" * (MOST_SOURCE + 1), "it")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a' ~ 1 ~ none ~ x }}", "a1None"),
        ("{% set a, b = (1, 2) %}{{ [a, b] + [3] }}{{ (a,) }}", "[1, 2, 3](1,)"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{{ loop.length }}{% endfor %}", "a11"),
        ("{% for i in [1, 2, 3] if i > 1 %}{{ loop.last }}{{ loop.length }}{% endfor %}",
         "False2True2"),
        ("{% for a in [[1, [2]]] recursive %}{{ a }}{% if a is iterable %}{{ loop(a) }}"
         "{% endif %}{% else %}-{% endfor %}", "[1, [2]]1[2]2"),
        ("{{ messages | map(attribute='content') | join(', ') }}", "Hi"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ messages | join(attribute='role', d='/') }}{{ ['a', 'b'] | join }}", "userab"),
        ("{{ 'a-b' | replace('-', '+') }}{{ 'a-b'.replace('-', '+', 0) }}", "a+ba-b"),
        ("{{ '%s: %05.1f %%' % ('a', 2) }}{{ '%s' | format('b') }}", "a: 002.0 %b"),
        ("{{ '{} {{}} {x:>4}'.format('a', x='b') }}", "a {}    b"),
        ("{{ 'a\nb' | indent(2) }}{{ 'a'.center(3) }}", "a\n  b a "),
        ("{{ {'b': [1], 'a': 'é'} | tojson(indent=1, sort_keys=true) }}",
         '{\n "a": "é",\n "b": [\n  1\n ]\n}'),
        ("{% macro m(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}"
         "{{ m(1) }}{% call m(3) %}c{% endcall %}", "1232c"),
        ("{% set n = namespace(a=1) %}{% set n.a = n %}{{ n }}", "<Namespace>"),
        ("{{ ', '.join(['a', 'b']) }}{{ 'a b'.split() }}{{ 2 ** 10 }}", "a, b['a', 'b']1024"),
    ],
)  # fmt: skip
def test_ordinary_templates_are_as_they_were(source: str, expected: str) -> None:
    assert compiled(source, "it")(messages=TALK) == expected


def test_a_long_conversation_is_no_bomb() -> None:
    talk: list[dict[str, Any]] = [{"role": "user", "content": "word " * 200}] * 2000
    source = "{% for m in messages %}{{ m.role ~ ':' + m.content | trim }}\n{% endfor %}"
    assert len(compiled(source, "it")(messages=talk)) > 2_000_000
