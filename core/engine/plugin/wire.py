"""Length-prefixed msgpack frames over Unix sockets, between the processes of one engine.

A frame is a little-endian unsigned 32-bit length followed by that many bytes of msgpack. Peers are trusted to be the
engine's own processes: the socket file has mode 0600 in a directory of mode 0700, and frames carry typed messages,
never code.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import tempfile
import threading
import time
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

#: Length prefix of a frame.
HEADER = struct.Struct("<I")
#: Longest frame accepted, in bytes. A prefix beyond it is not a frame of ours.
MAX_FRAME = 1 << 28


class WireError(OSError):
    """What arrived is not a frame: a length beyond :data:`MAX_FRAME`."""


class Connection:
    """One end of a connected stream socket. ``send*`` may be called from several threads; ``recv*`` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._encoder = msgspec.msgpack.Encoder()
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Send one message that msgspec can encode. Raises ``OSError`` when the other end is gone."""
        self.send_bytes(self._encoder.encode(message))

    def send_bytes(self, data: bytes) -> None:
        """Send one frame that is encoded already."""
        if len(data) > MAX_FRAME:
            raise WireError(f"a message of {len(data)} bytes is longer than the limit of {MAX_FRAME}")
        with self._sending:
            if len(data) < 1 << 16:
                self._socket.sendall(HEADER.pack(len(data)) + data)
            else:
                self._socket.sendall(HEADER.pack(len(data)))
                self._socket.sendall(data)

    def recv(self, kind: type[T], timeout: float | None = None) -> T:
        """The next message, decoded as ``kind``; errors as :meth:`recv_bytes`, and ``msgspec.DecodeError``."""
        return msgspec.msgpack.decode(self.recv_bytes(timeout), type=kind)

    def recv_bytes(self, timeout: float | None = None) -> bytes:
        """The next frame's payload.

        ``timeout``: most seconds without any byte arriving, None waits for ever. Raises ``EOFError`` when the other end
        closed, ``TimeoutError`` after the timeout (the connection is then of no more use), :class:`WireError` for no
        frame.
        """
        (length,) = HEADER.unpack(self._read(HEADER.size, timeout))
        if length > MAX_FRAME:
            raise WireError(f"a frame announces {length} bytes, more than the limit of {MAX_FRAME}")
        return bytes(self._read(length, timeout))

    def fileno(self) -> int:
        """The socket's descriptor, for select."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close both directions; wakes a thread that waits in ``recv``. May be called twice."""
        with contextlib.suppress(OSError):  # Not connected any more, which is what was wanted.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, size: int, timeout: float | None) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            # Not settimeout(): it would also cut short a send that another thread has under way.
            if timeout is not None and not self._readable(timeout):
                raise TimeoutError(f"the other end sent nothing for {timeout:g} s")
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError("the other end closed the connection")
            view = view[count:]
        return data

    def _readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout * 1000))


class Listener:
    """A listening Unix socket that only this user can reach."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(path)
            os.chmod(path, 0o600)
            self._socket.listen()
        except OSError:
            self._socket.close()
            raise

    def accept(self, timeout: float | None = None) -> Connection:
        """The next connection; raises ``TimeoutError`` when none comes in ``timeout`` seconds."""
        self._socket.settimeout(timeout)
        sock, _ = self._socket.accept()
        return Connection(sock)

    def close(self) -> None:
        """Stop listening and remove the socket file. May be called twice."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):  # Closed before.
            os.unlink(self.path)


def private_directory(prefix: str = "engine-") -> str:
    """A fresh directory of mode 0700 for sockets; the caller removes it. Short, since socket paths end at about 100
    characters."""
    path = tempfile.mkdtemp(prefix=prefix)
    os.chmod(path, 0o700)
    return path


def listen(path: str) -> Listener:
    """Listen on ``path`` (which must not exist) in a private directory."""
    return Listener(path)


def connect(path: str, timeout: float = 10.0) -> Connection:
    """Connect to a listener, waiting up to ``timeout`` seconds for its socket file to appear. Raises ``OSError``."""
    deadline = time.monotonic() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
            return Connection(sock)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        except OSError:
            sock.close()
            raise
