"""Jinja's immutable sandbox with a bound on time, memory and output.

A template pays for every round of a loop, every call and all it makes, before it is made where
that could be large. Jinja's own hooks see all of these; a trace function would see none of the C
code that makes texts. What is compared or sliced is free, but no loop runs without paying.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from time import monotonic
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

SECONDS = 5.0  # Qwen 3's template takes 0.8 ms for 21 messages of 500 letters, 75 for 1,001
ALL, ONE = 1 << 28, 1 << 22  # units in all and of one value, besides what the input asks for
STEP = 256  # units of a round or a call: a million take 1.2 s
MOST_BITS = 4096
FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float"),
    *("format", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower"),
    *("map", "max", "min", "reject", "rejectattr", "replace", "reverse", "safe", "select"),
    *("selectattr", "sort", "string", "sum", "title", "tojson", "trim", "unique", "upper"),
)
WIDE = re.compile(r"%(\(.*?\))?[-+ #0]*(\*|\d{4}|\d*\.(\*|\d{4}))")
WIDE_BRACES = re.compile(r"\{[^{}]*(\{|[:!][^{}]*\d{4})")
REFUSED = ("translate", "to_bytes", "maketrans")


class Quiet(Namespace):
    """A namespace that does not write what it holds, which may be itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


class Generator(CodeGenerator):
    """Jinja's compiler, with what is made of parts handed to the environment."""

    def visit_For(self, node: nodes.For, frame: Any) -> None:
        node.iter = nodes.Call(nodes.EnvironmentAttribute("iterated"), [node.iter], [], None, None)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:
        self.write("environment.concat(map(str, ")
        super().visit_Tuple(nodes.Tuple(node.nodes, "load"), frame)
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Any) -> None:
        self._weighed(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Any) -> None:
        self._weighed(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Any) -> None:
        if node.ctx == "load":
            self._weighed(super().visit_Tuple, node, frame)
        else:  # names that are assigned to
            super().visit_Tuple(node, frame)

    def _weighed(self, visit: Callable[[Any, Any], None], node: Any, frame: Any) -> None:
        self.write("environment.paid(")
        visit(node, frame)
        self.write(")")


