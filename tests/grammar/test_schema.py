"""JSON schemas as grammars: which texts fit, read by our own reader of grammars."""

from __future__ import annotations

import json

import pytest

from edgespec.errors import UsageError
from edgespec.grammar.gbnf import NEVER, Grammar
from edgespec.grammar.schema import gbnf_of
from edgespec.grammar.walk import Walk

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "kids": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}


def fits(gbnf: str, text: str) -> bool:
    """Whether the grammar has the whole text."""
    walk = Walk(Grammar(gbnf))
    return walk.least(walk.read(walk.start, text.encode())) == 0


def of(**properties):
    """An object of optional properties."""
    return {"type": "object", "properties": properties}


CASES = [
    ({}, ["{}", '{"a": [1, {"b":null}], "c":-0.5e3}'], ["[]", '"a"', "{} x", '{"a":01}', "{,}"]),
    ({"type": "string"}, ['""', '"é\\n\\u00e9\U0001f600"'], ['"a\nb"', '"\t"', '"\\x"', "a", '"']),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"日本語"'], ['"a"', '"abcd"']),
    ({"type": "string", "maxLength": 0}, ['""'], ['"a"']),
    ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-13-01"', '"24-01-01"']),
    ({"type": "string", "format": "date-time"}, ['"2024-01-01T23:59:59.5Z"'], ['"2024-01-01"']),
    ({"type": "string", "format": "email"}, ['"not checked"'], ["1"]),
    ({"type": "integer"}, ["0", "-12"], ["1.0", "01", "+1", ""]),
    ({"type": "integer", "minimum": 0, "maximum": 120}, ["0", "7", "99", "120"], ["-1", "121"]),
    ({"type": "integer", "minimum": 0.5, "maximum": 3.0}, ["1", "3"], ["0", "4", "3.0"]),
    ({"type": "integer", "exclusiveMinimum": -3, "maximum": 1}, ["-2", "0", "1"], ["-3", "2"]),
    ({"minimum": 100}, ["100", "999999"], ["99", "1"]),
    ({"type": "number"}, ["-1.5e-7", "3"], [".5", "1.", "NaN"]),
    ({"type": "number", "minimum": 0}, ["0", "0.0", "7.25", "99999999"], ["-1", "-0.1", "1e3"]),
    ({"type": ["number", "null"], "maximum": -2.5}, ["-2.5", "-3", "null"], ["-2.4", "0"]),
    ({"type": ["boolean", "null"]}, ["true", "null"], ["1", "True"]),
    ({"type": ["string", "integer"], "maxLength": 1}, ['"a"', "12"], ['"ab"']),
    ({"enum": ["a\"b\\", 1, None]}, ['"a\\"b\\\\"', "1", "null"], ['"a', "2"]),
    ({"const": {"a": [1]}}, ['{"a": [1]}'], ['{"a":[1]}']),
    ({"anyOf": [{"type": "integer"}, of(a=True)]}, ["4", "{}", '{"a":[]}'], ['"a"']),
    ({"allOf": [{"type": "null"}], "title": "t"}, ["null"], ["1"]),
    (of(), ["{}", '{"x":1}'], ["1"]),
    ({"oneOf": [of(a=True)], "discriminator": {"propertyName": "a"}}, ['{"a":1}'], ["1"]),
    ({"$ref": "#/$defs/a", "x-order": 1, "$defs": {"a": {"type": "null"}}}, ["null"], ["1"]),
    ({"type": "null", "x-a": 1, "example": 2, "contentMediaType": "text/html"}, ["null"], ["1"]),
    ({"anyOf": [{"type": "null"}, {"items": {"$ref": "#/anyOf/0"}}]}, ["null", "[null]"], ["[1]"]),
    (of(**{"x-a": {"type": "null"}}), ['{"x-a":null}', "{}"], ['{"x-a":1}']),
    ({"type": "object", "additionalProperties": False}, ["{}", "{ }"], ['{"x":1}']),
    ({"additionalProperties": {"type": "null"}}, ["{}", '{"x":null,"y":null}'], ['{"x":1}']),
    ({"type": "array", "items": {"type": "null"}}, ["[]", "[null]", "[null, null]"], ["[1]"]),
    ({"items": True, "minItems": 1, "maxItems": 2}, ["[1]", '["a",{}]'], ["[]", "[1,1,1]"]),
    ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ({"prefixItems": [{"type": "null"}, {"type": "integer"}]}, ["[null, 1]"], ["[null]", "[1,1]"]),
    (TREE, ['{"value":1,"kids":[{"value":2},{"value":3,"kids":[]}]}'], ['{"kids":[]}', "{}"]),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("schema, good, bad", CASES, ids=lambda case: str(case)[:40])
def test_the_texts_of_a_grammar_are_those_of_its_schema(schema, good, bad):
    gbnf = gbnf_of(json.dumps(schema))
    for text in good:
        json.loads(text)
        assert fits(gbnf, text), text
    for text in bad:
        assert not fits(gbnf, text), text


def test_optional_properties_come_in_order_with_commas_between():
    null = {"type": "null"}
    schema = {**of(a=null, b=null, c=null, d=null), "required": ["c"]}
    gbnf = gbnf_of(json.dumps(schema))
    for mask in range(16):
        names = [name for i, name in enumerate("abcd") if mask >> i & 1]
        text = "{" + ",".join(f'"{name}":null' for name in names) + "}"
        assert fits(gbnf, text) == ("c" in names)
    assert not fits(gbnf, '{"c":null,"b":null}')
    assert fits(gbnf_of(json.dumps(of(a=null, b=null))), "{}")


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [False, True])
def test_thousands_of_words_are_few_alternatives_at_a_time(labelled):
    """llama.cpp compares all alternatives with each other."""
    words = [f"{n * 7919 % 99991:x}-{n}" for n in range(4000)] + [1, 12, 123, "", '"', "\n", "é"]
    values = {"oneOf": [{"const": word, "title": "t"} for word in words]}
    gbnf = gbnf_of(json.dumps(values if labelled else {"enum": words}))
    grammar = Grammar(gbnf)
    assert max(map(len, grammar.rules.values())) <= 20
    walk = Walk(grammar)
    for word in words[::25] + words[-7:]:
        text = json.dumps(word, ensure_ascii=False).encode()
        assert walk.least(walk.read(walk.start, text)) == 0
        assert walk.least(walk.read(walk.start, text[:-1])) > 0 or word in (12, 123)
        assert walk.least(walk.read(walk.start, text + b"0")) == NEVER


