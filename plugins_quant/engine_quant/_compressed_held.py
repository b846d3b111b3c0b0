"""What compressed-tensors' schemes become in memory: layouts and bytes, from the config and headers. Torch-free."""

from __future__ import annotations

from engine.plugin import TensorInfo

from ._compressed_config import CompressedConfig, Numbers, Scheme
from ._held import PLAIN, float8, numbers, scaled


def layouts_of(config: CompressedConfig) -> tuple[str, ...]:
    """Of every scheme; where only some of the layers are sparse, of both kinds."""
    sparse = config.sparsity is not None and config.sparsity.format != "dense"
    every = config.sparsity is None or all(target.endswith("Linear") for target in config.sparsity.targets)
    found = {"sparse24"} if sparse else set()
    if not (sparse and every):
        found |= {_layout(scheme, scheme.weights) for scheme in config.schemes if scheme.weights is not None}
    return tuple(sorted(found))


def _layout(scheme: Scheme, weights: Numbers) -> str:
    if scheme.format == "marlin-24":
        return "sparse24"
    if weights.kind == "int":
        return f"grouped_int {weights.bits}"
    return "codebook 4" if weights.bits == 4 else "scaled_float8"


def held_bytes(config: CompressedConfig, tensor: TensorInfo) -> int | None:
    """Bytes of what becomes of one tensor."""
    layer = tensor.name.rpartition(".")[0]
    if tensor.name.endswith(".weight") and tensor.dtype in PLAIN:
        return None
    scheme = config.scheme_of(layer)
    weights = None if scheme is None else scheme.weights
    if config.sparse(layer):
        # Values and places as they are, whatever the values are.
        return scaled(tensor, {"compressed": 1, "bitmask": 1, "weight_scale": 1, "shape": 0})
    if scheme is None or weights is None:
        return None
    if weights.kind == "float" and weights.bits == 8:
        block = weights.block if any(weights.block) else (1, weights.group)
        return float8(tensor, block, 2 if weights.powers else 4)
    if tensor.name.endswith(".weight_zero_point"):
        values = 32 // weights.bits if scheme.format == "pack-quantized" and weights.strategy != "tensor" else 1
        return 0 if weights.symmetric else numbers(tensor, 4 * values)
    if tensor.name.endswith(".weight_scale") and weights.kind == "int" and not weights.symmetric:
        return numbers(tensor, 4)
    return scaled(tensor, _factors(scheme, weights))


def _factors(scheme: Scheme, weights: Numbers) -> dict[str, float]:
    """Of integers and small floats: 1 bit takes two in memory and 7 take 8; 6-bit floats are held in 8, 8-bit scales in 16."""
    values = {1: 2.0, 7: 8 / 7}.get(weights.bits, 1.0) if weights.kind == "int" else 4 / 3 if weights.bits == 6 else 1.0
    return {
        "weight_packed": values, "weight": weights.bits / 8, "weight_scale": 1 if weights.kind == "int" else 2,
        "weight_g_idx": 2, "scale_packed": 1, "meta": 1, "weight_shape": 0, "weight_global_scale": 0, "input_global_scale": 0,
        "input_scale": 0, "input_zero_point": 0,
    }  # fmt: skip
