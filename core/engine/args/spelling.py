"""Finds the name that a mistyped one was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name with the fewest edits from ``word``, or the one that it begins; None where all are far.

    Far is more than two edits and a third of the word, or than one of a short word.
    """
    bare = word.lower()
    best: tuple[float, str] | None = None
    for name in names:
        other = name.lower()
        if bare == other:
            return name
        cost: float = _distance(bare, other)
        if len(bare.strip("-")) >= 3 and (other.startswith(bare) or bare.startswith(other)):
            cost = min(cost, 1.5)
        if cost <= max(2 if len(bare) > 3 else 1, len(bare) // 3) and cost < len(bare.strip("-")) and (best is None or cost < best[0]):
            best = (cost, name)
    return best[1] if best else None


def _distance(a: str, b: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that make ``a`` into ``b``."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
