"""Runs of ``engine quantize``, and what its files mean by the libraries that define their formats."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.cli import main
from tests.quant.checkpoints import tensors_of


def quantize(source: Path | str, out: Path, method: str, *flags: str, status: int = 0) -> dict[str, Any]:
    """The report; with another ``status`` what was said on standard error."""
    printed, said = io.StringIO(), io.StringIO()
    argv = ["quantize", str(source), "--method", method, "--out", str(out), "--json", "--device", "cpu", *flags]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        got = main(argv)
    assert got == status, said.getvalue()
    found: dict[str, Any] = json.loads(printed.getvalue()) if not status else {"error": said.getvalue()}
    return found


def plain(source: Path, out: Path, method: str, *flags: str, status: int = 0) -> dict[str, Any]:
    """As above for checkpoints without a tokenizer."""
    return quantize(source, out, method, "--skip-tokenizer-init", "--no-perplexity", *flags, status=status)


def meant_by(out: Path) -> dict[str, Tensor]:
    """The dense weights (float32, [outputs, inputs]) of a safetensors checkpoint's quantized layers by the tensor's old name."""
    tensors = tensors_of(out)
    found: dict[str, Tensor] = {}
    for name in tensors:
        layer, _, suffix = name.rpartition(".")
        if suffix == "weight_packed":
            found[f"{layer}.weight"] = _unpacked(tensors, layer)
        elif name.endswith("weight.quant_map"):
            parts = {key.removeprefix(f"{layer}."): value for key, value in tensors.items() if key.startswith(f"{layer}.")}
            found[layer] = _four_bit(parts, tensors[layer])
        elif suffix == "SCB":
            largest = tensors[name].float()
            found[f"{layer}.weight"] = tensors[f"{layer}.weight"].view(len(largest), -1).float() * largest.unsqueeze(1) / 127
        elif suffix == "weight_scale" and f"{layer}.weight" in tensors:
            found[f"{layer}.weight"] = tensors[f"{layer}.weight"].float() * tensors[name].float()
    return found


def _unpacked(tensors: dict[str, Tensor], layer: str) -> Tensor:
    """Value by value, as the format's description says."""
    words, scale = tensors[f"{layer}.weight_packed"].to(torch.int64) & 0xFFFFFFFF, tensors[f"{layer}.weight_scale"].float()
    outputs, inputs = tensors[f"{layer}.weight_shape"].tolist()
    bits = 32 * words.shape[1] // inputs
    fields = [(words >> (bits * place)) & (2**bits - 1) for place in range(32 // bits)]
    values = torch.stack(fields, 2).reshape(outputs, -1)[:, :inputs] - 2 ** (bits - 1)
    return values.float() * scale.repeat_interleave(inputs // scale.shape[1], 1)


def _four_bit(parts: dict[str, Tensor], codes: Tensor) -> Tensor:
    from bitsandbytes.functional import QuantState, dequantize_4bit

    state = QuantState.from_dict({f"weight.{name}": part for name, part in parts.items()}, torch.device("cpu"))
    found: Tensor = dequantize_4bit(codes, state)
    return found.float()


def meant_by_gguf(source: Path, kind: str, ends: str = "Q8_0") -> dict[str, Tensor]:
    """The dense weights that the gguf package's own rounding makes of a checkpoint's matrices."""
    from gguf import quants
    from gguf.constants import GGMLQuantizationType

    found = {}
    for name, tensor in tensors_of(source).items():
        turned = any(part in name for part in (".c_attn.", ".c_proj.", ".c_fc."))
        weight = tensor.float().t() if turned else tensor.float()
        if tensor.dim() != 2 or weight.shape[1] % 32 or any(part in name for part in ("wpe", "mlp.gate.", "moe.gate.")):
            continue
        own = ends if any(part in name for part in ("embed", "lm_head", "wte")) else kind
        number = GGMLQuantizationType[own]
        rounded = torch.from_numpy(quants.dequantize(quants.quantize(weight.contiguous().numpy(), number), number).copy())
        found[name] = rounded.t().contiguous() if turned else rounded
    return found
