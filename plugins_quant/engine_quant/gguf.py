"""GGUF's block types, each tensor with its own: Q4_0 to Q8_0, K-quants, IQ types, ternary and MXFP4."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, CheckpointTensor, LinearShape, PartFormats, Quantizer, TensorInfo, WeightFormat, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from engine.plugin import PackedWeight

ENGINE_API = 1
#: Elements and bytes of a block (facts of the format).
BLOCKS: dict[str, tuple[int, int]] = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q2_K": (256, 84), "Q3_K": (256, 110),
    "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "IQ1_S": (256, 50), "IQ1_M": (256, 56), "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74), "IQ2_S": (256, 82), "IQ3_XXS": (256, 98), "IQ3_S": (256, 110), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
}  # fmt: skip
#: The layouts of those that are not held as the file's blocks.
_LAYOUTS = {
    "Q4_0": "grouped_int 4", "Q4_1": "grouped_int 4", "Q5_0": "grouped_int 5", "Q5_1": "grouped_int 5", "Q8_0": "grouped_int 8",
    "TQ1_0": "grouped_int 2", "TQ2_0": "grouped_int 2", "IQ4_NL": "codebook 4", "IQ4_XS": "codebook 4", "MXFP4": "codebook 4",
}  # fmt: skip
#: Bytes of a block in memory, where they are not those of the file: shifts and scales in the dtype that holds them exactly, K-quants
#: with scales of one level, as the CPU's kernels take them.
_HELD = {"Q4_1": 24, "Q5_1": 28, "TQ1_0": 68, "TQ2_0": 68, "Q4_K": 160, "Q5_K": 192, "Q6_K": 272, "IQ4_XS": 160, "MXFP4": 18}
_EXPERT = re.compile(r"\.experts\.\d+\.")


class BlockFormat(WeightFormat):
    """Rows of blocks under ``<layer>.<type>``: uint8 [outputs, inputs / elements · bytes]."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.suffix = kind.lower()
        self.elements, self.nbytes = BLOCKS[kind]

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The blocks; a shard of the inputs is whole blocks."""
        return (CheckpointTensor(self.suffix, output_axis=0, input_axis=1, input_group=self.elements, input_items=self.nbytes),)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """In the layout that holds the type without loss."""
        import torch

        from ._gguf_packs import Block

        data = tensors[self.suffix]
        wanted = (layer.outputs, layer.inputs // self.elements * self.nbytes)
        if data.dtype != torch.uint8 or tuple(data.shape) != wanted or layer.inputs % self.elements:
            raise ModelFileError(
                f"Tensor '{layer.name}.{self.suffix}' has {str(data.dtype).removeprefix('torch.')} {list(data.shape)}, but {self.kind} "
                f"of {layer.outputs} x {layer.inputs} is uint8 {list(wanted)}.",
                fix="check that the configuration and the file belong together",
            )
        return Block(self.suffix, self.elements, self.nbytes).pack(data, layer.inputs)


class GgufQuantizer(Quantizer):
    """``types``: the block type by layer name, a ``*`` for an expert's number; layers that are not in it are plain."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """One format for the layer, or one per part where the parts' types differ."""
        formats = [None if kind is None else BlockFormat(kind) for kind in self._kinds(layer)]
        return formats[0] if len(set(self._kinds(layer))) == 1 else PartFormats(tuple(formats))

    def embedding(self, layer: LinearShape) -> WeightFormat | None:
        """As of a linear layer."""
        (kind,) = self._kinds(layer)
        return None if kind is None else BlockFormat(kind)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return tuple(sorted({_LAYOUTS.get(kind, f"blocks {kind.lower()}") for kind in self._types.values()}))

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        kind = tensor.name.rpartition(".")[2].upper()
        return tensor.nbytes * _HELD.get(kind, BLOCKS[kind][1]) // BLOCKS[kind][1] if kind in BLOCKS else None

    def describe(self) -> dict[str, Any]:
        """How many layers are of each type."""
        return {"types": dict(Counter(self._types.values()).most_common())}

    def _kinds(self, layer: LinearShape) -> list[str | None]:
        names = [_EXPERT.sub(".experts.*.", part) for part in layer.parts or (layer.name,)]
        # old files name each expert
        own = layer.parts or (layer.name,)
        return [self._types.get(name, self._types.get(part)) for name, part in zip(names, own, strict=True)]


@hookimpl
def engine_create_quantizer(checkpoint: Checkpoint, config: dict[str, Any] | None) -> Quantizer:
    types = (config or {}).get("types")
    if not isinstance(types, dict):
        raise ModelFileError(
            f"--quantization gguf: {checkpoint.path} is not read as a GGUF file, which alone says the types of its tensors.",
            fix="name the .gguf file as the model",
        )
    for name, kind in types.items():
        if kind not in BLOCKS:
            raise ModelFileError(
                f"{checkpoint.path}: {name} has the type {kind!r}; known are {', '.join(BLOCKS)}.", fix="a file of another type"
            )
    return GgufQuantizer(types)
