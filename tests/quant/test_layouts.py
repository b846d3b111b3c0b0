"""What a method says its weights become, by which the plan knows the device's kernels, is what they become."""

from __future__ import annotations

import importlib
import json

import pytest

from engine.worker.kernels import leaves
from tests.quant.cases import CASES
from tests.quant.checkpoints import packed_weights

#: Methods whose config alone says what every layer becomes.
SAYING = (
    "awq", "awq_marlin", "fbgemm_fp8", "fp8", "gptq", "gptq_marlin", "gptq_marlin_24", "hqq", "marlin", "moe_wna16", "ptpc_fp8", "qqq"
)  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.method in SAYING and not case.needs], ids=lambda case: case.name)
def test_layouts_are_those_of_the_packed_weights(case, tmp_path):
    made = case.make(tmp_path)
    module = importlib.import_module(f"engine_quant.{case.method}")
    config = json.loads((made.path / "config.json").read_text()).get("quantization_config")
    said = set(module.engine_create_quantizer(config=config).layouts())
    found = {leaf for packed in packed_weights(made.path, **case.flags).values() for leaf in leaves(packed) if leaf.layout != "dense"}
    assert said == {f"{leaf.layout} {leaf.bits}" if hasattr(leaf, "bits") else leaf.layout for leaf in found}
