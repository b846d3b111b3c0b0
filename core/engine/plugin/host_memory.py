"""Host memory for large blocks that live as long as the engine: zero, in huge pages, committed without making anybody wait."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

#: ``madvise``: make pages present and writable, content untouched (Linux 5.14).
_POPULATE_WRITE = 23
#: Bytes per call: a huge page. Whoever maps or unmaps memory meanwhile waits for the call's end.
_PIECE = 2 << 20
_LOWEST_PRIORITY = 19
#: Seconds of a call spent waiting for a processor from which on others want it, and how long they are then left alone.
_CROWDED = 0.0003
_PAUSE = 0.25


def zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A zero tensor on the host whose pages the system gives when they are first touched; see :func:`commit`.

    Writing zeros at once would cost a start seconds, and the first request nothing.
    """
    import torch

    size = math.prod(shape) * dtype.itemsize
    if size == 0 or sys.platform != "linux":
        tensor = torch.empty(tuple(shape), dtype=dtype)
        tensor.view(-1).view(torch.uint8).zero_()
        return tensor
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8).view(dtype).view(tuple(shape))


class Commitment:
    """Memory of tensors on the host that is being committed by a thread of its own, while processors are idle."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._stopped = threading.Event()
        # No daemon: the interpreter's end waits for it, for one piece at most. It may be the last to hold a tensor, and a daemon that frees
        # one while the interpreter goes is stopped inside torch's destructor, which aborts the process.
        self._thread = threading.Thread(target=self._populate, name="commit-memory", daemon=False)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all is committed, or for ``timeout`` seconds."""
        self._thread.join(timeout)

    def stop(self) -> None:
        """Commit no more, and let go of the tensors soon: nobody needs them any longer."""
        self._stopped.set()

    def _populate(self) -> None:
        libc, main = ctypes.CDLL(None, use_errno=True), threading.main_thread()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        for at, size in _pieces(self._tensors):
            wall, busy = time.perf_counter(), time.thread_time()
            if self._stopped.is_set() or not main.is_alive() or libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(size), _POPULATE_WRITE):
                break
            # The lowest priority alone would delay every step: whose threads wake up on this processor wait for the call's end.
            if time.perf_counter() - wall - (time.thread_time() - busy) > _CROWDED:
                self._stopped.wait(_PAUSE)
        self._tensors.clear()


def commit(tensors: Sequence[Tensor]) -> Commitment | None:
    """Commit the memory of tensors on the host in the background; their content stays as it is.

    A cache that was granted then cannot fail later. None where the system has no such call: pages come with their use.
    """
    return Commitment(tensors) if sys.platform == "linux" else None


def _pieces(tensors: Sequence[Tensor]) -> Iterator[tuple[int, int]]:
    """Addresses and sizes of whole pages, all tensors in turns: the first tokens' keys and values begin every layer's."""
    page = mmap.PAGESIZE
    spans = []
    for tensor in tensors:
        begin = -(-tensor.data_ptr() // page) * page
        spans.append((begin, (tensor.data_ptr() + tensor.numel() * tensor.element_size()) // page * page))
    for done in range(0, max((end - begin for begin, end in spans), default=0), _PIECE):
        yield from ((begin + done, min(_PIECE, end - begin - done)) for begin, end in spans if begin + done < end)
