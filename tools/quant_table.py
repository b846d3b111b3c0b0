"""Measures the rows of tests/quant/cases.py and demo_cases.py for docs/formats.md: ``python -m tools.quant_table [TEXT] [--missing]``."""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from tests import data
from tests.quant import demo
from tests.quant.cases import CASES, Case
from tests.quant.checkpoints import layers_of, logits_of, worst
from tests.quant.demo_cases import DEMO
from tests.quant.products import Product, errors_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "formats.md"
START, DEMO_START, END = "<!-- generated: measured -->", "<!-- generated: demo -->", "<!-- end -->"
_HEAD = (
    "| method | scheme | producer | logits, float32 | logits, CPU kernels | bytes | of bfloat16 "
    "| product, reference | product, kernel | its mean | device |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
_DEMO_HEAD = ("| method | scheme | producer | exact answers | perplexity | bytes | of bfloat16 |", "|---|---|---|---|---|---|---|")


class Measured(NamedTuple):
    """Errors relative to the largest logit; bytes of the linear layers as held, and as bfloat16; errors of the worst layer's product.

    ``reference``: of the reference kernels in float32. ``kernel``: of the CPU's own with bfloat16 activations.
    """

    error: float
    native: float
    held: int
    dense: int
    reference: Product
    kernel: Product


def measure(case: Case, folder: Path) -> Measured:
    """Make the checkpoint in an empty folder, run it by either kind of kernels, and measure the products of its layers."""
    made = case.make(folder)
    errors = []
    for flags in ({"dtype": "float32"}, {"dtype": "bfloat16", "native": True}):
        got = logits_of(made.path, made.prompts, **flags, **case.flags)  # type: ignore[arg-type]
        errors.append(worst([rows[-len(true) :] for rows, true in zip(got, made.wanted, strict=True)], made.wanted))
    layers = layers_of(made.path, **case.flags)
    packed = [weight for name, (weight, _) in layers.items() if name != "head"]
    held, dense = sum(each.nbytes() for each in packed), sum(2 * each.outputs * each.inputs for each in packed)
    # A method that rounds while loading gets other weights in another dtype.
    same = layers_of(made.path, dtype="bfloat16", **case.flags)
    native = layers_of(made.path, native=True, dtype="bfloat16", **case.flags)
    return Measured(*errors, held, dense, errors_of(layers, layers, torch.float32), errors_of(same, native, torch.bfloat16))


def row(case: Case, found: Measured) -> str:
    """The line of the table; :func:`bytes_of` and :func:`products_of` find what they need by its place."""
    return (
        f"| `{case.method}` | {case.scheme} | {case.producer} | {found.error:.1e} | {found.native:.1e} | {found.held} | "
        f"{found.held / found.dense:.2f} | {found.reference.largest:.1e} | {found.kernel.largest:.1e} | {found.kernel.mean:.1e} | cpu |"
    )


def rows(text: str, start: str = START, cells: int = 3) -> dict[tuple[str, ...], str]:
    """The lines of a table of the page, by method, scheme and producer (its first cells)."""
    block = text.partition(start)[2].partition(END)[0]
    lines = [line for line in block.splitlines() if line.startswith("| `")]
    return {tuple(cell.strip(" `") for cell in line.split("|")[1 : cells + 1]): line for line in lines}


def bytes_of(line: str) -> int:
    """The bytes that a line of the page states."""
    return int(line.split("|")[6])


def products_of(line: str) -> tuple[float, float]:
    """The errors of a product that a line states: the reference's and the kernel's."""
    cells = line.split("|")
    return float(cells[8]), float(cells[9])


def case_line(number: int) -> str | None:
    """The row of a case, measured anew; None where its test data or its library is not here."""
    case = CASES[number]
    if (case.needs and not data.has_shared(case.needs)) or not here(case.library):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return row(case, measure(case, Path(folder)))


def demo_line(number: int) -> str | None:
    """The row of the bundled model by one method; None where its library is not here."""
    case = DEMO[number]
    if not here(case.library()):
        return None
    with tempfile.TemporaryDirectory() as folder:
        found = demo.measure(case, Path(folder), demo.questions())
    exact, perplexity, share = f"{100 * found.exact:.1f} %", f"{found.perplexity:.4f}", f"{found.held / found.dense:.2f}"
    return f"| `{case.method}` | {case.scheme} | {case.producer} | {exact} | {perplexity} | {found.held} | {share} |"


def here(module: str) -> bool:
    """Whether a library is installed; no name: none is needed."""
    return not module or find_spec(module) is not None


def measure_rows(page: Path, only: str = "", *, missing: bool = False) -> None:
    """Measure the rows whose method, scheme or producer contains ``only``, two at a time, and write each into the page when it is done.

    ``missing``: those alone that the page does not have. A row whose test data or library is not here stays as it is; one that no case
    has any more goes.
    """
    cases = [(case.method, case.scheme, case.producer) for case in CASES]
    shown = [(case.method, case.scheme, case.producer) for case in DEMO]
    # A process that begins anew has threads of its own: torch's do not survive a fork.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for start, head, keys, line in ((START, _HEAD, cases, case_line), (DEMO_START, _DEMO_HEAD, shown, demo_line)):
            there = rows(page.read_text(), start) if missing else {}
            wanted = [i for i, key in enumerate(keys) if only in " ".join(key) and key not in there]
            for count, (number, made) in enumerate(zip(wanted, pool.map(line, wanted), strict=True), 1):
                if made is not None:
                    sys.stderr.write(f"{count}/{len(wanted)} {made}\n")
                    page.write_text(with_row(page.read_text(), start, head, keys, number, made))


def with_row(text: str, start: str, head: tuple[str, ...], keys: list[tuple[str, ...]], number: int, line: str) -> str:
    """The page with that row in its place among those of ``keys``."""
    known = rows(text, start) | {keys[number]: line}
    return _replace(text, start, [*head, *(known[key] for key in keys if key in known)])


def _replace(text: str, start: str, lines: list[str]) -> str:
    block = "\n".join((start, *lines, END))
    return re.sub(re.escape(start) + ".*?" + re.escape(END), lambda _: block, text, flags=re.DOTALL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="?", default="", help="rows whose method, scheme or producer contains this")
    parser.add_argument("--missing", action="store_true", help="rows that the page does not have")
    asked = parser.parse_args()
    measure_rows(PAGE, asked.only, missing=asked.missing)
