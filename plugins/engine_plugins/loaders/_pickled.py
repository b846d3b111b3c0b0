"""What tensors a file of torch.save holds, read without torch and without running anything that the file names."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from engine.errors import ModelFileError
from engine.plugin import TensorInfo

_PICKLE_LIMIT = 100_000_000
#: Storage class or torch dtype → (torch's dtype name, bytes of one element)
_DTYPES = {
    "DoubleStorage": ("float64", 8), "FloatStorage": ("float32", 4), "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2), "LongStorage": ("int64", 8), "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2), "CharStorage": ("int8", 1), "ByteStorage": ("uint8", 1), "BoolStorage": ("bool", 1),
    "UntypedStorage": ("uint8", 1),
}  # fmt: skip
_SIZES = dict(_DTYPES.values()) | {
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e8m0fnu": 1, "uint16": 2, "uint32": 4, "uint64": 8,
}  # fmt: skip


#: What the standard library raises over damaged archives and pickles: it trusts most fields that it reads.
DAMAGE = (
    zipfile.BadZipFile, pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    OverflowError, MemoryError, NotImplementedError, RuntimeError, struct.error,
)  # fmt: skip


class _Storage:
    def __init__(self, dtype: str, key: str, nbytes: int) -> None:
        self.dtype, self.key, self.nbytes = dtype, key, nbytes


class _Tensor:
    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], dtype: str) -> None:
        sizes_are_whole = all(isinstance(extent, int) and extent >= 0 for extent in (offset, *shape))
        if not isinstance(storage, _Storage) or dtype not in _SIZES or not sizes_are_whole:
            raise ValueError("a tensor without storage, sizes or dtype")
        self.storage, self.offset, self.shape, self.dtype = storage, offset, shape, dtype


def is_zip(path: Path) -> bool:
    """Whether the file is of torch.save's zip format (torch ≥ 1.6), by its first bytes, as torch decides."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_tensors(path: Path) -> Iterator[TensorInfo]:
    """Every tensor of a state dict. Raises :class:`ModelFileError` naming file, tensor and what it wanted to run."""
    try:
        with zipfile.ZipFile(path) as archive:
            state, sizes = _load(path, archive)
    except DAMAGE as error:
        _refuse(path, f"is not a whole torch.save file ({type(error).__name__}: {error})")
    if not isinstance(state, dict):
        _refuse(path, f"holds a {type(state).__name__} where a dict from name to tensor was expected")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            _refuse(path, f"holds {name!r}: {type(tensor).__name__}, which is not a tensor")
        yield _info(path, name, tensor, sizes)


def _load(path: Path, archive: zipfile.ZipFile) -> tuple[Any, dict[str, int]]:
    pickled = next((info for info in archive.infolist() if info.filename.endswith("/data.pkl")), None)
    if pickled is None:
        _refuse(path, "has no data.pkl inside")
    if pickled.file_size > _PICKLE_LIMIT or any(info.compress_type for info in archive.infolist()):
        _refuse(path, f"is compressed, or its data.pkl is larger than {_PICKLE_LIMIT} bytes")
    prefix = pickled.filename.removesuffix("data.pkl") + "data/"
    sizes = {
        info.filename.removeprefix(prefix): info.file_size
        for info in archive.infolist()
        if info.filename.startswith(prefix)
    }
    return _Reader(path, archive.read(pickled)).load(), sizes


def _info(path: Path, name: str, tensor: _Tensor, sizes: dict[str, int]) -> TensorInfo:
    elements = 1
    for extent in tensor.shape:
        elements *= extent
    nbytes = elements * _SIZES[tensor.dtype]
    held = sizes.get(tensor.storage.key, -1)
    if held < tensor.storage.nbytes:
        _refuse(path, f"tensor {name!r}: its storage needs {tensor.storage.nbytes} bytes, the file has {max(held, 0)}")
    return TensorInfo(name, tensor.dtype, tensor.shape, nbytes, str(path))


class _Reader(pickle.Unpickler):
    """Knows the few names that a state dict needs and gives each a harmless meaning; no other is looked up."""

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path

    def load(self) -> Any:
        try:
            return super().load()
        except ModelFileError:
            raise
        except DAMAGE as error:
            return _refuse(self._path, f"holds a damaged pickle ({type(error).__name__}: {error})")

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
            ("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return name
        if module == "torch" and name in _SIZES:
            return name
        return _refuse(self._path, f"wants to run {module}.{name}, which no state dict needs; nothing was run")

    def persistent_load(self, pid: Any) -> Any:
        _, storage, key, _, count = pid
        dtype, size = _DTYPES[storage]
        return _Storage(dtype, str(key), count * size)


def _rebuild(storage: _Storage, offset: int, size: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(size), storage.dtype)


def _rebuild_typed(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: Any, grad: Any, hooks: Any, dtype: str, *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(size), dtype)


def _refuse(path: Path, problem: str) -> NoReturn:
    raise ModelFileError(f"{path} {problem}.", fix="use the model's .safetensors files")
