"""Arithmetic on measurements: percentiles, medians over repeats, and their tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

PERCENTS = (50, 90, 99)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest measured value that at least ``percent`` % of all do not exceed. Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean. Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)


def describe(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, percentiles and extremes; None where nothing was measured."""
    if not values:
        return None
    shown = {f"p{percent}": percentile(values, percent) for percent in PERCENTS}
    return {"mean": mean(values), **shown, "min": min(values), "max": max(values)}


def flatten(result: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, names joined with dots; lists and None stay away."""
    found: dict[str, Any] = {}
    for name, value in result.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif value is not None and not isinstance(value, list | tuple):
            found[prefix + name] = value
    return found


def over_repeats(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """For every number that all repeats have: its median (the mean of the middle two) and its extremes, by flattened name."""
    flat = [flatten(result) for result in results]
    names = [name for name, value in flat[0].items() if is_number(value) and all(is_number(other.get(name)) for other in flat)]
    return {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name in names
        for values in [[float(each[name]) for each in flat]]
    }


def is_number(value: object) -> bool:
    """Whether it is measured or counted, not a switch."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: object) -> str:
    """Four digits of a float, everything else as it is."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 10000 else f"{value:.4g}"
    return str(value)


def table(result: Mapping[str, Any]) -> str:
    """Two columns: names and values."""
    rows = flatten(result)
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name:<{width}}  {number(value)}" for name, value in rows.items())


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a head, the first column to the left and the others to the right."""
    every = [head, *rows]
    widths = [max(len(row[place]) for row in every) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip()

    return "\n".join(map(line, every))
