"""bitsandbytes: 4-bit (nf4, fp4) and 8-bit checkpoints, or plain ones that are rounded to nf4 while loading."""

from __future__ import annotations

from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import is_plain_linear, numbers, rounded, scaled
from ._names import component, listed

ENGINE_API = 1
#: What codes may be stored as.
STORAGES = ("uint8", "int8", "bfloat16", "float16", "float32")


class BitsAndBytes(Quantizer):
    """``config`` None: a plain checkpoint, rounded to nf4 in blocks of 64 with doubly quantized scales.

    With a config a layer whose weight is plain all the same is rounded as the config says, the head and what is skipped excepted.
    """

    def __init__(self, config: dict[str, Any] | None) -> None:
        reader = ConfigReader(config or {}, "quantization_config.")
        #: An adapter's settings, for a plain checkpoint beside it.
        self.adapted = config is not None and "peft_type" in config
        self.plain = config is None or self.adapted
        self.bits = 8 if reader.flag("load_in_8bit", False) else 4
        if self.bits == 8 and reader.flag("load_in_4bit", False):
            raise reader.complaint("load_in_8bit", True, "one of load_in_4bit and load_in_8bit")
        default = "nf4" if self.plain else "fp4"
        self.kind = reader.text("bnb_4bit_quant_type", default, known=("nf4", "fp4"))
        self.double = reader.flag("bnb_4bit_use_double_quant", self.plain)
        #: The dtype that stored codes claim to have, so that training can shard them as it shards plain weights.
        self.storage = reader.text("bnb_4bit_quant_storage", "uint8", known=STORAGES)
        self.skipped = component(listed(reader, "llm_int8_skip_modules"))
        #: What engine quantize keeps in 8-bit rows beside 4 bits.
        self.rows = frozenset(listed(reader, "int8_rows"))

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract. A fused layer's parts have blocks of their own."""
        if layer.name in self.rows:
            return self._rows()
        names = layer.parts or (layer.name,)
        formats = [None if self.skipped(name) else self._format(layer) for name in names]
        if all(each is None for each in formats):
            return None
        if len(formats) == 1 or (self.bits == 8 and None not in formats and not self.adapted):
            return formats[0]
        return PartFormats(tuple(formats))

    def embedding(self, layer: LinearShape) -> WeightFormat | None:
        """See the contract."""
        return self._rows() if layer.name in self.rows else None

    def _rows(self) -> WeightFormat:
        from ._bnb import Int8Format

        return Int8Format(None)

    def _format(self, layer: LinearShape) -> WeightFormat | None:
        from ._bnb import FourBitFormat, InFlightFormat, Int8Format

        if self.plain:
            return InFlightFormat(self.bits, self.kind, self.double, adapted=self.adapted) if layer.role == "linear" else None
        in_flight = InFlightFormat(self.bits, self.kind, self.double) if layer.role == "linear" else None
        return Int8Format(in_flight) if self.bits == 8 else FourBitFormat(in_flight, self.storage)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        eight = ("grouped_int 8",) if self.bits == 8 or self.rows else ()
        return (*eight, *(() if self.bits == 8 else ("codebook 4",)))

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        if is_plain_linear(tensor):
            if self.skipped(tensor.name.removesuffix(".weight")):
                return None
            return rounded(tensor, 8) if self.bits == 8 else rounded(tensor, 4, 64)
        if tensor.name.endswith(".absmax"):
            return numbers(tensor, 4)
        return scaled(tensor, {"SCB": 1}) if ".weight." not in tensor.name else 0

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        scales = "one per output" if self.bits == 8 else "one per 64 elements" + (", doubly quantized" if self.double else "")
        kind = "int8" if self.bits == 8 else self.kind
        rows = {"in 8 bits, one scale per output": ", ".join(sorted(self.rows))} if self.rows else {}
        return {"bits": self.bits, "type": kind, "weight scale": scales, **rows, "activations": "as they are"}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("adapter_config.json",), online=True)


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return BitsAndBytes(config)
