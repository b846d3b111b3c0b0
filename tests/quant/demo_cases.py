"""The bundled model's rows in docs/formats.md: every weight-only method, and those of 8-bit floats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.quant import floats, packers, tiles
from tests.quant.cases import AWQ, BLOCKS, GPTQ, MARLIN, QQQ
from tests.quant.checkpoints import Quantized
from tests.quant.demo import DemoCase

FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_storage": "uint8", "bnb_4bit_use_double_quant": True}
EIGHT = {"quant_method": "bitsandbytes", "load_in_8bit": True}
DYNAMIC8 = floats.quark_config(floats.quark_rule("fp8_e4m3", "per_channel"), floats.quark_rule("fp8_e4m3", "per_token", dynamic=True))
MXFP4 = floats.quark_config(floats.quark_rule("fp4", "per_group", group_size=32), None)


def _gptq(bits: int, method: str = "gptq", *, near: bool = False, config: dict[str, Any] | None = None, **how: Any) -> DemoCase:
    how = {"symmetric": False} | how
    settings = GPTQ | {"bits": bits, "sym": how["symmetric"], "desc_act": how.get("act_order", False)} | (config or {})
    order = ", act-order" if how.get("act_order") else ""
    return DemoCase(
        method, f"{bits} bits, groups of 32{order}", lambda weight: packers.gptq(weight, bits=bits, **how), settings,
        {"quantization": method}, near=near or bits == 8,
    )  # fmt: skip


def _awq(bits: int, method: str = "awq") -> DemoCase:
    pack = lambda weight: packers.awq(weight, bits=bits)  # noqa: E731
    return DemoCase(method, f"{bits} bits, groups of 32", pack, AWQ | {"bits": bits}, {"quantization": method}, near=bits == 8)


def _hqq(bits: int, group: int) -> DemoCase:
    params = {"weight_quant_params": {"nbits": bits, "group_size": group, "axis": 1}}
    config = {"quant_method": "hqq", "quant_config": params}
    scheme = f"{bits} bits, groups of {group}"
    return DemoCase("hqq", scheme, lambda weight: packers.hqq(weight, bits=bits, group=group), config, near=bits == 8)


def _online(method: str, near: bool = True, scheme: str = "while loading", files: dict[str, Any] | None = None) -> DemoCase:
    flags = {"quantization": method}
    return DemoCase(method, scheme, flags=flags, near=near, producer="while loading", files=files or {})


def _compressed(scheme: str, format: str, near: bool = False, **weights: Any) -> DemoCase:
    """By the library's own compressor; activations as they are."""
    entry = {
        "targets": ["Linear"], "weights": {"symmetric": True} | weights, "input_activations": None, "output_activations": None,
        "format": format,
    }  # fmt: skip

    def pack(weight: Tensor) -> Quantized:
        from tests.quant.compressing import compress

        return compress(weight, entry)

    config = {
        "quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": entry}, "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }  # fmt: skip
    return DemoCase("compressed-tensors", scheme, pack, config, near=near, producer="compressed-tensors")


def _bnb(kind: str) -> Callable[[Tensor], Quantized]:
    """One layer as the library saves it."""

    def pack(weight: Tensor) -> Quantized:
        from bitsandbytes import functional

        if kind == "int8":
            codes, scale, _ = functional.int8_vectorwise_quant(weight.half())
            return {"weight": codes, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}, weight
        packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type=kind)
        return {"weight": packed, **{f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}}, weight

    return pack


