"""A list of native operations that has begun beside its caller."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.plugin import UnderWay

if TYPE_CHECKING:
    from torch import Tensor

    from engine_devices._native import Native, Operation


class Begun(UnderWay):
    """One list; ``done`` gives its results when it is over."""

    def __init__(self, native: Native, operations: ctypes.Array[Operation], done: Callable[[], tuple[Tensor, ...]]) -> None:
        self._native = native
        self._operations = operations
        self._done = done

    def finish(self) -> tuple[Tensor, ...]:
        """See the contract."""
        if not self._native.follow():
            self._native.run_list(self._operations)
        return self._done()

    def drop(self) -> None:
        """See the contract."""
        self._native.drop()


def begin(native: Native, operations: ctypes.Array[Operation], done: Callable[[], tuple[Tensor, ...]]) -> UnderWay | None:
    """Let the pool begin; None: it cannot."""
    return Begun(native, operations, done) if native.lead_list(operations) else None
