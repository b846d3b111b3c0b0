"""8-bit floats (e4m3) with one scale per output, for compressed-tensors: activations rounded to 8-bit floats per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from engine.plugin import LinearShape, ProducedWeight, Producer, SourceModel, hookimpl

from ._compressed import CompressedProducer, weights_of

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``scales``: one per ``channel`` (output) or per ``tensor``. ``activations``: rounded per ``token``, or ``none``: left as they are."""

    scales: Literal["channel", "tensor"] = "channel"
    activations: Literal["token", "none"] = "token"


class Float8Producer(CompressedProducer):
    """``weight`` float8_e4m3fn [outputs, inputs], ``weight_scale`` [outputs, 1] or [1] in the weights' own dtype."""

    format = "float-quantized"

    def __init__(self, model: SourceModel, options: Options) -> None:
        super().__init__(model)
        self.whole = options.scales == "tensor"
        self.weights = weights_of(8, "float", 0) | {"strategy": options.scales}
        if options.activations == "token":
            self.inputs = weights_of(8, "float", 0) | {"strategy": "token", "dynamic": True, "observer": None}

    def round(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """See the base."""
        from engine.layers.packed_float8 import ScaledFloat8

        rounded = ScaledFloat8.round_rows(weight, scale_dtype=weight.dtype, together=self.whole)
        return ProducedWeight({"weight": rounded.values, "weight_scale": rounded.scale.flatten() if self.whole else rounded.scale}, rounded)

    def bits(self) -> float:
        """The scales of outputs are few."""
        return 8.02

    def describe_layers(self) -> dict[str, Any]:
        """See the base."""
        inputs = "rounded to 8-bit floats per token" if self.inputs else "as they are"
        scope = "tensor" if self.whole else "output"
        return {"format": "compressed-tensors, float-quantized", "bits": 8, "scales": f"one per {scope}", "activations": inputs}


@hookimpl
def engine_create_producer(model: SourceModel, options: Options) -> Producer:
    """See the specification."""
    return Float8Producer(model, options)
