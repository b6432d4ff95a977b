"""A table of Markdown as columns that fit a width. Pure: lines in, styled characters out.

What is no table (no row of dashes below the first, or too narrow a width) stays as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len

from edgespec.cli.terminal.inline import MARK, PLAIN, Look, resolve
from edgespec.cli.terminal.wrap import NEWLINE, Glyph, Wrap

HEAD: Look = frozenset({"bold"})
DRAFTED: Look = frozenset({"drafted"})
EDGE = re.compile(r"(?<!\\)\|")
DASHES = re.compile(r" *:?-+:? *")
BETWEEN, CROSS, DASH = " │ ", "─┼─", "─"
LEAST = 4  # columns of a column; where there are fewer, the lines are left alone

Line = tuple[str, list[bool]]
"""The text of a line, and of each of its characters whether it was drafted."""
Cell = list[Glyph]


def drawn(lines: Sequence[Line], width: int) -> list[Glyph]:
    """The table that these lines are, without a line break at the end."""
    rows = [[_cell(line, *span) for span in _spans(line[0])] for line in lines]
    n, dashes = len(rows[0]), [line[a:b] for line, _ in lines[1:2] for a, b in _spans(line)]
    if len(dashes) != n or not all(map(DASHES.fullmatch, dashes)):
        return _joined([_raw(line) for line in lines])
    rows = [(row + [[] for _ in range(n)])[:n] for row in rows]  # as GitHub does
    widths = _widths([[_cells(cell) for cell in row] for row in (rows[0], *rows[2:])], width)
    if min(widths, default=0) < 1:
        return _joined([_raw(line) for line in lines])
    sides = [_side(one) for one in dashes]
    head = [[(char, look | HEAD) for char, look in cell] for cell in rows[0]]
    ruled: Cell = [(char, MARK) for char in CROSS.join(DASH * one for one in widths)]
    body = [row for cells in rows[2:] for row in _set(cells, widths, sides)]
    return _joined([*_set(head, widths, sides), ruled, *body])


def _spans(line: str) -> list[tuple[int, int]]:
    """Where each cell's text is."""
    end = len(line.rstrip())
    edges = [found.start() for found in EDGE.finditer(line, 0, end)]
    if edges and edges[-1] < end - 1 or len(edges) == 1:
        edges.append(end)
    return [(a + 1, b) for a, b in zip(edges, edges[1:], strict=False)]


def _cell(line: Line, start: int, end: int) -> Cell:
    """A cell's characters, its markup resolved."""
    text, drafted = line
    inner = text[start:end]
    at = start + len(inner) - len(inner.lstrip())
    spans, _ = resolve(inner.strip(), final=True)
    return [
        (text[i], span.look | DRAFTED if drafted[i] else span.look)
        for span in spans
        for i in range(at + span.start, at + span.end)
    ]


def _raw(line: Line) -> Cell:
    return [(char, DRAFTED if is_drafted else PLAIN)
            for char, is_drafted in zip(*line, strict=True)]  # fmt: skip


def _side(dashes: str) -> str:
    """Where a column's texts stand: "", "right" or "centre"."""
    dashes = dashes.strip()
    if not dashes.endswith(":"):
        return ""
    return "centre" if dashes.startswith(":") else "right"


def _widths(sizes: Sequence[Sequence[int]], width: int) -> list[int]:
    """Columns of each column: as its widest cell needs, the widest of them less until all fit.

    Zeros if they cannot.
    """
    widths = [max(1, *column) for column in zip(*sizes, strict=True)]
    over = sum(widths) + len(BETWEEN) * (len(widths) - 1) - width
    for _ in range(over):
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= LEAST:
            return [0] * len(widths)
        widths[widest] -= 1
    return widths


def _set(cells: Sequence[Cell], widths: Sequence[int], sides: Sequence[str]) -> Iterator[Cell]:
    """The rows on the screen that a row of the table takes."""
    columns = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for parts in zip_longest(*columns, fillvalue=list[Glyph]()):
        row: Cell = []
        for number, (part, width, side) in enumerate(zip(parts, widths, sides, strict=True)):
            gap = width - _cells(part)
            before = {"right": gap, "centre": gap // 2}.get(side, 0)
            row += [(char, MARK) for char in BETWEEN] if number else []
            row += [(" ", PLAIN)] * before + part + [(" ", PLAIN)] * (gap - before)
        while row and row[-1] == (" ", PLAIN):
            row.pop()
        yield row


def _wrapped(cell: Cell, width: int) -> list[Cell]:
    wrap = Wrap(width, least=1)
    rows: list[Cell] = [[]]
    for glyph in [*wrap.put(cell), *wrap.end()]:
        if glyph == NEWLINE:
            rows.append([])
        else:
            rows[-1].append(glyph)
    return rows


def _joined(rows: Sequence[Cell]) -> list[Glyph]:
    return [glyph for at, row in enumerate(rows) for glyph in ([NEWLINE] if at else []) + row]


def _cells(glyphs: Cell) -> int:
    return sum(cell_len(char) for char, _ in glyphs)
