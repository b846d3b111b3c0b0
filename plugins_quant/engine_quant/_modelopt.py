"""ModelOpt's quantization configs, in config.json or hf_quant_config.json, and the formats that they name. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, Quantizer, TensorInfo, WeightFormat

from ._held import float8, numbers, scaled
from ._names import format_of, listed, wildcard

#: Algorithm → what the plan says of it.
ALGORITHMS = {
    "FP8": "8-bit floats, one scale per layer; activations static 8-bit floats",
    "FP8_PER_CHANNEL_PER_TOKEN": "8-bit floats, one scale per output; activations 8-bit floats per token",
    "FP8_PB_WO": "8-bit floats in blocks of 128 × 128",
    "MXFP8": "8-bit floats, a power of two per 32; activations too",
    "MXFP4": "4-bit floats, a power of two per 32; activations too",
    "W4A8_MXFP4_FP8": "4-bit floats, a power of two per 32; activations as they are, for which no scale is stored",
    "NVFP4": "4-bit floats, a scale per 16; activations too",
    "NVFP4_AWQ": "4-bit floats, a scale per 16; activations too, smoothed",
    "W4A16_NVFP4": "4-bit floats, a scale per 16",
    "W4A8_NVFP4_FP8": "4-bit floats, a scale per 32; activations static 8-bit floats",
    "W4A16_AWQ": "4-bit integers, a scale per group; activations smoothed",
    "W4A8_AWQ": "4-bit integers, a scale per group; activations smoothed, static 8-bit floats",
    "W8A16": "8-bit integers, one scale per output",
    "W8A8_SQ_PER_CHANNEL": "8-bit integers, one scale per output; activations smoothed, static 8-bit integers",
}
#: Algorithm → the layout that weights become.
_LAYOUTS = (
    dict.fromkeys(("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "MXFP8"), "scaled_float8")
    | dict.fromkeys(("MXFP4", "W4A8_MXFP4_FP8", "NVFP4", "NVFP4_AWQ", "W4A16_NVFP4", "W4A8_NVFP4_FP8"), "codebook 4")
    | dict.fromkeys(("W4A16_AWQ", "W4A8_AWQ"), "grouped_int 4") | dict.fromkeys(("W8A16", "W8A8_SQ_PER_CHANNEL"), "grouped_int 8")
)  # fmt: skip
#: Those that the method nvfp4 takes.
NVFP4S = ("NVFP4", "NVFP4_AWQ", "W4A16_NVFP4", "W4A8_NVFP4_FP8")
_FILE = "hf_quant_config.json"
_LAYERS_LIMIT = 1 << 16


class ModelOpt(Quantizer):
    """``algorithm`` for every layer that ``excluded`` does not cover; MIXED_PRECISION: ``layers`` gives each its own.

    ``group``: inputs to a scale of 4-bit integers.
    """

    def __init__(self, algorithm: str, excluded: list[str], layers: Mapping[str, str], group: int) -> None:
        self.algorithm, self.layers, self.group = algorithm, layers, group
        self.excluded = wildcard(excluded)

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract. Routers are no linear layers to the producer."""
        return None if layer.role == "router" else format_of(layer, self._algorithm_of, lambda algorithm: build(algorithm, self.group))

    def _algorithm_of(self, name: str) -> str | None:
        if self.excluded(name):
            return None
        return self.layers.get(name) if self.layers else self.algorithm

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return tuple(sorted({_LAYOUTS[each] for each in self.layers.values() or (self.algorithm,)}))

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        algorithm = self._algorithm_of(tensor.name.rpartition(".")[0])
        if algorithm is None:
            return None
        if _LAYOUTS[algorithm] == "scaled_float8":
            return float8(tensor, {"FP8_PB_WO": (128, 128), "MXFP8": (1, 32)}.get(algorithm, (0, 0)), 2 if algorithm == "MXFP8" else 4)
        if tensor.name.endswith(".pre_quant_scale"):
            return numbers(tensor, 4)
        # 8-bit scales are held in 16.
        scale = 2 if _LAYOUTS[algorithm] == "codebook 4" else 1
        return scaled(tensor, {"weight_scale": scale, "weight_scale_2": 0, "input_scale": 0})

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        used = sorted(set(self.layers.values())) or [self.algorithm]
        return {"algorithm": "; ".join(f"{each} ({ALGORITHMS[each]})" for each in used)}


