"""Checkpoints with a plain model's shape in quantized formats, their linear layers filled with random codes, to measure memory with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Pack = Callable[[int, int], dict[str, Tensor]]
Write = Callable[[Path, Path], Path]
_GEMM = {"version": "gemm", "zero_point": True}


def _words(*shape: int) -> Tensor:
    return torch.randint(-(2**31), 2**31 - 1, shape, dtype=torch.int32)


def _bytes(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def _scales(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return (torch.rand(shape) * 1e-3 + 1e-3).to(dtype)


def gptq(outputs: int, inputs: int, group: int, *, symmetric: bool) -> dict[str, Tensor]:
    """4 bits. Zero points of 8 stand as 7."""
    groups = inputs // group
    zeros = torch.full((groups, outputs // 8), 0x77777777, dtype=torch.int32) if symmetric else _words(groups, outputs // 8)
    index = (torch.arange(inputs) // group).to(torch.int32)
    return {"qweight": _words(inputs // 8, outputs), "qzeros": zeros, "scales": _scales(groups, outputs), "g_idx": index}


def awq(outputs: int, inputs: int, group: int = 128) -> dict[str, Tensor]:
    """4 bits with zero points."""
    groups = inputs // group
    return {"qweight": _words(inputs, outputs // 8), "qzeros": _words(groups, outputs // 8), "scales": _scales(groups, outputs)}


def hqq(outputs: int, inputs: int, group: int = 64) -> dict[str, Tensor]:
    """4 bits with float zero points."""
    rows = outputs * inputs // group
    return {"W_q": _bytes(rows // 2, group), "scale": _scales(rows, 1), "zero": (torch.rand(rows, 1) * 15).half()}


def integers(outputs: int, inputs: int, bits: int, group: int) -> dict[str, Tensor]:
    """pack-quantized."""
    scale = _scales(outputs, inputs // (group or inputs), dtype=torch.bfloat16)
    return {"weight_packed": _words(outputs, inputs * bits // 32), "weight_scale": scale, "weight_shape": torch.tensor([outputs, inputs])}


def float8(outputs: int, inputs: int) -> dict[str, Tensor]:
    """float-quantized, one scale per output."""
    values = torch.randint(0, 0x70, (outputs, inputs), dtype=torch.int8).view(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale": _scales(outputs, 1, dtype=torch.bfloat16)}


def nvfp4(outputs: int, inputs: int) -> dict[str, Tensor]:
    """nvfp4-pack-quantized."""
    scale = torch.randint(40, 100, (outputs, inputs // 16), dtype=torch.uint8).view(torch.float8_e4m3fn)
    return {"weight_packed": _bytes(outputs, inputs // 2), "weight_scale": scale, "weight_global_scale": torch.tensor([1000.0])}


def nf4(outputs: int, inputs: int) -> dict[str, Tensor]:
    """bitsandbytes, doubly quantized scales."""
    count = outputs * inputs // 64
    state = {"quant_type": "nf4", "blocksize": 64, "shape": [outputs, inputs], "dtype": "bfloat16", "nested_blocksize": 256,
             "nested_offset": 0.01, "nested_dtype": "float32"}  # fmt: skip
    return {
        "weight": _bytes(outputs * inputs // 2, 1), "weight.absmax": _bytes(count), "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.nested_absmax": torch.rand(-(-count // 256)) + 0.1, "weight.nested_quant_map": torch.linspace(-1, 1, 256),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }  # fmt: skip


def written(pack: Pack, config: dict[str, Any]) -> Write:
    """Every linear layer of the blocks by ``pack`` (outputs, inputs); the rest as it is."""

    def write(source: Path, folder: Path) -> Path:
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for path in sorted(source.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - no mapping
                    if not name.endswith("_proj.weight"):
                        tensors[name] = file.get_tensor(name)
                        continue
                    made = pack(*file.get_slice(name).get_shape())
                    tensors |= {f"{name.removesuffix('weight')}{suffix}": tensor for suffix, tensor in made.items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        whole = json.loads((source / "config.json").read_text()) | {"quantization_config": config}
        (folder / "config.json").write_text(json.dumps(whole))
        return folder

    return write


def _compressed(format: str, bits: int, kind: str, **more: Any) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": "channel"} | more
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def blocks(kind: str) -> Write:
    """A GGUF file whose matrices, the embedding too, are of that type."""

    def write(source: Path, folder: Path) -> Path:
        import numpy as np
        from gguf import GGUFWriter
        from gguf.constants import MODEL_ARCH, GGMLQuantizationType
        from gguf.tensor_mapping import get_tensor_name_map

        from tests.gguf.producer import random_blocks, write_metadata

        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads((source / "config.json").read_text())
        names = get_tensor_name_map(MODEL_ARCH.QWEN3, config["num_hidden_layers"])
        writer = GGUFWriter(folder / "model.gguf", "qwen3")
        write_metadata(writer, config)
        for path in sorted(source.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - no mapping
                    shape = file.get_slice(name).get_shape()
                    found = names.get_name(name, try_suffixes=(".weight",))
                    if len(shape) == 1:
                        writer.add_tensor(found, np.ones(shape, dtype=np.float32))
                        continue
                    some = random_blocks(kind, 32, shape[1])
                    writer.add_tensor(found, np.resize(some, (shape[0], some.shape[1])), raw_dtype=GGMLQuantizationType[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return folder / "model.gguf"

    return write


def quantized(method: str, *flags: str) -> Write:
    """What ``engine quantize`` writes."""

    def write(source: Path, folder: Path) -> Path:
        import subprocess
        import sys

        command = [sys.executable, "-m", "engine", "quantize", str(source), "--method", method, *flags, "--no-perplexity"]
        subprocess.run([*command, "--out", str(folder)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return folder

    return write


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
_HQQ = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}}
_NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}

_NEAREST = ("--method-config", '{"search": false}')
#: How the scheme of a row begins whose checkpoint the command wrote.
QUANTIZE = "engine quantize --method"

#: (method, scheme) → what writes it.
SCHEMES: dict[tuple[str, str], Write] = {
    ("gptq", "4 bits, groups of 128"): written(lambda n, k: gptq(n, k, 128, symmetric=True), _GPTQ | {"sym": True}),
    ("gptq", "4 bits, groups of 128, zero points"): written(lambda n, k: gptq(n, k, 128, symmetric=False), _GPTQ | {"sym": False}),
    ("awq", "4 bits, groups of 128"): written(awq, {"quant_method": "awq", "bits": 4, "group_size": 128} | _GEMM),
    ("hqq", "4 bits, groups of 64"): written(hqq, _HQQ),
    ("compressed-tensors", "W4A16, groups of 128"): written(
        lambda n, k: integers(n, k, 4, 128), _compressed("pack-quantized", 4, "int", strategy="group", group_size=128)
    ),
    ("compressed-tensors", "W8A16"): written(lambda n, k: integers(n, k, 8, 0), _compressed("pack-quantized", 8, "int")),
    ("compressed-tensors", "FP8"): written(float8, _compressed("float-quantized", 8, "float")),
    ("compressed-tensors", "NVFP4A16"): written(
        nvfp4, _compressed("nvfp4-pack-quantized", 4, "float", strategy="tensor_group", group_size=16)
    ),
    ("bitsandbytes", "nf4"): written(nf4, _NF4),
    **{("gguf", kind): blocks(kind) for kind in ("Q4_0", "Q4_K", "Q6_K", "Q8_0")},
    **{("compressed-tensors", f"{QUANTIZE} {method}"): quantized(method) for method in ("int8", "fp8")},
    # The search for scales takes a minute and changes no shape.
    ("compressed-tensors", f"{QUANTIZE} int4"): quantized("int4", *_NEAREST),
    ("compressed-tensors", f"{QUANTIZE} int4 --include-head"): quantized("int4", "--include-head", *_NEAREST),
    ("bitsandbytes", f"{QUANTIZE} nf4"): quantized("nf4"),
}