class Bounded(ImmutableSandboxedEnvironment):
    """An environment for one template at a time. Raises: OverflowError for what is too much."""

    code_generator_class = Generator
    iterated = staticmethod(iter)  # called for every loop, and `call` counts what it gives
    intercepted_binops = frozenset(("*", "**", "%", "+"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begin()
        del self.globals["lipsum"]
        self.globals["namespace"] = Quiet
        known = {**self.filters, "tojson": self.to_json}
        self.filters = {name: self._paying(name, known[name]) for name in FILTERS}

    def begin(self, given: Any = None) -> None:
        """Full account for a run on this input."""
        self._most = self._left = 1 << 62
        size = self.weight(given)
        self._most, self._left = ONE + 8 * size, ALL + 64 * size
        self._end = monotonic() + SECONDS + size / (1 << 20)

    def pay(self, n: int) -> None:
        """For something of this size."""
        self._left -= n + STEP
        if n > self._most or self._left < 0:
            raise OverflowError("it makes too much")
        if monotonic() > self._end:
            raise OverflowError(f"it takes over {SECONDS:.0f} s")

    def weight(self, value: Any) -> int:
        """Letters and entries, counted as often as they are reached."""
        total, left = 0, [value]
        while left:
            one = left.pop()
            total += 8
            if isinstance(one, str | bytes):
                total += len(one)
            elif isinstance(one, dict):
                left += one.keys()
                left += one.values()
            elif isinstance(one, list | tuple | set):
                left += one
            elif isinstance(one, int) and one.bit_length() > MOST_BITS:
                raise OverflowError("it makes too large a number")
            if total + 8 * len(left) > self._most:
                raise OverflowError("it makes too much")
        return total

    def paid(self, value: Any) -> Any:
        """The value, paid for; an iterator is paid for as it goes."""
        if isinstance(value, Iterator):
            return self.counted(value)
        self.pay(self.weight(value))
        return value

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same, each paid for."""
        for item in items:
            self.pay(0)
            yield item

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        own = __self
        for one in (*args, *kwargs.values()):
            own.pay(len(one) if isinstance(one, str | list | tuple) else 0)
        method = getattr(__obj, "__wrapped__", __obj)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str | bytes | int):
            args = own._foreseen(owner, getattr(method, "__name__", ""), args, kwargs)
        return own.paid(super(Bounded, own).call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            self._check_format(left, WIDE, "%", right)
        elif operator == "*":
            for one, n in ((left, right), (right, left)):
                if isinstance(n, int) and not isinstance(one, int | float):
                    self.pay(self.weight(one) * max(n, 0))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * right > MOST_BITS:
                raise OverflowError("it makes too large a number")
        elif operator == "+":
            self.pay(self.weight(left) + self.weight(right))
        return self.paid(super().call_binop(context, operator, left, right))

    def to_json(
        self, value: Any, ensure_ascii: bool = False, indent: Any = None,
        separators: tuple[str, str] | None = None, sort_keys: bool = False,
    ) -> str:  # fmt: skip
        """JSON as it is, where Jinja's own filter would escape it for a web page."""
        if isinstance(indent, int):
            self.pay(indent)
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return self.concat(encoder.iterencode(value))

    def concat(self, texts: Iterable[str]) -> str:
        """What Jinja joins the texts of blocks, of macros and of the whole with."""
        parts, size = [], 0
        for text in texts:
            size += len(text)
            self.pay(len(text))
            if size > self._most:
                raise OverflowError("it writes too much")
            parts.append(text)
        return "".join(parts)

    def _paying(self, name: str, known: Callable[..., Any]) -> Callable[..., Any]:
        at = int(hasattr(known, "jinja_pass_arg"))  # where what is filtered stands

        @wraps(known)
        def filtered(*args: Any, **kwargs: Any) -> Any:
            if name in ("join", "replace", "indent", "format"):
                subject = args[at]
                if name != "join":
                    subject = str(subject)
                rest = self._foreseen(subject, name, args[at + 1 :], kwargs)
                if name == "join":
                    subject, *rest = rest  # type: ignore[assignment]
                args = (*args[:at], subject, *rest)
            return self.paid(known(*args, **kwargs))

        return filtered

    def _foreseen(
        self, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, ...]:
        """The arguments of a text's method or filter, paid for before it runs."""
        given = (*args, *kwargs.values())
        if name in REFUSED or isinstance(owner, bytes):
            raise OverflowError(f"it calls {name}")
        if name == "replace" and len(given) > 1:
            self.pay(str(owner).count(str(given[0])) * len(str(given[1])))
        elif name in ("center", "ljust", "rjust", "zfill", "expandtabs", "indent"):
            widths = (len(one) if isinstance(one, str) else one for one in given)
            width = max((one for one in widths if isinstance(one, int)), default=8)
            lines = owner.count("\n") + owner.count("\t") + 1
            self.pay(max(width, 0) * lines)
        elif name in ("format", "format_map"):
            self._check_format(owner, WIDE, "%", given)
            self._check_format(owner.replace("{{", ""), WIDE_BRACES, "{", given)
        elif name == "join" and isinstance(owner, str) and len(given) == 1:
            items = list(self.counted(given[0]))
            self.pay(len(items) * len(owner) + self.weight(items))
            return (items,)
        elif name == "join":
            items = list(self.counted(owner))
            between = max((len(str(one)) for one in given), default=0)
            self.pay(len(items) * between + self.weight(items))
            return (items, *args)
        return args

    def _check_format(self, text: str, wide: re.Pattern[str], sign: str, given: Any) -> None:
        if wide.search(text):
            raise OverflowError("it formats too widely")
        n = text.count(sign)
        if n:
            self.pay(n * (1000 + self.weight(given)))
