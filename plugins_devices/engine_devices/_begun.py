"""A list of native operations that has begun beside its caller."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.plugin import Succession, UnderWay

if TYPE_CHECKING:
    from torch import Tensor

    from engine_devices._native import Native, Operation


class Advance(ctypes.Structure):
    """``engine_advance_arguments`` of native/advance.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("value", "place", "found", "token_ids", "positions", "slots", "seq_lens")),
        *((name, ctypes.c_void_p) for name in ("next_slots", "ends", "end_of")), ("rows", ctypes.c_int32),
    )  # fmt: skip


class Begun(UnderWay):
    """One list; ``results`` tells where they are, ``done`` is told when it is over."""

    def __init__(
        self, native: Native, operations: ctypes.Array[Operation], results: Callable[[], tuple[Tensor, ...]], done: Callable[[], None]
    ) -> None:
        self._native = native
        self._operations = operations
        self._results = results
        self._done = done
        self._advance = Advance()
        self._known: Succession | None = None

    def finish(self) -> tuple[Tensor, ...]:
        """See the contract."""
        if not self._native.follow():
            self._native.run_list(self._operations)
        self._done()
        return self._results()

    def finish_and_go_on(self, succession: Succession) -> tuple[Tensor, ...] | None:
        """See the contract."""
        self._aim(succession)
        state = self._native.follow_on(self._operations, self._advance)
        if not state:
            self._native.run_list(self._operations)
        self._done()
        return None if state == 2 else self._results()

    def drop(self) -> None:
        """See the contract."""
        self._native.drop()

    def _aim(self, succession: Succession) -> None:
        advance, known = self._advance, self._known
        if known is None or known.inputs is not succession.inputs or known.ends is not succession.ends:
            value, place = self._results()[-2:]
            advance.value, advance.place, advance.rows = value.data_ptr(), place.data_ptr(), len(succession.found)
            fields = ("token_ids", "positions", "slots", "seq_lens", "ends", "end_of")
            for name, array in zip(fields, (*succession.inputs, succession.ends, succession.end_of), strict=True):
                setattr(advance, name, array.ctypes.data)
        advance.found, advance.next_slots = succession.found.ctypes.data, succession.slots.ctypes.data
        self._known = succession


def begin(
    native: Native, operations: ctypes.Array[Operation], results: Callable[[], tuple[Tensor, ...]], done: Callable[[], None]
) -> UnderWay | None:
    """Let the pool begin; None: it cannot."""
    return Begun(native, operations, results, done) if native.lead_list(operations) else None