def test_an_empty_schema_is_any_object():
    assert gbnf_of("") == gbnf_of("{}") == gbnf_of('{"type": "object"}')


@pytest.mark.parametrize(
    "schema, message",
    [
        ("{bad", "is not JSON .*: expected one such as"),
        ("[]", r"the schema: '\[\]': expected a schema"),
        ('{"const": NaN}', "'NaN': expected a number of at most"),
        ('{"enum": [-Infinity]}', "'-Infinity': expected a number of at most"),
        ('{"const": 1e999}', "'1e999': expected a number of at most"),
        ('{"minimum": -1e999}', "'-1e999': expected a number of at most"),
        (f'{{"const": {"7" * 5000}}}', "'7{60}': expected a number of at most 300 digits"),
        (f'{{"enum": [{{"a": -{"7" * 301}.5}}]}}', "expected a number of at most 300 digits"),
        ('{"type": "foo"}', "'foo': expected a type: string, integer"),
        ('{"not": {}}', "'not': expected a type"),
        ('{"pattern": "a+", "maxLength": 3}', "'a\\+': expected no length or format beside"),
        ('{"type": "number", "multipleOf": 2}', "'multipleOf': expected exclusiveMaximum"),
        ('{"type": "number", "minimum": 1e15}', "expected minimum as a number of at most 15"),
        ('{"type": "number", "minimum": true}', "'True': expected minimum as a number"),
        ('{"exclusiveMinimum": 0, "exclusiveMaximum": 1}', "expected a number between them"),
        ('{"type": "string", "minLength": 5, "maxLength": 2}', "'5': expected minLength of at"),
        ('{"type": "string", "minLength": 2001}', "'2001': expected minLength from 0 to 2000"),
        ('{"type": "string", "maxLength": 100000}', "'100000': expected maxLength from 0 to"),
        ('{"type": "integer", "minimum": 2, "maximum": 1}', "2, 'maximum': 1}\": expected a"),
        ('{"properties": 3}', "'3': expected properties as an object"),
        ('{"properties": {"a": {"type": "x"}}}', "the schema, a: 'x': expected a type"),
        ('{"type": "object", "required": ["a"]}', "expected required as a list of names"),
        ('{"$ref": "http://x/y"}', "expected a reference within the schema"),
        ('{"$ref": "#/$defs/a"}', "expected a reference to a part of the schema"),
        ('{"$ref": "#a"}', "expected a reference within the schema"),
        ('{"anyOf": [{"$ref": "#/anyOf/1"}]}', "expected a reference to a part of the schema"),
        ('{"anyOf": [{"$ref": "#/anyOf/-1"}]}', "expected a reference to a part of the schema"),
        ('{"enum": []}', "enum: '\\[\\]': expected a list of values"),
        (json.dumps({"enum": list(range(5001))}), "'5001 values': expected at most 5000"),
        (json.dumps({"anyOf": [{"type": "null"}] * 251}), "'251 schemas': expected at most 250"),
        (json.dumps(of(**dict.fromkeys(map(str, range(251))))), "'251 properties': expected at"),
        ('{"anyOf": {}}', "expected a list of schemas"),
        ('{"anyOf": [{}], "minimum": 1}', "'minimum': expected nothing beside anyOf"),
        ('{"allOf": [{}, {}]}', "expected a list of one schema"),
        ('{"type": ["string"], "items": {}}', "'items': expected a keyword of string"),
        ("[" * 100_000, "the schema"),
    ],
)  # fmt: skip
def test_what_a_grammar_cannot_express_is_named(schema, message):
    with pytest.raises(UsageError, match=message) as caught:
        gbnf_of(schema)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
