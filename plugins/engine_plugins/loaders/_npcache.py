"""Tensors as one .npy file each: ``np/<tensor name>``, with the list of names in ``np/weight_names.json``.

Types that NumPy lacks are kept as unsigned integers of their width; ``np/dtypes.json`` says which tensors these are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ModelFileError
from engine.plugin import TensorInfo

from ._npy import read_npy_header

if TYPE_CHECKING:
    from torch import Tensor

_NAMES, _DTYPES, _SOURCE = "weight_names.json", "dtypes.json", "source.json"
_LIST_LIMIT = 100_000_000
#: torch's types without a counterpart in NumPy, and how their bits are kept.
_BITS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8", "float8_e8m0fnu": "uint8"}


class ArrayCache:
    """The cache of the torch ``files`` of one model.

    It lies in the model's directory, or under ``spare`` (--download-dir) where that cannot be written.
    """

    def __init__(self, model: Path, spare: str | None, files: Sequence[Path]) -> None:
        self._files = tuple(files)
        home = model if model.is_dir() else model.parent
        own = home / "np"
        if spare is not None and not own.is_dir() and not os.access(home, os.W_OK):
            key = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
            own = Path(spare).expanduser() / f"np-{key}" / "np"
        self.place = own

    def fresh(self) -> bool:
        """Whether the cache is complete and made from the files as they are now."""
        source = self.place / _SOURCE
        return (self.place / _NAMES).is_file() and (not source.is_file() or _read_json(source) == self._state())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes that use this cache."""
        lock = self.place.with_name("np.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("a")
        except OSError as error:
            if self.fresh():
                yield  # nothing needs to be written
                return
            raise self._unwritable(error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def write(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Make the cache; the list of names comes last, so that an interrupted attempt is no cache."""
        import numpy as np
        import torch

        names: list[str] = []
        dtypes: dict[str, str] = {}
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            (self.place / _NAMES).unlink(missing_ok=True)
            for name, tensor in tensors:
                dtype = str(tensor.dtype).removeprefix("torch.")
                if dtype in _BITS:
                    dtypes[name] = dtype
                    tensor = tensor.contiguous().view(getattr(torch, _BITS[dtype]))
                with self._file(name).open("wb") as file:
                    np.save(file, tensor.contiguous().numpy(), allow_pickle=False)
                names.append(name)
            (self.place / _DTYPES).write_text(json.dumps(dtypes))
            (self.place / _SOURCE).write_text(json.dumps(self._state()))
            partial = self.place / f"{_NAMES}.part"
            partial.write_text(json.dumps(names))
            partial.replace(self.place / _NAMES)
        except OSError as error:
            raise self._unwritable(error) from error

    def describe(self) -> Iterator[TensorInfo]:
        """Every array's header, checked against its file's size. Raises :class:`ModelFileError`."""
        names, dtypes = _read_json(self.place / _NAMES), self._dtypes()
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._damaged(_NAMES, "a list of tensor names was expected")
        if len(set(names)) != len(names):
            raise self._damaged(_NAMES, "a name is there twice")
        for name in names:
            header = read_npy_header(self._file(name))
            dtype = dtypes.get(name, header.dtype)
            if name in dtypes and _BITS.get(dtype) != header.dtype:
                raise self._damaged(_DTYPES, f"{name!r} is {dtype!r}, but its array holds {header.dtype}")
            yield TensorInfo(name, dtype, header.shape, header.nbytes, str(self._file(name)))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The arrays, memory-mapped."""
        import numpy as np
        import torch

        for info in self.describe():
            header = read_npy_header(Path(info.file))
            # numpy cannot map a file without data, and a private mapping is writable, as torch wants it
            empty = info.nbytes == 0
            kind = np.dtype(header.dtype)
            mapped = np.zeros(0, kind) if empty else np.memmap(info.file, kind, "c", header.start, (info.nbytes // kind.itemsize,))
            tensor = torch.from_numpy(mapped)
            tensor = tensor.view(info.shape[::-1]).permute(*range(len(info.shape))[::-1]) if header.fortran else tensor.view(info.shape)
            yield info.name, tensor if info.dtype == header.dtype else tensor.view(getattr(torch, info.dtype))

    def _dtypes(self) -> dict[str, str]:
        found = _read_json(self.place / _DTYPES) if (self.place / _DTYPES).exists() else {}
        if not isinstance(found, dict) or not all(value in _BITS for value in found.values()):
            raise self._damaged(_DTYPES, f"an object from tensor to one of {', '.join(_BITS)} was expected")
        return found

    def _state(self) -> list[list[Any]]:
        """What tells whether the torch files have changed."""
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in self._files]

    def _file(self, name: str) -> Path:
        if not name or "/" in name or "\0" in name or name in (".", "..", _NAMES, _DTYPES, _SOURCE) or len(os.fsencode(name)) > 250:
            raise ModelFileError(f"{self.place}: tensor {name!r:.200} cannot be a file of the cache by that name.", fix="--load-format pt")
        return self.place / name

    def _damaged(self, file: str, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.place / file}: {problem}.", fix=f"remove {self.place}, it is made again")

    def _unwritable(self, error: OSError) -> ModelFileError:
        return ModelFileError(
            f"{self.place}: the cache cannot be written: {error.strerror or error}.",
            fix="--download-dir DIR, a directory that can be written, or --load-format pt",
        )


def _read_json(file: Path) -> Any:
    try:
        if not file.is_file() or file.stat().st_size > _LIST_LIMIT:
            raise ValueError(f"a regular file of at most {_LIST_LIMIT} bytes was expected")
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{file} cannot be read: {error}.", fix=f"remove {file.parent}, it is made again") from error