def read_modelopt(config: dict[str, Any], folder: str) -> ModelOpt:
    """``config``: the quantization_config, or the content of hf_quant_config.json. Raises :class:`ModelFileError` naming the key."""
    algorithm = algorithm_of(config)
    reader = _reader(config)
    producer = ConfigReader(config).table("producer")
    if producer is not None and producer.text("name", "modelopt") != "modelopt":
        raise producer.complaint("name", producer.values["name"], "modelopt")
    excluded = listed(reader, "exclude_modules") + listed(reader, "ignore")
    layers: dict[str, str] = {}
    if algorithm == "MIXED_PRECISION":
        layers = _layers(reader.table("quantized_layers") or _reader(_side_file(folder)).table("quantized_layers"))
    elif algorithm not in ALGORITHMS:
        raise reader.complaint("quant_algo", algorithm, f"one of {', '.join(ALGORITHMS)}")
    return ModelOpt(algorithm, excluded, layers, _group(reader, folder))


def _group(reader: ConfigReader, folder: str) -> int:
    """``group_size``, which config.json may leave to the side file; 128 where neither says it."""
    found = reader.optional_integer("group_size")
    if found is None and (Path(folder) / _FILE).is_file():
        found = _reader(_side_file(folder)).optional_integer("group_size")
    return found or 128


def algorithm_of(config: dict[str, Any]) -> str:
    """``quant_algo`` in capitals."""
    return _reader(config).text("quant_algo").upper()


def _reader(config: dict[str, Any]) -> ConfigReader:
    inner = config.get("quantization")
    return ConfigReader(inner, "quantization.") if isinstance(inner, dict) else ConfigReader(config, "quantization_config.")


def _layers(found: ConfigReader | None) -> dict[str, str]:
    if found is None or len(found.values) > _LAYERS_LIMIT:
        raise ModelFileError(f"quantized_layers, which quant_algo MIXED_PRECISION needs, is not in {_FILE}.", fix=f"a complete {_FILE}")
    layers = {}
    for name in found.values:
        entry = found.table(name)
        layers[name] = "" if entry is None else entry.text("quant_algo").upper()
        if layers[name] not in ALGORITHMS:
            raise found.complaint(name, found.values[name], f"an object whose quant_algo is one of {', '.join(ALGORITHMS)}")
    return layers


def _side_file(folder: str) -> dict[str, Any]:
    path = Path(folder) / _FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{_FILE} cannot be read as JSON: {error}.") from error
    return content if isinstance(content, dict) else {}


def build(algorithm: str, group: int) -> WeightFormat:
    """The reader of a layer's tensors."""
    import torch

    from ._compressed_config import Numbers
    from ._compressed_integers import IntegerFormat
    from ._e2m1 import E2M1Format, Spelling
    from ._floats import Float8Format
    from ._inputs import Inputs, SmoothedFormat
    from ._modelopt_rows import NibbleRowsFormat

    static = Inputs("float8_e4m3fn", scales=("input_scale",))
    fours = Spelling("weight", "weight_scale", "weight_scale_2", reciprocal=False)
    powers = Spelling("weight", "weight_scale", None)
    eights = Numbers(8, "int", True, "channel", 0, (0, 0), dynamic=False, ordered=False, powers=False)
    nvfp4 = Inputs("e2m1", ("input_scale",), group=16, scale_dtype=torch.float8_e4m3fn)
    mxfp8 = Inputs("float8_e4m3fn", group=32, scale_dtype=torch.float8_e8m0fnu)
    makers: dict[str, Callable[[], WeightFormat]] = {
        "FP8": lambda: Float8Format((0, 0), static),
        "FP8_PER_CHANNEL_PER_TOKEN": lambda: Float8Format((1, 0), Inputs("float8_e4m3fn")),
        "FP8_PB_WO": lambda: Float8Format((128, 128), spread=True),
        "MXFP8": lambda: Float8Format((1, 32), mxfp8),
        "MXFP4": lambda: E2M1Format(32, powers, Inputs("e2m1", group=32, scale_dtype=torch.float8_e8m0fnu)),
        "W4A8_MXFP4_FP8": lambda: E2M1Format(32, powers),
        "NVFP4": lambda: E2M1Format(16, fours, nvfp4),
        "NVFP4_AWQ": lambda: SmoothedFormat(E2M1Format(16, fours, nvfp4)),
        "W4A16_NVFP4": lambda: E2M1Format(16, fours),
        "W4A8_NVFP4_FP8": lambda: E2M1Format(32, fours, static),
        "W4A16_AWQ": lambda: SmoothedFormat(NibbleRowsFormat(group)),
        "W4A8_AWQ": lambda: SmoothedFormat(NibbleRowsFormat(group, static)),
        "W8A16": lambda: IntegerFormat(eights, None, packed=False),
        "W8A8_SQ_PER_CHANNEL": lambda: SmoothedFormat(IntegerFormat(eights, Inputs("int8", scales=("input_scale",)), packed=False)),
    }
    return makers[algorithm]()
