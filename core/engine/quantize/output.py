"""Safetensors written tensor by tensor, in files of limited size with an index (format: github.com/huggingface/safetensors)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from engine.plugin.contracts.producing import WeightOutput

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_METADATA = {"format": "pt"}
#: Every tensor begins at a multiple of this.
_ALIGNMENT = 8
#: Bytes of a tensor's entry in the header beside its name, at most.
ENTRY = 160


class SafetensorsOutput(WeightOutput):
    """``model.safetensors``, or ``model-0000N-of-0000M.safetensors`` with their index.

    The header stands before the data in the file, so room for it is left (``header_bytes``: of all tensors' entries) and filled with
    spaces in the end, as the format permits. Tensors of a length that would leave the next one unaligned come last in their file.
    """

    def __init__(self, folder: Path, file_bytes: int, header_bytes: int) -> None:
        self.folder, self.file_bytes = folder, file_bytes
        self.room = -(-min(max(header_bytes, 512), 8 << 20) // 512) * 512 - 8
        self._file: IO[bytes] | None = None
        self._entries: dict[str, dict[str, object]] = {}
        self._odd: list[tuple[str, Tensor]] = []
        self._position = self._header = 0
        self._files: list[tuple[Path, list[str], int]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        """See the contract."""
        entry = len(json.dumps(name)) + ENTRY
        waiting = sum(each.nbytes for _, each in self._odd)
        full = self._position and self._position + waiting + tensor.nbytes > self.file_bytes
        if self._file is not None and (full or self._header + entry > self.room):
            self._close_file()
        if self._file is None:
            self._open_file()
        self._header += entry
        if tensor.nbytes % _ALIGNMENT:
            self._odd.append((name, tensor.clone()))
        else:
            self._write(name, tensor)

    def finish(self) -> None:
        """See the contract."""
        if self._file is None and not self._files:
            self._open_file()
        if self._file is not None:
            self._close_file()
        if len(self._files) == 1:
            self._files[0][0].rename(self.folder / "model.safetensors")
            return
        homes: dict[str, str] = {}
        for number, (file, names, _) in enumerate(self._files, 1):
            final = file.rename(file.with_name(f"model-{number:05}-of-{len(self._files):05}.safetensors"))
            homes |= dict.fromkeys(names, final.name)
        index = {"metadata": {"total_size": sum(size for *_, size in self._files)}, "weight_map": homes}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")

    def close(self) -> None:
        """See the contract."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_file(self) -> None:
        self._file = (self.folder / f"part-{len(self._files)}.safetensors").open("wb")
        self._file.seek(8 + self.room)
        self._entries, self._position, self._header = {}, 0, len(json.dumps({"__metadata__": _METADATA}))

    def _write(self, name: str, tensor: Tensor) -> None:
        if self._file is None:
            raise ValueError("the output is closed")
        plain = tensor.detach().contiguous()
        raw = plain.view(torch.uint8) if plain.dim() else plain.reshape(1).view(torch.uint8)
        self._file.write(raw.numpy().data if raw.numel() else b"")
        end = self._position + plain.nbytes
        self._entries[name] = {"dtype": _NAMES[plain.dtype], "shape": list(plain.shape), "data_offsets": [self._position, end]}
        self._position = end

    def _close_file(self) -> None:
        """The tensors that were held back, the widest elements first, then the header."""
        for name, tensor in sorted(self._odd, key=lambda pair: -pair[1].element_size()):
            self._write(name, tensor)
        self._odd.clear()
        if self._file is None:
            return
        header = json.dumps({"__metadata__": _METADATA, **self._entries}, separators=(",", ":")).encode()
        self._file.seek(0)
        self._file.write(self.room.to_bytes(8, "little") + header.ljust(self.room))
        self._file.close()
        self._files.append((Path(self._file.name), list(self._entries), self._position))
        self._file = None
