"""Whom the engine process works for just now, in memory that outlives it: after its death the front end reads who was at work."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from engine.messages import Output

#: Tokens (or a finish reason) that a request has to get in one life of the engine to be above suspicion there.
PROVEN = 4
_SIZE = 1 << 16
_LENGTH = struct.Struct("<I")


class Record:
    """Ids of requests: a little-endian unsigned 32-bit length and that many bytes of msgpack, in an anonymous file that both processes map.

    A death in the middle of writing leaves an empty record. Ids beyond 64 KiB are left out.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, _SIZE)

    @classmethod
    def create(cls) -> Record:
        """An empty one; ``fd`` is for the engine process to inherit."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("engine-record")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _SIZE)
        return cls(fd)

    def write(self, ids: list[str]) -> None:
        """Replace what is there."""
        data = msgspec.msgpack.encode(ids)
        while len(data) > _SIZE - _LENGTH.size:
            ids = ids[: len(ids) // 2]
            data = msgspec.msgpack.encode(ids)
        memory = self._memory
        _LENGTH.pack_into(memory, 0, 0)
        memory[_LENGTH.size : _LENGTH.size + len(data)] = data
        _LENGTH.pack_into(memory, 0, len(data))

    def read(self) -> frozenset[str]:
        """What was written last."""
        (length,) = _LENGTH.unpack_from(self._memory, 0)
        if not 0 < length <= _SIZE - _LENGTH.size:
            return frozenset()
        return frozenset(msgspec.msgpack.decode(self._memory[_LENGTH.size : _LENGTH.size + length], type=list[str]))

    def close(self) -> None:
        """Unmap and close. May be called twice."""
        if self.fd >= 0:
            self._memory.close()
            os.close(self.fd)
            self.fd = -1


class Novices:
    """The requests that are not proven yet in this life of the engine; keeps ``write`` told which of them are worked for."""

    def __init__(self, write: Callable[[list[str]], None] | None) -> None:
        self._tell = write
        self._given: dict[str, int] = {}
        self._at_work: deque[list[str]] = deque()

    def __bool__(self) -> bool:
        return bool(self._given)

    def enter(self, id: str) -> None:
        """The engine takes a new request in; :meth:`entered` when it has."""
        self._given[id] = 0
        self._write(id)

    def entered(self) -> None:
        """Nothing more is done for the new request until a step is."""
        self._write()

    def begin(self, ids: Iterable[str]) -> None:
        """A step for these requests begins."""
        self._at_work.append([id for id in ids if id in self._given])
        if self._at_work[-1]:
            self._write()

    def end(self, outputs: list[Output]) -> None:
        """The step that began first is over and gave this."""
        over = self._at_work.popleft()
        if self._given:
            for output in outputs:
                self._count(output)
        if over:
            self._write()

    def leave(self, ids: Iterable[str]) -> None:
        """Nobody wants these any more; a step that computes one goes on."""
        for id in ids:
            self._given.pop(id, None)

    def _count(self, output: Output) -> None:
        given = self._given.get(output.id)
        if given is None:
            return
        self._given[output.id] = given + len(output.token_ids)
        if output.finish_reason is not None or self._given[output.id] >= PROVEN:
            del self._given[output.id]

    def _write(self, *more: str) -> None:
        if self._tell is not None:
            self._tell(list(dict.fromkeys((*(id for ids in self._at_work for id in ids), *more))))
