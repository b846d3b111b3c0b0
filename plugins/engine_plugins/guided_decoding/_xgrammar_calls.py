"""xgrammar's matchers stepped by calls of C functions, on any threads and without Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.plugin import Stepper

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Types of values, from tvm-ffi's c_api.h: 16 bytes each, the type and then the value.
_INT, _BOOL, _TENSOR = 1, 2, 7
#: Words of a row: three values that accepting a token takes, four that filling its mask takes, and what each of the two returns.
_WORDS, _TOKEN, _FILL, _RESULTS, _TAKEN = 18, 3, 6, 14, 15


class _Tensor(ctypes.Structure):
    """``DLTensor`` of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32), ("device_id", ctypes.c_int32), ("axes", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("offset", ctypes.c_uint64),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the library's C functions are: ``call`` calls one of its own, of which ``accept`` and ``fill`` are two methods of the type
    ``matcher``. ``keep``: what they belong to."""

    call: int
    accept: int
    fill: int
    matcher: int
    keep: tuple[Any, ...]

    @classmethod
    def find(cls, kind: Any) -> Entry | None:
        """By the library's own type of a matcher; None where this version of it has other insides."""
        try:
            import tvm_ffi

            info = kind.__tvm_ffi_type_info__
            methods = {method.name: method.func for method in info.methods}
            accept, fill = methods["accept_token"], methods["fill_next_token_bitmask"]
            library = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())
            call = ctypes.cast(library.TVMFFIFunctionCall, ctypes.c_void_p).value or 0
            return cls(call, accept.__chandle__(), fill.__chandle__(), info.type_index, (library, accept, fill))
        except (ImportError, AttributeError, KeyError, OSError):
            return None


class CallStepper(Stepper):
    """Each row accepts its token, then fills its mask."""

    def __init__(
        self, entry: Entry, matchers: Sequence[Any], masks: NDArray[np.int32], kept: Sequence[NDArray[np.int32] | None],
        apart: frozenset[int],
    ) -> None:
        """``matchers``: the library's own objects. ``kept``: of each the mask that it keeps, if it does not keep everything."""
        import numpy

        count = len(matchers)
        self._shape = (ctypes.c_int64 * 2)(*masks.shape)
        self._strides = (ctypes.c_int64 * 2)(masks.shape[1], 1)
        self._tensor = _Tensor(
            masks.ctypes.data, 1, 0, 2, 0, 32, 1, ctypes.addressof(self._shape), ctypes.addressof(self._strides), 0
        )
        self._keep = (entry, list(matchers), masks, kept)
        rows = numpy.arange(count)
        handles = [matcher.__chandle__() for matcher in matchers]
        words = self._words = numpy.zeros((count, _WORDS), numpy.int64)
        words[:, : _FILL : 2] = entry.matcher, _INT, _BOOL
        words[:, _FILL : _RESULTS : 2] = entry.matcher, _TENSOR, _INT, _BOOL
        words[:, 1] = words[:, _FILL + 1] = handles
        words[:, _FILL + 3], words[:, _FILL + 5] = ctypes.addressof(self._tensor), rows
        base = words.ctypes.data + 8 * _WORDS * rows
        calls = self.calls = numpy.zeros((count, 2, 5), numpy.uint64)
        calls[:, :, 0] = entry.call
        calls[:, :, 1] = entry.accept, entry.fill
        calls[:, 0, 2], calls[:, 1, 2] = base, base + 8 * _FILL
        calls[:, :, 3] = 3, 4
        calls[:, 0, 4], calls[:, 1, 4] = base + 8 * _RESULTS, base + 8 * (_RESULTS + 2)
        self.kept = numpy.array([0 if mask is None else mask.ctypes.data for mask in kept], numpy.uint64)
        self.apart = apart
        self._all = numpy.ones(count, numpy.int64).tobytes()

    def stage(self, token_ids: NDArray[np.int64]) -> None:
        self._words[:, _TOKEN] = token_ids
        self._words[:, _RESULTS:] = 0

    def refused(self) -> Sequence[int]:
        taken = self._words[:, _TAKEN]
        return () if taken.tobytes() == self._all else [place for place, took in enumerate(taken.tolist()) if not took]
