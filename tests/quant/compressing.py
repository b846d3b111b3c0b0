"""Layers as the compressed-tensors library writes and reads them: its compressors are producer and reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.quant import checkpoints
from tests.quant.checkpoints import Quantized


def group(
    weights: dict[str, Any], inputs: dict[str, Any] | None = None, format: str = "", targets: tuple[str, ...] = ("Linear",)
) -> dict[str, Any]:  # fmt: skip
    """One entry of config_groups."""
    return {"targets": list(targets), "weights": weights, "input_activations": inputs, "output_activations": None, "format": format}


def config(*groups: dict[str, Any], ignore: tuple[str, ...] = ("lm_head",), **more: Any) -> dict[str, Any]:
    """A quantization_config of those groups."""
    formats = {each["format"] for each in groups}
    return {
        "quant_method": "compressed-tensors", "format": formats.pop() if len(formats) == 1 else "mixed-precision", "ignore": list(ignore),
        "config_groups": {f"group_{i}": each for i, each in enumerate(groups)}, "quantization_status": "compressed",
        "kv_cache_scheme": None, "global_compression_ratio": None,
    } | more  # fmt: skip


def scheme_of(entry: dict[str, Any]) -> Any:
    """The library's object for an entry of config_groups."""
    from compressed_tensors.quantization import QuantizationScheme

    return QuantizationScheme(**entry)


def compress(weight: Tensor, entry: dict[str, Any], x_scale: float = 0.05) -> Quantized:
    """The tensors that the library writes for a float32 weight, and the weight that it reads from them (float32 arithmetic)."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    scheme = scheme_of(entry)
    args = scheme.weights
    state = {"weight": weight}
    least, most = _extremes(weight, args)
    outer = None
    if args.strategy == "tensor_group":
        outer = state["weight_global_scale"] = generate_gparam(weight.amin(), weight.amax())
    state["weight_scale"], zero = calculate_qparams(least, most, args, global_scale=outer)
    if not args.symmetric:
        state["weight_zero_point"] = zero
    compressor = BaseCompressor.get_value_from_registry(entry["format"])
    tensors = dict(compressor.compress(state, scheme))
    dense = compressor.decompress(tensors, scheme)["weight"].float()
    if args.type == "float" and args.num_bits in (4, 6):
        dense = _exact(tensors, args)
    return tensors | _static(entry.get("input_activations"), x_scale), dense


def _extremes(weight: Tensor, args: Any) -> tuple[Tensor, Tensor]:
    if args.strategy == "tensor":
        return weight.amin().reshape(1), weight.amax().reshape(1)
    if args.strategy == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    if args.strategy == "block":
        rows, columns = args.block_structure
        padded = functional.pad(weight, (0, -weight.shape[1] % columns, 0, -weight.shape[0] % rows))
        blocks = padded.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))
        return blocks.amin((1, 3)), blocks.amax((1, 3))
    groups = weight.unflatten(1, (-1, args.group_size))
    return groups.amin(-1), groups.amax(-1)


def _exact(tensors: dict[str, Tensor], args: Any) -> Tensor:
    """4- and 6-bit floats as the library unpacks them, times the scales in float32: it multiplies in bfloat16 itself."""
    from compressed_tensors.compressors.mxfp6.helpers import unpack_fp6_from_uint8
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8

    packed, scale = tensors["weight_packed"], tensors["weight_scale"]
    if args.num_bits == 4:
        values = unpack_fp4_from_uint8(packed, len(packed), packed.shape[1] * 2).float()
    else:
        values = unpack_fp6_from_uint8(packed, len(packed), packed.shape[1] * 4 // 3).float()
    factors = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
    if "weight_global_scale" in tensors:
        factors = factors / tensors["weight_global_scale"]
    return values * factors.repeat_interleave(args.group_size, 1)


def _static(inputs: dict[str, Any] | None, scale: float) -> dict[str, Tensor]:
    if inputs is None or inputs.get("dynamic", False) is True:
        return {}
    if inputs.get("strategy") == "tensor_group":
        return {"input_global_scale": torch.tensor([448 * 6 / (scale * 100)])}
    zero = {} if inputs.get("symmetric", True) else {"input_zero_point": torch.tensor([7], dtype=torch.int8)}
    return {"input_scale": torch.tensor([scale]), **zero}


def write(path: Path, source: Path, entry: dict[str, Any], **more: Any) -> dict[str, Tensor]:
    """A checkpoint whose linear layers are all compressed by ``entry``; the dense weights by name."""
    return checkpoints.write_quantized(path, source, lambda _, weight: compress(weight, entry), config(entry, **more))
