"""What the table of docs/formats.md measures: one row per format, scheme and producer. A method appears there by a row here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests import data
from tests.quant import floats, packers, tiles
from tests.quant.checkpoints import PROMPTS, Quantized, logits_of_transformers, tiny_llama, tiny_qwen3_moe, write_quantized


class Made(NamedTuple):
    """A checkpoint and its true logits: ``wanted`` has the last rows of each prompt's (all, or the last one alone)."""

    path: Path
    prompts: tuple[list[int], ...]
    wanted: list[Tensor]


@dataclass(frozen=True)
class Case:
    """One row: ``make`` writes the checkpoint into an empty folder. ``needs``: test data without which it cannot.

    ``most``: the largest error relative to the largest logit that the reference kernels may make in float32, ``most_native`` the CPU's
    own in bfloat16. ``flags``: of the engine. ``library``: a module without which it cannot be made.
    """

    method: str
    scheme: str
    producer: str
    make: Callable[[Path], Made]
    needs: str = ""
    most: float = 1e-5
    most_native: float = 4e-2
    flags: dict[str, Any] = field(default_factory=dict)
    library: str = ""

    @property
    def name(self) -> str:
        """What tests call it."""
        return f"{self.method}, {self.scheme}, {self.producer}"


def written(
    pack: Callable[[Tensor], Quantized], config: dict[str, Any], source: Callable[..., Path] = tiny_llama,
    rounding: Callable[[str, Tensor], Tensor] | None = None, **sizes: Any,
) -> Callable[[Path], Made]:  # fmt: skip
    """A random model whose linear layers ``pack`` writes; the truth is transformers with the weights that ``pack`` says they mean.

    ``rounding``: what the format makes of the activations of those layers, in the truth too.
    """

    def make(folder: Path) -> Made:
        plain = source(folder / "plain", **sizes)
        dense = write_quantized(folder / "quantized", plain, lambda _, weight: pack(weight), config)
        return Made(folder / "quantized", PROMPTS, logits_of_transformers(plain, dense, folder, rounding=rounding))

    return make


def produced(name: str) -> Callable[[Path], Made]:
    """A checkpoint of the library that defines its format, with the logits of the library that reloads it."""

    def make(_: Path) -> Made:
        path = data.root() / "checkpoints" / name
        rows = json.loads((path / "reference_logits.json").read_text())["rows"]
        return Made(path, tuple(row["prompt_ids"] for row in rows), [torch.tensor([row["last_logits"]]) for row in rows])

    return make


def real(method: str, scheme: str, producer: str, name: str, **changes: Any) -> Case:
    """A row of a real checkpoint; its reference was computed with 16-bit activations or weights, which the limits allow for."""
    return Case(method, scheme, producer, produced(name), needs=f"checkpoints/{name}", **{"most": 1e-2, "most_native": 3e-2} | changes)


GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
#: Sizes that Marlin's tiles fit.
TILED: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 256, "num_key_value_heads": 4, "head_dim": 64}
QQQ: dict[str, Any] = {"quant_method": "qqq", "wbits": 4, "group_size": 128}
#: Limits where the format rounds activations and the reference does not.
ROUNDED: dict[str, Any] = {"most": 1e-1, "most_native": 1e-1}
MARLIN: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}


def _gptq(
    method: str, scheme: str, config: dict[str, Any], *, source: Callable[..., Path] = tiny_llama, native: float = 4e-2, **how: Any
) -> Case:  # fmt: skip
    make = written(lambda weight: packers.gptq(weight, **how), GPTQ | config, source)
    return Case(method, scheme, "specification", make, most_native=native, flags={"quantization": method})


def _hqq(bits: int, group: int, axis: int = 1) -> Case:
    params = {"weight_quant_params": {"nbits": bits, "group_size": group, "axis": axis}}
    config = {"quant_method": "hqq", "quant_config": params, "skip_modules": ["lm_head"]}
    pack = packers.hqq if axis else packers.hqq_outputs
    make = written(lambda weight: pack(weight, bits=bits, group=group), config)
    return Case("hqq", f"{bits} bits, groups of {group}{'' if axis else ' outputs'}", "specification", make)


def _while_loading(method: str, scheme: str, pack: Callable[[Tensor], Quantized]) -> Case:
    """A plain checkpoint that the method rounds while loading; ``pack`` says to which weights."""

    def make(folder: Path) -> Made:
        source = tiny_llama(folder / "plain")
        dense = write_quantized(folder / "unused", source, lambda _, weight: pack(weight), None)
        return Made(source, PROMPTS, logits_of_transformers(source, dense, folder, rounding=floats.rounded_by_token))

    return Case(method, scheme, "while loading", make, flags={"quantization": method}, **ALIKE)


def _float(
    method: str, scheme: str, pack: Callable[[Tensor], Quantized], config: dict[str, Any],
    rounding: Callable[[str, Tensor], Tensor] | None = None, native: float = 2e-1,
) -> Case:  # fmt: skip
    limits: dict[str, Any] = {} if rounding is None else ALIKE | {"most_native": native}
    return Case(method, scheme, "specification", written(pack, config, rounding=rounding), **limits)


