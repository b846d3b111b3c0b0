"""Every row of the table of docs/formats.md: measured again, within its limits, and as the page says."""

from __future__ import annotations

import pytest

from tests.data import shared
from tests.quant.cases import CASES
from tools import quant_table

ROWS = quant_table.rows(quant_table.PAGE.read_text())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_row_of_the_table(case, tmp_path):
    line = ROWS.get((case.method, case.scheme, case.producer))
    assert line is not None, "run: python -m tools.quant_table"
    if case.needs:
        shared(case.needs)
    found = quant_table.measure(case, tmp_path)
    assert found.error < case.most and found.native < case.most_native
    assert quant_table.bytes_of(line) == found.held, "run: python -m tools.quant_table"
    assert float(line.split("|")[4]) < case.most and float(line.split("|")[5]) < case.most_native


def test_the_page_has_no_other_rows():
    assert set(ROWS) == {(case.method, case.scheme, case.producer) for case in CASES}
