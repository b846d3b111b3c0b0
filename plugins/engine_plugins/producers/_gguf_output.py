"""A GGUF file written tensor by tensor: room for the header first, each tensor's bytes where it came, the header last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine.plugin import WeightOutput
from engine_plugins._gguf.encode import ALIGNMENT, Entry, encode_header
from engine_plugins._gguf.types import TYPES
from engine_plugins._gguf.written import Home, Written

_NUMBERS = {kind.name: number for number, kind in TYPES.items()}
_PLAIN = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
#: Matrices that other programs want as float32 too.
_EXACT = ("ffn_gate_inp", "position_embd")


class GgufOutput(WeightOutput):
    """``add`` takes what the engine's own reader of the format yields: ``<layer>.q8_0`` rows, ``<layer>.weight``, ``<layer>.bias``.

    ``names`` says what will come, ``extra`` tensors are no weights (factors of rotary frequencies).
    """

    def __init__(self, file: Path, names: Written, metadata: Mapping[str, Entry], extra: Mapping[str, Sequence[float]]) -> None:
        self.names, self.metadata = names, metadata
        dimensions = {**names.names, **dict.fromkeys(extra, 1)}
        self._begin = len(encode_header(metadata, {name: ((0,) * count, 0, 0) for name, count in dimensions.items()}))
        self._expected = dimensions
        self._file = file.open("wb")
        self._end = 0
        self._entries: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for name, values in extra.items():
            self._put(name, "F32", (len(values),), torch.tensor(values), Home(name))

    def add(self, name: str, tensor: Tensor) -> None:
        """See the contract."""
        layer, _, suffix = name.rpartition(".")
        home = self.names.home(layer)
        if home is None:
            raise ValueError(f"{name!r} has no place in a GGUF file of {self.names.architecture}")
        plain = suffix in ("weight", "bias")
        own = f"{home.name}.{suffix if plain else 'weight'}"
        tensor = self._ordered(home.name.rpartition(".")[2], tensor, plain=plain)
        if plain:
            exact = tensor.dim() == 1 or home.name.endswith(_EXACT) or tensor.dtype not in _PLAIN
            tensor = tensor.float() if exact else tensor
            kind, shape = _PLAIN[tensor.dtype], tuple(tensor.shape)
        else:
            kind = suffix.upper()
            block = TYPES[_NUMBERS[kind]]
            shape = (*tensor.shape[:-1], tensor.shape[-1] // block.nbytes * block.elements)
        self._put(own, kind, shape, tensor, home)

    def finish(self) -> None:
        """See the contract."""
        missing = [name for name in self._expected if name not in self._entries]
        if missing:
            raise ValueError(f"these tensors did not come: {', '.join(missing[:6])}")
        self._file.truncate(self._begin + -(-self._end // ALIGNMENT) * ALIGNMENT)
        self._file.seek(0)
        self._file.write(encode_header(self.metadata, {name: self._entries[name] for name in sorted(self._entries, key=self._offset)}))
        self._file.close()

    def close(self) -> None:
        """See the contract."""
        self._file.close()

    def _offset(self, name: str) -> int:
        return self._entries[name][2]

    def _put(self, name: str, kind: str, shape: tuple[int, ...], tensor: Tensor, home: Home) -> None:
        """The bytes in a place of their own, an expert's within that of all."""
        if name not in self._expected:
            raise ValueError(f"{name!r} was not expected")
        stacked = home.expert is not None
        if name not in self._entries:
            self._end = -(-self._end // ALIGNMENT) * ALIGNMENT
            whole = (self.names.experts, *shape) if stacked else shape
            self._entries[name] = (whole, _NUMBERS[kind], self._end)
            self._end += tensor.nbytes * (self.names.experts if stacked else 1)
        kept, number, offset = self._entries[name]
        if stacked and (number, kept[1:]) != (_NUMBERS[kind], shape):
            raise ValueError(f"the experts of {name!r} differ in type or shape")
        self._file.seek(self._begin + offset + (home.expert or 0) * tensor.nbytes)
        self._file.write(tensor.contiguous().view(torch.uint8).numpy().data)

    def _ordered(self, own: str, tensor: Tensor, *, plain: bool) -> Tensor:
        """Rows and norms as files of the family have them."""
        family = self.names.family
        if family.rotary_pairs and own in ("attn_q", "attn_k"):
            heads = self.names.heads[own == "attn_k"]
            return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)
        if family.fused_heads and own == "attn_qkv":
            return tensor.reshape(self.names.heads[0], 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
        if family.norm_offset and own.endswith("norm") and plain:
            return tensor.float() + family.norm_offset
        if family.transposed and own not in family.ends and tensor.dim() == 2 and plain:
            return tensor.t()
        return tensor
