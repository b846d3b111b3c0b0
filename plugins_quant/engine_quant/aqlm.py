"""AQLM checkpoints: vectors of weights as sums of entries of several codebooks."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import scaled
from ._names import listed

ENGINE_API = 1


class Aqlm(Quantizer):
    """Each part of a fused layer has codebooks of its own."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        if config is None:
            raise ModelFileError("The checkpoint has no quantization_config; aqlm reads quantized checkpoints alone.")
        reader = ConfigReader(config, "quantization_config.")
        self.wide, self.tall = reader.integer("in_group_size"), reader.integer("out_group_size", 1)
        self.books, self.bits = reader.integer("num_codebooks"), reader.integer("nbits_per_codebook")
        for key, value in (("in_group_size", self.wide), ("out_group_size", self.tall), ("num_codebooks", self.books)):
            if value < 1:
                raise reader.complaint(key, value, "a positive number")
        if not 1 <= self.bits <= 16:
            raise reader.complaint("nbits_per_codebook", self.bits, "1 to 16")
        self.plain = frozenset(name.removesuffix(".weight") for name in listed(reader, "linear_weights_not_to_quantize"))

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        from ._aqlm import AqlmFormat

        if layer.role != "linear":
            return None
        names = layer.parts or (layer.name,)
        formats = [None if name in self.plain else AqlmFormat(self.wide, self.tall, self.books, self.bits) for name in names]
        return formats[0] if len(formats) == 1 else PartFormats(tuple(formats))

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("additive",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return scaled(tensor, {"codes": 1, "codebooks": 1, "scales": 1})

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        each = f"{self.wide} inputs" + (f" × {self.tall} outputs" if self.tall > 1 else "")
        bits = self.books * self.bits / (self.wide * self.tall)
        return {"bits": bits, "codebooks": f"{self.books} of 2^{self.bits} vectors", "vectors": each}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(dtypes=("float16",))


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return Aqlm(config)
