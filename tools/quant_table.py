"""Measures the rows of tests/quant/cases.py and writes them into docs/formats.md: ``python -m tools.quant_table``."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests import data
from tests.quant.cases import CASES, Case
from tests.quant.checkpoints import logits_of, packed_weights, worst

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
START, END = "<!-- generated: measured -->", "<!-- end -->"
_HEAD = (
    "| method | scheme | producer | error, float32 | error, CPU kernels | bytes | of bfloat16 | device |",
    "|---|---|---|---|---|---|---|---|",
)


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


def rows(text: str) -> dict[tuple[str, str, str], str]:
    """The page's lines by method, scheme and producer."""
    block = text.partition(START)[2].partition(END)[0]
    lines = [line for line in block.splitlines() if line.startswith("| `")]
    keys = ([cell.strip(" `") for cell in line.split("|")[1:4]] for line in lines)
    return {(key[0], key[1], key[2]): line for key, line in zip(keys, lines, strict=True)}


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
    block = "\n".join((START, *lines, END))
    return re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
