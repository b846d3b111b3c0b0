"""Every row of the table of docs/formats.md: measured again, within its limits, and as the page says."""

from __future__ import annotations

import pytest

from tests.data import shared
from tests.quant import demo
from tests.quant.cases import CASES
from tests.quant.demo_cases import DEMO
from tools import quant_table

ROWS = quant_table.rows(quant_table.PAGE.read_text())
#: What a linear layer's product may be off: the reference's in float32, a kernel's with bfloat16 activations.
EXACT, NEAR = 1e-5, 2e-2


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_row_of_the_table(case, tmp_path):
    line = ROWS.get((case.method, case.scheme, case.producer))
    assert line is not None, "run: python -m tools.quant_table"
    if case.needs:
        shared(case.needs)
    if case.library:
        pytest.importorskip(case.library)
    found = quant_table.measure(case, tmp_path)
    assert found.error < case.most and found.native < case.most_native
    assert found.reference.largest <= EXACT and found.kernel.largest <= NEAR
    assert quant_table.bytes_of(line) == found.held, "run: python -m tools.quant_table"
    assert float(line.split("|")[4]) < case.most and float(line.split("|")[5]) < case.most_native
    reference, kernel = quant_table.products_of(line)
    assert reference <= EXACT and kernel <= NEAR


def test_the_page_has_no_other_rows():
    assert set(ROWS) == {(case.method, case.scheme, case.producer) for case in CASES}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The questions, and the unquantized model's quality."""
    samples = demo.questions()
    return samples, demo.measure(DEMO[0], tmp_path_factory.mktemp("demo"), samples)


LOSSLESS = [case for case in DEMO if case.near and case.method != "none"]


@pytest.mark.parametrize("case", LOSSLESS, ids=[case.name for case in LOSSLESS])
def test_eight_bits_lose_no_answers(case, plain, tmp_path):
    if case.library():
        pytest.importorskip(case.library())
    samples, before = plain
    assert before.exact > 0.95
    found = demo.measure(case, tmp_path, samples)
    assert found.exact >= before.exact - 0.01 and found.perplexity < 1.01 * before.perplexity
    assert found.held <= 0.6 * before.held


def test_the_page_has_the_bundled_model_by_every_method():
    lines = quant_table.rows(quant_table.PAGE.read_text(), quant_table.DEMO_START)
    assert set(lines) == {(case.method, case.scheme, case.producer) for case in DEMO}
