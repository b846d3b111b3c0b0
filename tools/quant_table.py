"""Measures the rows of tests/quant/cases.py and demo.py and writes them into docs/formats.md: ``python -m tools.quant_table``."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests import data
from tests.quant import demo
from tests.quant.cases import CASES, Case
from tests.quant.checkpoints import logits_of, packed_weights, worst

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
START, DEMO_START, END = "<!-- generated: measured -->", "<!-- generated: demo -->", "<!-- end -->"
_HEAD = (
    "| method | scheme | producer | error, float32 | error, CPU kernels | bytes | of bfloat16 | device |",
    "|---|---|---|---|---|---|---|---|",
)


_DEMO_HEAD = ("| method | scheme | exact answers | perplexity | bytes | of bfloat16 |", "|---|---|---|---|---|---|")


class Measured(NamedTuple):
    """Errors relative to the largest logit; bytes of the linear layers as held, and as bfloat16."""

    error: float
    native: float
    held: int
    dense: int


def measure(case: Case, folder: Path) -> Measured:
    """Make the checkpoint in an empty folder and run it twice."""
    made = case.make(folder)
    errors = []
    for flags in ({"dtype": "float32"}, {"dtype": "bfloat16", "native": True}):
        got = logits_of(made.path, made.prompts, **flags, **case.flags)  # type: ignore[arg-type]
        errors.append(worst([rows[-len(true) :] for rows, true in zip(got, made.wanted, strict=True)], made.wanted))
    packed = [weight for name, weight in packed_weights(made.path, **case.flags).items() if name != "head"]
    return Measured(*errors, sum(each.nbytes() for each in packed), sum(2 * each.outputs * each.inputs for each in packed))


def row(case: Case, found: Measured) -> str:
    """The line of the table; bytes come last but one, so that :func:`bytes_of` finds them."""
    return (
        f"| `{case.method}` | {case.scheme} | {case.producer} | {found.error:.1e} | {found.native:.1e} | {found.held} | "
        f"{found.held / found.dense:.2f} | cpu |"
    )


def rows(text: str, start: str = START, cells: int = 3) -> dict[tuple[str, ...], str]:
    """The lines of a table of the page, by method, scheme and producer (its first cells)."""
    block = text.partition(start)[2].partition(END)[0]
    lines = [line for line in block.splitlines() if line.startswith("| `")]
    return {tuple(cell.strip(" `") for cell in line.split("|")[1 : cells + 1]): line for line in lines}


def bytes_of(line: str) -> int:
    """The bytes that a line of the page states."""
    return int(line.split("|")[6])


def render(text: str) -> str:
    """The page with every row measured anew; a row whose test data is not here stays as it is."""
    old = rows(text)
    lines = list(_HEAD)
    for case in CASES:
        key = (case.method, case.scheme, case.producer)
        if case.needs and not data.has_shared(case.needs):
            lines += [old[key]] if key in old else []
            continue
        with tempfile.TemporaryDirectory() as folder:
            lines.append(row(case, measure(case, Path(folder))))
        sys.stderr.write(lines[-1] + "\n")
    text = _replace(text, START, lines)
    return _replace(text, DEMO_START, demo_lines())


def demo_lines() -> list[str]:
    """The bundled model by every weight-only method."""
    samples = demo.questions()
    lines = list(_DEMO_HEAD)
    dense = 0
    for case in demo.DEMO:
        with tempfile.TemporaryDirectory() as folder:
            found = demo.measure(case, Path(folder), samples)
        dense = dense or found.held
        exact, perplexity = f"{100 * found.exact:.1f} %", f"{found.perplexity:.4f}"
        lines.append(f"| `{case.method}` | {case.scheme} | {exact} | {perplexity} | {found.held} | {found.held / dense:.2f} |")
        sys.stderr.write(lines[-1] + "\n")
    return lines


def _replace(text: str, start: str, lines: list[str]) -> str:
    block = "\n".join((start, *lines, END))
    return re.sub(re.escape(start) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
