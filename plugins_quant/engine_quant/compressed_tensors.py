"""compressed-tensors: integers of 1 to 8 bits, 8- and 4-bit floats, 2:4 sparse weights, by groups of layers; rounded activations."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.plugin import LinearShape, PartFormats, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._compressed_config import CompressedConfig, Numbers, Scheme, read_config
from ._compressed_held import held_bytes, layouts_of
from ._config import SIXTEEN_BITS, required
from ._names import format_of

ENGINE_API = 1


class CompressedTensors(Quantizer):
    """What ``config_groups`` and ``sparsity_config`` say of each layer."""

    def __init__(self, config: CompressedConfig) -> None:
        self.config = config

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        from ._compressed_formats import EitherFormat, build

        def choose(name: str) -> tuple[Scheme | None, bool] | None:
            found = (self.config.scheme_of(name), self.config.sparse(name))
            return None if found == (None, False) else found

        def make(key: tuple[Scheme | None, bool]) -> WeightFormat:
            made = build(*key)
            # Producers leave heads and routers alone that no list names: they are no linear layers to them.
            return made if layer.role == "linear" else EitherFormat(made)

        return format_of(layer, choose, make)

    def embedding(self, layer: LinearShape) -> WeightFormat | None:
        """As of a linear layer, whose rows are then looked up."""
        scheme = self.config.embedding_scheme(layer.name)
        if scheme is None:
            return None
        from ._compressed_formats import build

        return build(msgspec.structs.replace(scheme, inputs=None), False)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return layouts_of(self.config)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return held_bytes(self.config, tensor)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        shown: dict[str, Any] = {}
        for scheme in self.config.schemes:
            shown[scheme.key] = f"{scheme.format}, weights {_shown(scheme.weights)}, activations {_shown(scheme.inputs)}"
        if self.config.sparsity is not None:
            shown["sparsity"] = f"2:4 ({self.config.sparsity.format})"
        return shown


def _shown(numbers: Numbers | None) -> str:
    if numbers is None:
        return "as they are"
    block = "×".join(map(str, numbers.block)) if any(numbers.block) else ""
    scope = f"{numbers.strategy} {numbers.group or block}".strip()
    zeros, dynamic = "" if numbers.symmetric else " with zero points", " (dynamic)" if numbers.dynamic else ""
    return f"{numbers.kind}{numbers.bits} per {scope}{zeros}{dynamic}"


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return SIXTEEN_BITS


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return CompressedTensors(read_config(required(config, "compressed-tensors")))
