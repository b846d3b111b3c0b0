"""Checkpoints in AWQ's gemm layout: qweight, qzeros and scales, packed along the outputs. Torch-free until packing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, PartFormats, Quantizer, TensorInfo, WeightFormat

from ._held import scaled
from ._names import listed, parts_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: Bits → the column that each field of a word holds, fields from the lowest bits on.
ORDERS = {4: (0, 2, 4, 6, 1, 3, 5, 7), 8: (0, 2, 1, 3)}


class AWQ(Quantizer):
    """The layers of an AWQ checkpoint."""

    def __init__(self, config: dict[str, Any]) -> None:
        reader = ConfigReader(config, "quantization_config.")
        key = "bits" if "bits" in config or "w_bit" not in config else "w_bit"
        self.bits = reader.integer(key)
        if self.bits not in ORDERS:
            raise reader.complaint(key, self.bits, "4 or 8")
        self.group = reader.integer("group_size" if "group_size" in config or "q_group_size" not in config else "q_group_size", -1, low=-1)
        if self.group == 0:
            raise reader.complaint("group_size", 0, "-1 or a positive number")
        self.zero_point = reader.flag("zero_point", True)
        self.head = reader.flag("lm_head", False)
        self.ignored = listed(reader, "modules_to_not_convert")
        # GPTQModel says it under its own keys.
        version = next((found for key in ("version", "checkpoint_format", "format") if (found := config.get(key))), "gemm")
        reader = ConfigReader({**config, "version": str(version).lower()}, "quantization_config.")
        self.version = reader.text("version", known=("gemm", "gemv", "gemv_fast", "llm-awq"))
        if config.get("backend", "autoawq") == "llm-awq":
            self.version = "llm-awq"
        if self.version != "gemm" and self.bits != 4:
            raise reader.complaint("version", self.version, "gemm, where bits is not 4")

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        if layer.role == "router" or (layer.role == "head" and not self.head):
            return None
        left = [self._ignores(name) for name in parts_of(layer)]
        if not any(left):
            return self._format(layer)
        parts = [LinearShape(name, layer.inputs, size) for name, size in zip(layer.parts, layer.sizes, strict=True)]
        return None if all(left) else PartFormats(tuple(None if no else self._format(part) for no, part in zip(left, parts, strict=True)))

    def _ignores(self, name: str) -> bool:
        """The producer's rule: a listed text anywhere in the module's name, a dot at its end included."""
        return any(each in f"{name}." for each in self.ignored)

    def _format(self, layer: LinearShape) -> WeightFormat:
        if self.version in ("gemv_fast", "llm-awq"):
            from ._awq_fast import AWQFastFormat

            return AWQFastFormat(self.group, layer, words=self.version == "llm-awq")
        if self.version == "gemv":
            from ._awq_rows import AWQRowsFormat

            return AWQRowsFormat(self.group, layer.inputs)
        return AWQFormat(self.bits, self.group, self.zero_point, layer)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return (f"grouped_int {self.bits}",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        if self.version != "gemm":
            return self._held_filled(tensor)
        zeros, scale = (32 / self.bits, 2) if self.zero_point else (0, 1)
        return scaled(tensor, {"qweight": 1, "qzeros": zeros, "scales": scale})

    def _held_filled(self, tensor: TensorInfo) -> int | None:
        """All bytes of a layer at its codes: the checkpoint's scales and zero points may be filled up beyond the groups."""
        if tensor.name.endswith((".scales", ".qzeros", ".scaled_zeros")):
            return 0
        if not tensor.name.endswith(".qweight"):
            return None
        rows, columns = tensor.shape if len(tensor.shape) == 2 else (0, 0)
        # The first llm-awq's words, int32, run along the outputs as gemm's do.
        words = rows if self.version == "llm-awq" else 8 * columns
        inputs = columns if tensor.dtype == "int16" else words
        # Scale and shift in float32.
        groups = 1 if self.group < 0 else -(-inputs // self.group)
        return tensor.nbytes + 8 * groups * (tensor.nbytes * 2 // max(inputs, 1))

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        group = self.group if self.group > 0 else "all inputs"
        return {"bits": self.bits, "group": group, "zero points": "one per group" if self.zero_point else "none"}


class AWQFormat(WeightFormat):
    """qweight int32 [inputs, outputs · bits / 32], qzeros int32 [groups, outputs · bits / 32], scales [groups, outputs].

    W[o, i] = scales[i // group, o] · (q[i, o] - zero[i // group, o]). Fields of a word hold columns in the order of :data:`ORDERS`.
    """

    def __init__(self, bits: int, group: int, zero_point: bool, layer: LinearShape) -> None:
        self.bits, self.zero_point = bits, zero_point
        self.group = layer.inputs if group < 0 else group
        names = ", ".join(parts_of(layer))
        if layer.inputs % self.group:
            raise ModelFileError(f"{names}: {layer.inputs} inputs are no multiple of {self.group} (quantization_config.group_size).")
        for size in layer.sizes or (layer.outputs,):
            if size % (32 // bits):
                raise ModelFileError(f"{names}: {size} outputs are no multiple of {32 // bits}, in which {bits}-bit values are packed.")
        self.axis = None if self.group == layer.inputs else 0

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """See the contract."""
        count = 32 // self.bits
        return (
            CheckpointTensor("qweight", 1, 0, output_group=count),
            CheckpointTensor("qzeros", 1, self.axis, output_group=count, input_group=self.group, optional=not self.zero_point),
            CheckpointTensor("scales", 1, self.axis, input_group=self.group),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        import torch

        from ._integers import SCALES, grouped, unpack_columns
        from ._tensors import check, require

        order, words = ORDERS[self.bits], layer.outputs * self.bits // 32
        group = min(self.group, layer.inputs)
        groups = layer.inputs // group
        packed = check(layer, "qweight", require(layer, tensors, "qweight"), (layer.inputs, words), (torch.int32,))
        scale = check(layer, "scales", require(layer, tensors, "scales"), (groups, layer.outputs), SCALES).t()
        zeros = None
        if self.zero_point or "qzeros" in tensors:
            stored = check(layer, "qzeros", require(layer, tensors, "qzeros"), (groups, words), (torch.int32,))
            zeros = unpack_columns(stored, self.bits, order)
        return grouped(unpack_columns(packed, self.bits, order), scale, zeros, bits=self.bits, group=group)