def additive(weight: Tensor, books: int, rounds: int = 12) -> Quantized:
    """AQLM's layout: each codebook of 256 vectors of eight is fitted (Lloyd's algorithm) to what the ones before leave."""
    outputs = len(weight)
    scales = weight.abs().amax(1)
    left = (weight / scales.unsqueeze(1)).reshape(-1, 8)
    codes, tables = [], []
    for _ in range(books):
        table = left[:: max(1, len(left) // 256)][:256].clone()
        for _ in range(rounds):
            nearest = torch.cdist(left, table).argmin(1)
            counts = torch.bincount(nearest, minlength=256).clamp(min=1).unsqueeze(1)
            table = torch.zeros_like(table).index_add_(0, nearest, left) / counts
        table = table.half()
        nearest = torch.cdist(left, table.float()).argmin(1)
        left = left - table.float()[nearest]
        codes.append(nearest.view(outputs, -1))
        tables.append(table.unsqueeze(1))
    stored = torch.stack(codes, -1).to(torch.uint8).view(torch.int8)
    return {"codes": stored, "codebooks": torch.stack(tables), "scales": scales.half().view(-1, 1, 1, 1)}, weight


def _aqlm(books: int) -> DemoCase:
    config = {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": books, "nbits_per_codebook": 8}
    return DemoCase("aqlm", f"{books} × 8 bits per 8", lambda weight: additive(weight, books), config)


def _gguf(kind: str) -> DemoCase:
    library = kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
    return DemoCase("gguf", kind, near=kind == "Q8_0", blocks=kind, producer="gguf" if library else "specification")


def _modelopt(algorithm: str, pack: Callable[[Tensor], Quantized], near: bool = False, **more: Any) -> DemoCase:
    return DemoCase("nvfp4" if "NVFP4" in algorithm else "modelopt", algorithm, pack, floats.modelopt_config(algorithm, **more), near=near)


DEMO: tuple[DemoCase, ...] = (
    DemoCase("none", "bfloat16", near=True, producer="the bundled model"),
    _gptq(2), _gptq(3), _gptq(4), _gptq(4, act_order=True), _gptq(8),
    _gptq(4, "gptq_marlin", symmetric=True), _gptq(8, "gptq_marlin", symmetric=True), _gptq(4, "moe_wna16"), _gptq(4, "ipex"),
    _awq(4), _awq(8), _awq(8, "awq_marlin"),
    DemoCase("marlin", "4 bits, groups of 128", tiles.marlin, MARLIN | {"checkpoint_format": "marlin"}),
    DemoCase("gptq_marlin_24", "4 bits, 2:4", tiles.marlin_24, MARLIN | {"checkpoint_format": "marlin_24"}),
    DemoCase("qqq", "4 bits, groups of 128", tiles.qqq, QQQ),
    _hqq(2, 32), _hqq(3, 32), _hqq(4, 64), _hqq(8, 64),
    _compressed("W4A16, groups of 32", "pack-quantized", num_bits=4, type="int", strategy="group", group_size=32),
    _compressed("W8A16", "pack-quantized", near=True, num_bits=8, type="int", strategy="channel"),
    _compressed("W8A16, FP8", "float-quantized", near=True, num_bits=8, type="float", strategy="channel"),
    _compressed("NVFP4A16", "nvfp4-pack-quantized", num_bits=4, type="float", strategy="tensor_group", group_size=16,
                scale_dtype="torch.float8_e4m3fn"),
    _modelopt("W4A16_AWQ", floats.nibble_rows, group_size=64), _modelopt("W8A16", floats.integer8, near=True),
    _modelopt("FP8_PER_CHANNEL_PER_TOKEN", lambda weight: _vector(floats.per_output(weight)), near=True),
    _modelopt("W4A16_NVFP4", lambda weight: floats.alone(floats.nvfp4(weight))),
    DemoCase("quark", "FP8 per channel and token", lambda weight: _vector(floats.per_output(weight)), DYNAMIC8, near=True),
    DemoCase("quark", "MXFP4 weights", floats.mxfp4, MXFP4),
    DemoCase("fp8", "blocks of 128", floats.in_blocks, BLOCKS, near=True),
    DemoCase("fbgemm_fp8", "one scale per output", floats.per_output, {"quant_method": "fbgemm_fp8"}, near=True),
    DemoCase("bitsandbytes", "nf4", _bnb("nf4"), FOUR | {"bnb_4bit_quant_type": "nf4"}, producer="bitsandbytes"),
    DemoCase("bitsandbytes", "fp4", _bnb("fp4"), FOUR | {"bnb_4bit_quant_type": "fp4"}, producer="bitsandbytes"),
    DemoCase("bitsandbytes", "int8", _bnb("int8"), EIGHT, near=True, producer="bitsandbytes"),
    _aqlm(2), _aqlm(4),
    *(_gguf(kind) for kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4")),
    _online("deepspeedfp", False, "6 bits, runs of 64", {"quant_config.json": {"bits": 6, "group_size": 64}}),
    _online("deepspeedfp", True, "8 bits, runs of 64", {"quant_config.json": {"bits": 8, "group_size": 64}}),
    _online("fp8"), _online("ptpc_fp8"), _online("bitsandbytes", False), _online("tpu_int8"), _online("neuron_quant"),
)  # fmt: skip


def _vector(made: Quantized) -> Quantized:
    """Scales as [N]."""
    return made[0] | {"weight_scale": made[0]["weight_scale"].flatten()}, made[1]