#: Limits where reference and engine round activations alike: what lies half-way between two steps may fall to either side.
ALIKE: dict[str, Any] = {"most": 2e-2, "most_native": 2e-1}
STATIC8 = floats.quark_config(floats.quark_rule("fp8_e4m3"), floats.quark_rule("fp8_e4m3"))
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128]}
#: 8- and 4-bit floats; of e2m1 activations, which have 8 magnitudes, bfloat16 noise moves many to another one.
FLOATS = (
    _float("fp8", "one scale, static", floats.per_layer, {"quant_method": "fp8", "activation_scheme": "static"}, floats.rounded_static),
    _float("fp8", "blocks of 128", floats.in_blocks, BLOCKS, floats.rounded_by_group),
    _while_loading("fp8", "one scale per layer", lambda weight: floats.alone(floats.per_layer(weight))),
    _while_loading("ptpc_fp8", "one scale per output", floats.per_output),
    _float("fbgemm_fp8", "one scale per output", floats.per_output, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1e3},
           floats.rounded_by_token),
    _float("modelopt", "FP8", floats.per_layer, floats.modelopt_config("FP8"), floats.rounded_static),
    _float("modelopt", "W4A16_AWQ", floats.nibble_rows, floats.modelopt_config("W4A16_AWQ", group_size=64)),
    _float("modelopt", "W8A16", floats.integer8, floats.modelopt_config("W8A16")),
    _float("nvfp4", "4-bit activations", floats.nvfp4, floats.modelopt_config("NVFP4"), floats.rounded_to_fours, 6e-1),
    _float("nvfp4", "W4A16_NVFP4", lambda weight: floats.alone(floats.nvfp4(weight)), floats.modelopt_config("W4A16_NVFP4")),
    _float("quark", "FP8 static", floats.per_layer, STATIC8, floats.rounded_static),
    _float("quark", "MXFP4 weights", floats.mxfp4, floats.quark_config(floats.quark_rule("fp4", "per_group", group_size=32), None)),
)  # fmt: skip


def _gguf(kind: str) -> Case:
    """A type of GGUF's blocks: rounded by the package, or random where it only reads them; its own dequantization is the truth."""

    def make(folder: Path) -> Made:
        from tests.gguf.producer import write_gguf

        source = tiny_llama(folder / "plain", hidden_size=256, intermediate_size=512, head_dim=64)
        path = folder / "file" / "m.gguf"
        meant = write_gguf(path, source, "llama", lambda name: kind if name.startswith("blk") else "F32")
        return Made(path, PROMPTS, logits_of_transformers(source, meant, folder))

    return Case("gguf", kind, "gguf 0.19", make, most_native=6e-2, library="gguf")


GGUF = (
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S",
    "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0", "TQ2_0", "MXFP4",
)  # fmt: skip
CASES: tuple[Case, ...] = (
    real("gptq", "4 bits, groups of 32", "gptqmodel 7.6", "q_gptq", flags={"quantization": "gptq"}),
    real("ipex", "4 bits, groups of 32", "gptqmodel 7.6", "q_gptq"),
    _gptq("gptq", "2 bits, zero points", {"bits": 2, "sym": False}, bits=2, symmetric=False),
    _gptq("gptq", "3 bits, zero points", {"bits": 3, "sym": False}, bits=3, symmetric=False),
    _gptq("gptq", "4 bits, zero points", {"sym": False}, symmetric=False),
    _gptq("gptq", "4 bits, act-order", {"desc_act": True}, act_order=True),
    _gptq("gptq", "8 bits, groups of 64", {"bits": 8, "group_size": 64}, bits=8, group=64),
    _gptq("gptq", "4 bits, gptq_v2", {"sym": False, "checkpoint_format": "gptq_v2"}, symmetric=False, version=2),
    _gptq("gptq_marlin", "4 bits, groups of 32", {}),
    _gptq("moe_wna16", "4 bits, experts", {"sym": False}, source=tiny_qwen3_moe, native=8e-2, symmetric=False),
    Case("marlin", "4 bits, groups of 128", "specification", written(tiles.marlin, MARLIN | {"checkpoint_format": "marlin"}, **TILED)),
    Case("gptq_marlin_24", "4 bits, 2:4", "specification", written(tiles.marlin_24, MARLIN | {"checkpoint_format": "marlin_24"}, **TILED)),
    real("awq", "4 bits, groups of 128", "autoawq 0.2.9", "q_awq", flags={"quantization": "awq"}),
    Case("awq", "4 bits, groups of 32", "specification", written(packers.awq, AWQ), flags={"quantization": "awq"}),
    Case("awq", "gemv_fast, groups of 32", "specification", written(packers.gemv_fast, AWQ | {"version": "gemv_fast"}),
         flags={"quantization": "awq"}),
    Case("awq_marlin", "8 bits, groups of 32", "specification", written(lambda w: packers.awq(w, bits=8), AWQ | {"bits": 8}),
         flags={"quantization": "awq_marlin"}),
    Case("qqq", "4 bits, groups of 128", "specification", written(tiles.qqq, QQQ, **TILED), **ROUNDED),
    _hqq(8, 64), _hqq(4, 64), _hqq(3, 32), _hqq(2, 32), _hqq(4, 64, axis=0),
    real("compressed-tensors", "W4A16", "llmcompressor 0.14", "ct_W4A16"),
    real("compressed-tensors", "W8A8", "llmcompressor 0.14", "ct_W8A8", **ROUNDED),
    real("compressed-tensors", "FP8 dynamic", "llmcompressor 0.14", "ct_FP8_DYNAMIC", **ROUNDED),
    real("compressed-tensors", "FP8 blocks", "llmcompressor 0.14", "ct_FP8_BLOCK", **ROUNDED),
    real("compressed-tensors", "NVFP4A16", "llmcompressor 0.14", "ct_NVFP4A16"),
    *FLOATS,
    *map(_gguf, GGUF),
    real("bitsandbytes", "nf4", "bitsandbytes 0.50", "q_bnb_nf4"),
    real("bitsandbytes", "int8", "bitsandbytes 0.50", "q_bnb_int8", **ROUNDED),
)  # fmt: skip
