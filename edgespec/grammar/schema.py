"""A JSON schema as a grammar (GBNF): what may be generated is what the schema says, and parses.

Knows no model. Every text of the grammar fits the schema, not the other way round: objects have
their properties in the schema's order and none beside them, tuples have no further items, numbers
at most 15 digits (and no exponent within a range), whitespace is at most one space. A keyword that
a grammar cannot express is refused, not passed over: an answer would break the schema and nobody
would know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from math import ceil, floor, isfinite
from os.path import commonprefix
from typing import Any, NoReturn

from edgespec.errors import UsageError
from edgespec.grammar.number import numbers
from edgespec.grammar.pattern import gbnf_of_pattern

BASE = {
    "space": '" "?',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" hex{4})',
    "hex": "[0-9a-fA-F]",
    "string": r'"\"" char* "\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,14})',
    "number": 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "object": '"{" space (member ("," space member)*)? "}"',
    "member": 'string space ":" space value space',
    "array": '"[" space (value space ("," space value space)*)? "]"',
    "value": "object | array | string | number | boolean | null",
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])',
    "clock": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]',
    "time": 'clock ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [-+] clock)',
    "uuid": 'hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}',
}
FORMATS = {"date": "date", "time": "time", "date-time": 'date "T" time', "uuid": "uuid"}
RANGE = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
KEYS: dict[str, set[str]] = {
    "string": {"minLength", "maxLength", "format", "pattern"},
    "integer": set(RANGE),
    "number": set(RANGE),
    "boolean": set(),
    "null": set(),
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
}
SILENT = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
          "definitions", "$schema", "$id", "$defs", "$comment", "nullable", "example",
          "discriminator", "externalDocs", "xml", "contentMediaType", "contentEncoding",
          "contentSchema"}  # fmt: skip
QUOTED = re.compile(r'"(\\.|[^"\\])*"|\[(\\.|[^\]\\])*\]')
LEAST, MANY = 2000, 5000  # of repetitions that must and that may be: llama.cpp writes all out
DIGITS = 300  # of a number in the schema: within them an integer is no infinity
LIMIT = 10**15 - 1
CHOICES = 250  # the most alternatives at one place: with more, a step takes over 50 ms
COMMA = ' "," space '
EXAMPLE = '{"type": "object", "properties": {"name": {"type": "string"}}}'


def gbnf_of(schema: str) -> str:
    """The grammar of a schema in JSON; "" and {} are any object.

    Raises: UsageError for what is not JSON, not a schema, or beyond a grammar.
    """
    try:
        parsed = DECODER.decode(schema) if schema.strip() else {}
        writer = Writer(parsed)
        root = writer.rule({"type": "object"} if parsed == {} else parsed, "the schema")
    except json.JSONDecodeError as error:
        raise UsageError(
            f"the schema {schema[:40]!r} is not JSON ({error}): expected one such as {EXAMPLE}"
        ) from None
    except RecursionError:
        raise UsageError("the schema is nested too deep: expected less; use $ref") from None
    return "".join(f"{name} ::= {body}\n" for name, body in [("root", root), *writer.rules.items()])


class Writer:
    """Writes rules for one schema document; `rules` are those needed beside the root."""

    def __init__(self, document: Any) -> None:
        self.rules: dict[str, str] = {}
        self._names: dict[str, str] = {}  # of rules by body
        self._refs: dict[str, str] = {}
        self._document = document

    def rule(self, schema: Any, place: str) -> str:
        """The body of a rule for what `schema` allows. place: where it stands, for errors."""
        if not isinstance(schema, dict | bool) or schema is False:
            refuse(schema, "a schema, which is an object", place)
        said = {} if schema is True else schema
        schema = {k: v for k, v in said.items() if k not in SILENT and not k.startswith("x-")}
        if not schema:
            return self.base("value")
        for key, write in (
            ("$ref", self._ref), ("const", self._const), ("enum", self._enum),
            ("anyOf", self._any), ("oneOf", self._any), ("allOf", self._all),
        ):  # fmt: skip
            if key in schema:
                if beside := set(schema) - {key, "type"}:
                    refuse(min(beside), f"nothing beside {key}", place)
                return write(schema[key], f"{place}, {key}")
        kind = schema.get("type") or next((k for k in KEYS if KEYS[k] & set(schema)), None)
        if isinstance(kind, list) and kind:
            return self._either(schema, kind, place)
        return self._typed(schema, kind, place)

    def base(self, name: str) -> str:
        """The name of a rule of BASE, once it and what it needs are among the rules."""
        if name not in self.rules:
            self.rules[name] = BASE[name]
            for other in re.findall("[a-z]+", QUOTED.sub("", BASE[name])):
                self.base(other)
        return name

    def named(self, schema: Any, place: str) -> str:
        """The name of a rule for what `schema` allows."""
        return self._name_of(self.rule(schema, place))

    def _name_of(self, body: str) -> str:
        if body in self.rules:
            return body
        if body not in self._names:
            self._names[body] = self._free()
            self.rules[self._names[body]] = body
        return self._names[body]

    def _free(self) -> str:
        return f"r{len(self.rules)}"

    def _typed(self, schema: Mapping[str, Any], kind: Any, place: str) -> str:
        if not isinstance(kind, str) or kind not in KEYS:
            refuse(kind or min(schema), f"a type: {', '.join(KEYS)}", place)
        if beyond := set(schema) - KEYS[kind] - {"type"}:
            known = ", ".join(sorted(KEYS[kind])) or "no keyword"
            refuse(min(beyond), f"{known} for type {kind}; leave it out", place)
        if set(schema) <= {"type"}:
            return self.base(kind)
        write = {
            "object": self._object, "array": self._array, "string": self._string,
            "integer": self._number, "number": self._number,
        }[kind]  # fmt: skip
        return write(schema, place)

    def _either(self, schema: Mapping[str, Any], kinds: Sequence[Any], place: str) -> str:
        """Any of several types, each with the keywords that are its own."""
        own = set().union(*(KEYS.get(str(kind), set()) for kind in kinds))
        if beyond := set(schema) - own - {"type"}:
            refuse(min(beyond), f"a keyword of {', '.join(map(str, kinds))}", place)
        rules = []
        for kind in kinds:
            keys = KEYS.get(str(kind), set()) & set(schema)
            rules.append(self.named({"type": kind, **{k: schema[k] for k in keys}}, place))
        return " | ".join(rules)

    def _object(self, schema: Mapping[str, Any], place: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict):
            refuse(properties, "properties as an object", place)
        if not isinstance(required, list) or not set(map(str, required)) <= set(properties):
            refuse(required, "required as a list of names among the properties", place)
        self.base("space")
        if len(properties) - len(required) > CHOICES:
            refuse(f"{len(properties)} properties", f"at most {CHOICES} not required", place)
        if properties:
            members = [
                (self._member(literal(json.dumps(name)), one, f"{place}, {name}"), name in required)
                for name, one in properties.items()
            ]
            return f'"{{" space {self._members(members)} "}}"'
        more = schema.get("additionalProperties", True)
        if more is False:
            return '"{" space "}"'
        if more is True:
            return self.base("object")
        member = self._member(self.base("string"), more, f"{place}, additionalProperties")
        return f'"{{" space ({member} ("," space {member})*)? "}}"'

    def _member(self, name: str, schema: Any, place: str) -> str:
        return self._name_of(f'{name} space ":" space {self.named(schema, place)} space')

    def _members(self, members: Sequence[tuple[str, bool]]) -> str:
        """Members in order, some of them optional, with commas between those that are there.

        first: what may come if nothing has yet; later: if something has.
        """
        first, later = "", ""
        for member, is_required in reversed(members):
            alone = f"{member} {later}".rstrip()
            if is_required:
                first = alone
            else:
                first = f"({alone} | {self._name_of(first)})" if first else f"({alone})?"
            comma = f'"," space {member}'
            later = f"{comma if is_required else f'({comma})?'} {later}".rstrip()
            if len(later) > 60:
                later = self._name_of(later)
        return first

    def _array(self, schema: Mapping[str, Any], place: str) -> str:
        low, high = bounds(schema, "minItems", "maxItems", place)
        first, items = schema.get("prefixItems", []), schema.get("items", True)
        self.base("space")
        if first:
            if not isinstance(first, list) or low > len(first) or high < len(first):
                refuse(first, "prefixItems as a list, as long as minItems and maxItems say", place)
            parts = [f"{self.named(one, f'{place}, prefixItems')} space" for one in first]
            return f'"[" space {COMMA.join(parts)} "]"'
        if high == 0 or items is False:
            return '"[" space "]"'
        item = f"{self.named(items, f'{place}, items')} space"
        again = repeat(self._name_of(f"{COMMA}{item}".strip()), max(low - 1, 0), high - 1)
        body = f"{item} {again}" if low else f"({item} {again})?"
        return f'"[" space {body} "]"'

    def _string(self, schema: Mapping[str, Any], place: str) -> str:
        form = FORMATS.get(str(schema.get("format")))  # others are a remark, as JSON Schema has it
        if "pattern" in schema:
            return self._pattern(schema, form, place)
        if form is None:
            low, high = bounds(schema, "minLength", "maxLength", place)
            return rf'"\"" {repeat(self.base("char"), low, high)} "\""'
        if len(schema.keys() - {"type"}) > 1:
            refuse(schema["format"], "no length beside a format", place)
        for name in re.findall("[a-z]+", QUOTED.sub("", form)):
            self.base(name)
        return rf'"\"" {form} "\""'

    def _pattern(self, schema: Mapping[str, Any], form: str | None, place: str) -> str:
        pattern = schema["pattern"]
        if not isinstance(pattern, str):
            refuse(pattern, "a regular expression", place)
        if form or {"minLength", "maxLength"} & set(schema):
            refuse(pattern, "no length or format beside a pattern; write {2,5} in it", place)
        return rf'"\"" ({gbnf_of_pattern(pattern, self.base("char"))}) "\""'

    def _number(self, schema: Mapping[str, Any], place: str) -> str:
        ends = {key: schema[key] for key in RANGE if key in schema}
        for key, value in ends.items():
            if type(value) not in (int, float) or abs(value) > LIMIT:
                refuse(value, f"{key} as a number of at most 15 digits", place)
        # What is read as a float has 15 digits, so that none reads as the end beyond it.
        n_before = max(len(str(int(abs(value)))) for value in ends.values())
        n_places = 15 - n_before if schema.get("type") == "number" else 0
        unit, all_there_are = 10**n_places, 10 ** (15 + n_places) - 1
        exact = {key: Fraction(str(value)) * unit for key, value in ends.items()}
        low = max(
            ceil(exact.get("minimum", -all_there_are)),
            floor(exact.get("exclusiveMinimum", -all_there_are - 1)) + 1,
        )
        high = min(
            floor(exact.get("maximum", all_there_are)),
            ceil(exact.get("exclusiveMaximum", all_there_are + 1)) - 1,
        )
        if low > high:
            refuse(ends, "a number between them", place)
        return numbers(low, high, n_places)

    def _const(self, value: Any, place: str) -> str:
        return self._enum([value], place)

    def _enum(self, values: Any, place: str) -> str:
        if not isinstance(values, list) or not values:
            refuse(values, "a list of values", place)
        if len(values) > MANY:
            refuse(f"{len(values)} values", f"at most {MANY}", place)
        texts = {json.dumps(value, ensure_ascii=not is_text(value)) for value in values}
        return one_of(sorted(texts))

    def _any(self, schemas: Any, place: str) -> str:
        if not isinstance(schemas, list) or not schemas:
            refuse(schemas, "a list of schemas", place)
        if all(isinstance(one, dict) and set(one) - SILENT == {"const"} for one in schemas):
            return self._enum([one["const"] for one in schemas], place)
        if len(schemas) > CHOICES:
            refuse(f"{len(schemas)} schemas", f"at most {CHOICES}", place)
        return " | ".join(self.named(one, place) for one in schemas)

    def _all(self, schemas: Any, place: str) -> str:
        if not isinstance(schemas, list) or len(schemas) != 1:
            refuse(schemas, "a list of one schema", place)
        return self.rule(schemas[0], place)

    def _ref(self, ref: Any, place: str) -> str:
        if not isinstance(ref, str) or not re.fullmatch(r"#(/.*)?", ref):
            refuse(ref, "a reference within the schema, such as #/$defs/name", place)
        if ref not in self._refs:
            found = self._document
            for part in ref[1:].split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                if isinstance(found, list) and re.fullmatch("[0-9]{1,9}", part):
                    found = dict(enumerate(found)).get(int(part))
                else:
                    found = found.get(part) if isinstance(found, dict) else None
                if found is None:
                    refuse(ref, "a reference to a part of the schema", place)
            name = self._refs[ref] = self._free()
            self.rules[name] = ""  # taken, for what refers to itself
            self.rules[name] = self.rule(found, ref)
        return self._refs[ref]


def refuse(seen: Any, expected: str, place: str) -> NoReturn:
    """Raises: UsageError."""
    raise UsageError(f"{place}: {str(seen)[:60]!r}: expected {expected}")


def number(text: str) -> int | float:
    """A number of the schema. Raises: UsageError for what cannot be written again."""
    if len(text) <= DIGITS and isfinite(value := float(text)):
        return int(text) if text.lstrip("-").isdigit() else value
    refuse(text, f"a number of at most {DIGITS} digits, below 1.8e308", "the schema")


DECODER = json.JSONDecoder(parse_int=number, parse_float=number, parse_constant=number)


def bounds(schema: Mapping[str, Any], least: str, most: str, place: str) -> tuple[int, float]:
    """How often something is repeated, infinity without `most`."""
    low, high = schema.get(least, 0), schema.get(most, float("inf"))
    for key, value, limit in ((least, low, LEAST), (most, high, MANY)):
        if key in schema and (type(value) is not int or not 0 <= value <= limit):
            refuse(value, f"{key} from 0 to {limit}", place)
    if low > high:
        refuse(low, f"{least} of at most {most}, {high}", place)
    return low, high


def repeat(item: str, low: int, high: float) -> str:
    """`item` so many times."""
    if high == float("inf"):
        return f"{item}*" if low == 0 else f"{item}{{{low},}}"
    return f"{item}{{{low},{int(high)}}}" if high else ""


def one_of(texts: Sequence[str]) -> str:
    """Any of the texts, sorted and all different; those that begin alike are parted later.

    llama.cpp compares all alternatives with each other: of 4,000 a step would take a second.
    """
    n = len(commonprefix(texts))
    begun, ended = literal(texts[0][:n]), len(texts[0]) == n
    longer = groupby((text[n:] for text in texts[ended:]), lambda rest: rest[0])
    parts = " | ".join(one_of(list(rests)) for _, rests in longer)
    return f"{begun} ({parts}){'?' * ended}" if parts else begun


def literal(text: str) -> str:
    """`text` as a GBNF string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def is_text(value: Any) -> bool:
    """Whether the value can be written in UTF-8 as it is."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
