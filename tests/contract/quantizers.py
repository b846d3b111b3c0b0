"""The quantization methods' suites: what each keeps of a layer, by the packers of the methods' own tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.plugin.testing import QuantizerContract
from tests.quant import floats, packers, tiles
from tests.quant.checkpoints import Quantized

Pack = Callable[[Tensor], Quantized]


def method(
    pack: Pack | None, settings: dict[str, Any] | None, *, tolerance: float = 1e-5, size: tuple[int, int] = (64, 128), experts: int = 0,
    shards: bool = True,
) -> type[QuantizerContract]:  # fmt: skip
    """A suite: ``pack`` says what a checkpoint holds for a weight and what that means; None: plain weights, rounded while loading."""

    class Method(QuantizerContract):
        config = settings
        outputs, inputs = size
        supports = frozenset({"shards"} if shards else ())

        @pytest.fixture
        def made(self) -> Quantized:
            torch.manual_seed(11)
            weight = torch.randn(self.outputs, self.inputs, generator=torch.Generator().manual_seed(5))
            return pack(weight) if pack is not None else ({"weight": weight}, weight)

        @pytest.fixture
        def stored(self, made: Quantized) -> dict[str, Tensor]:
            return made[0]

        @pytest.fixture
        def dense(self, made: Quantized) -> Tensor:
            return made[1]

    Method.tolerance = tolerance
    Method.experts = experts
    return Method


def _aqlm(weight: Tensor) -> Quantized:
    from tests.quant.test_aqlm import additive

    return additive(weight, 2, 8, 8)


def _nf4(weight: Tensor) -> Quantized:
    pytest.importorskip("bitsandbytes")
    from tests.quant.test_bitsandbytes import four_bit

    return four_bit(weight)


def _compressed(weight: Tensor) -> Quantized:
    pytest.importorskip("compressed_tensors")
    from tests.quant.compressing import compress

    return compress(weight, _COMPRESSED)


_COMPRESSED = {
    "targets": ["Linear"], "format": "pack-quantized", "input_activations": None, "output_activations": None,
    "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32},
}  # fmt: skip
_AQLM = {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": 2, "nbits_per_codebook": 8}
_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
_MARLIN = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
_TILED = (256, 256)


def _gguf(weight: Tensor) -> Quantized:
    pytest.importorskip("gguf")
    from tests.gguf.producer import dequantized, encoded

    raw = encoded("Q8_0", weight, 0)
    return {"q8_0": torch.from_numpy(raw)}, dequantized("Q8_0", raw)


QUANTIZERS: dict[tuple[str, str], type[QuantizerContract]] = {
    ("quantization", name): suite
    for name, suite in {
        "aqlm": method(_aqlm, _AQLM),
        "auto-round": method(packers.gptq, _GPTQ | {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}),
        "awq": method(packers.awq, _AWQ),
        "awq_marlin": method(lambda w: packers.awq(w, bits=8), _AWQ | {"bits": 8}),
        "bitsandbytes": method(_nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, shards=False),
        "compressed-tensors": method(
            _compressed, {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": _COMPRESSED}}
        ),
        "deepspeedfp": method(None, {"quant_method": "deepspeedfp", "bits": 8, "group_size": 128}, tolerance=0.07),
        "experts_int8": method(None, None, tolerance=0.02, experts=4),
        "fbgemm_fp8": method(floats.per_output, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1e3}),
        "fp8": method(floats.per_layer, {"quant_method": "fp8", "activation_scheme": "static"}),
        "gguf": method(_gguf, {"types": {"model.layers.0.mlp.down_proj": "Q8_0"}}),
        "gptq": method(packers.gptq, _GPTQ),
        "gptq_marlin": method(packers.gptq, _GPTQ),
        "gptq_marlin_24": method(tiles.marlin_24, _MARLIN | {"checkpoint_format": "marlin_24"}, size=_TILED),
        "hqq": method(
            packers.hqq, {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}}
        ),
        "ipex": method(packers.gptq, _GPTQ),
        "marlin": method(tiles.marlin, _MARLIN | {"checkpoint_format": "marlin"}, size=_TILED),
        "modelopt": method(floats.per_layer, floats.modelopt_config("FP8")),
        "moe_wna16": method(packers.gptq, _GPTQ),
        "nvfp4": method(floats.nvfp4, floats.modelopt_config("NVFP4")),
        "ptpc_fp8": method(None, None, tolerance=0.04),
        "qqq": method(tiles.qqq, {"quant_method": "qqq", "wbits": 4, "group_size": 128}, size=_TILED),
        "quark": method(floats.mxfp4, floats.quark_config(floats.quark_rule("fp4", "per_group", group_size=32), None)),
    }.items()
}
