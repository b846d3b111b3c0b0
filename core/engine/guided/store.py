"""Compiled constraints by what they say: compiled once on a thread, kept while there is room, in memory only."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from engine.guided.backends import Backends
from engine.plugin.contracts.generation import Guide
from engine.plugin.request import GuideSpec

#: Bytes that compiled constraints may take together, as their backends estimate it.
CAPACITY = 64 * 2**20
#: Taken for every guide beside its own estimate.
OVERHEAD = 4096


def key_of(spec: GuideSpec) -> bytes:
    """What two constraints have in common when one guide serves both."""
    stated = (spec.backend, spec.kind, spec.value, spec.options)
    return hashlib.sha256(msgspec.msgpack.encode(stated)).digest()


class GuideStore:
    """Asked from one thread. Guides in use live on with their sequences when the store forgets them."""

    def __init__(self, backends: Backends, capacity: int = CAPACITY) -> None:
        self._backends = backends
        self._capacity = capacity
        self._guides: OrderedDict[bytes, Future[Guide]] = OrderedDict()
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    def get(self, spec: GuideSpec) -> Future[Guide]:
        """The guide, perhaps not ready. It fails with ValueError or the plugin host's errors."""
        key = key_of(spec)
        with self._lock:
            known = self._guides.get(key)
            if known is None:
                self._thread = self._thread or ThreadPoolExecutor(1, "guides")
                self._guides[key] = self._thread.submit(self._compile, spec)
            self._guides.move_to_end(key)
            found = self._guides[key]
        if known is None:
            # without the lock: the callback of one that is ready already runs here
            found.add_done_callback(lambda _: self._evict())
        return found

    @property
    def width(self) -> int:
        """Columns of the logits."""
        return self._backends.width

    @property
    def end(self) -> int:
        """The id by which grammars allow the end of the output."""
        return self._backends.end

    @property
    def blanks(self) -> tuple[int, ...]:
        """The tokens of line breaks alone."""
        return self._backends.blanks

    def nbytes(self) -> int:
        """What the ready guides take."""
        with self._lock:
            return sum(map(_size, self._guides.values()))

    def __len__(self) -> int:
        return len(self._guides)

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _compile(self, spec: GuideSpec) -> Guide:
        if spec.start_after:
            _ = self._backends.blanks  # found here, where no step waits
        return self._backends.compiler(spec.backend or "").compile(spec)

    def _evict(self) -> None:
        with self._lock:
            total = sum(map(_size, self._guides.values()))
            for key in list(self._guides)[:-1]:
                if total <= self._capacity:
                    return
                if self._guides[key].done():
                    total -= _size(self._guides.pop(key))


def _size(guide: Future[Guide]) -> int:
    if not guide.done() or guide.cancelled() or guide.exception() is not None:
        return OVERHEAD
    return OVERHEAD + guide.result().nbytes()
