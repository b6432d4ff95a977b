"""Ranges of numbers as a grammar, in decimal digits without an exponent."""

from __future__ import annotations


def numbers(low: int, high: int, n_places: int) -> str:
    """The decimals from low to high in units of their last place; zero has no sign."""
    parts = [f'"-" ({decimals(max(1, -high), -low, n_places)})'] if low < 0 else []
    parts += [decimals(max(0, low), high, n_places)] if high >= 0 else []
    return " | ".join(parts)


def decimals(low: int, high: int, n_places: int) -> str:
    """As `numbers`, both from 0 up."""
    if not n_places:
        return digits(low, high)
    unit = 10**n_places
    (first, least), (last, most) = divmod(low, unit), divmod(high, unit)
    if first == last:
        return f'"{first}" {places(least, most, n_places)}'
    parts = [f'"{first}" {places(least, unit - 1, n_places)}']
    if last - first > 1:
        parts.append(f"({digits(first + 1, last - 1)}) {places(0, unit - 1, n_places)}")
    return " | ".join([*parts, f'"{last}" {places(0, most, n_places)}'])


def places(low: int, high: int, n: int) -> str:
    """The point and up to n digits after it, which stand for low to high when there are n."""
    body = f'("." ({places_of(str(low).zfill(n), str(high).zfill(n))}))'
    return body if low else f"{body}?"


def places_of(low: str, high: str) -> str:
    """One digit or more, with zeros after them from low to high."""
    rest = len(low) - 1
    if not int(low) and high == "9" * len(high):
        return f"[0-9]{{1,{rest + 1}}}"
    if low[0] == high[0]:
        return f'"{low[0]}" {more_places(low[1:], high[1:])}'
    parts = [f'"{low[0]}" {more_places(low[1:], "9" * rest)}']
    if int(high[0]) - int(low[0]) > 1:
        parts.append(f"[{int(low[0]) + 1}-{int(high[0]) - 1}]" + f" [0-9]{{0,{rest}}}" * (rest > 0))
    return " | ".join([*parts, f'"{high[0]}" {more_places("0" * rest, high[1:])}'])


def more_places(low: str, high: str) -> str:
    """As `places_of`, or none at all if zeros alone will do."""
    return f"({places_of(low, high)})" + "?" * (not int(low)) if low else ""


def digits(low: int, high: int) -> str:
    """The decimal integers from low to high, both from 0 up."""
    out = []
    for n in range(len(str(low)), len(str(high)) + 1):
        first, last = max(low, 10 ** (n - 1) if n > 1 else 0), min(high, 10**n - 1)
        out.append(span(str(first), str(last)))
    return " | ".join(out)


def span(low: str, high: str) -> str:
    """The numbers from low to high, which have the same number of digits."""
    rest = len(low) - 1
    if not rest:
        return f"[{low}-{high}]"
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return f"[{low[0]}-{high[0]}] [0-9]{{{rest}}}"
    if low[0] == high[0]:
        return f'"{low[0]}" ({span(low[1:], high[1:])})'
    first, last = span(low[1:], "9" * rest), span("0" * rest, high[1:])
    parts = [f'"{low[0]}" ({first})', f'"{high[0]}" ({last})']
    if int(high[0]) - int(low[0]) > 1:
        parts.insert(1, f"[{int(low[0]) + 1}-{int(high[0]) - 1}] [0-9]{{{rest}}}")
    return " | ".join(parts)
