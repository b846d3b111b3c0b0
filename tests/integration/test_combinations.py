"""Every two features at once, at temperature 0: what the documentation and ``engine plan`` say is what happens."""

from __future__ import annotations

import json

from engine.combinations import combinations, summary
from engine.report import render
from tools.combinations.features import FEATURES
from tools.combinations.run import DATA, PAGE, SAME, SHAPED, page, run


def test_every_pair_of_features():
    matrix = run()
    assert len(matrix) == len(FEATURES) * (len(FEATURES) + 1) // 2
    wrong = {pair: result for pair, result in matrix.items() if result not in (SAME, SHAPED)}
    assert not wrong
    told = "run python -m tools.combinations.run"
    assert PAGE.read_text(encoding="utf-8") == page(matrix), told
    assert json.loads(DATA.read_text(encoding="utf-8"))["pairs"] == [[*pair, result] for pair, result in matrix.items()], told


def test_the_plan_shows_them():
    found = combinations()
    line = summary(found)
    assert f"{len(FEATURES)} features, 55 pairs" in line
    found["pairs"][0][2] = "it broke"
    assert f"{found['features'][0]} with {found['features'][0]}: it broke" in summary(found)
    plan = {
        "model": {"name": "m", "path": None}, "device": None, "quantization": None, "weights": None, "kv_cache": None, "expected_rss": None,
        "plugins": [], "warnings": [], "refused": [], "combinations": combinations(),
    }  # fmt: skip
    assert f"together   {line}" in render(plan)
