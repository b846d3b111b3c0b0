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
from tests.quant import packers, tiles
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
    own in bfloat16. ``flags``: of the engine.
    """

    method: str
    scheme: str
    producer: str
    make: Callable[[Path], Made]
    needs: str = ""
    most: float = 1e-5
    most_native: float = 4e-2
    flags: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tests call it."""
        return f"{self.method}, {self.scheme}, {self.producer}"


def written(
    pack: Callable[[Tensor], Quantized], config: dict[str, Any], source: Callable[..., Path] = tiny_llama, **sizes: Any
) -> Callable[[Path], Made]:  # fmt: skip
    """A random model whose linear layers ``pack`` writes; the truth is transformers with the weights that ``pack`` says they mean."""

    def make(folder: Path) -> Made:
        plain = source(folder / "plain", **sizes)
        dense = write_quantized(folder / "quantized", plain, lambda _, weight: pack(weight), config)
        return Made(folder / "quantized", PROMPTS, logits_of_transformers(plain, dense, folder))

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


def _hqq(bits: int, group: int) -> Case:
    params = {"weight_quant_params": {"nbits": bits, "group_size": group, "axis": 1}}
    config = {"quant_method": "hqq", "quant_config": params, "skip_modules": ["lm_head"]}
    make = written(lambda weight: packers.hqq(weight, bits=bits, group=group), config)
    return Case("hqq", f"{bits} bits, groups of {group}", "specification", make)


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
    Case("awq_marlin", "8 bits, groups of 32", "specification", written(lambda w: packers.awq(w, bits=8), AWQ | {"bits": 8}),
         flags={"quantization": "awq_marlin"}),
    Case("qqq", "4 bits, groups of 128", "specification", written(tiles.qqq, QQQ, **TILED), **ROUNDED),
    _hqq(8, 64), _hqq(4, 64), _hqq(3, 32), _hqq(2, 32),
    real("compressed-tensors", "W4A16", "llmcompressor 0.14", "ct_W4A16"),
    real("compressed-tensors", "W8A8", "llmcompressor 0.14", "ct_W8A8", **ROUNDED),
    real("compressed-tensors", "FP8 dynamic", "llmcompressor 0.14", "ct_FP8_DYNAMIC", **ROUNDED),
    real("compressed-tensors", "FP8 blocks", "llmcompressor 0.14", "ct_FP8_BLOCK", **ROUNDED),
    real("compressed-tensors", "NVFP4A16", "llmcompressor 0.14", "ct_NVFP4A16"),
    real("bitsandbytes", "nf4", "bitsandbytes 0.50", "q_bnb_nf4"),
    real("bitsandbytes", "int8", "bitsandbytes 0.50", "q_bnb_int8", **ROUNDED),
)  # fmt: skip
