"""Frames between processes: what is sent arrives, and a broken or silent peer is an error instead of a hang."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from pathlib import Path

import msgspec
import pytest

from engine.plugin.step import Step, Work
from engine.plugin.wire import MAX_FRAME, Connection, WireError, connect, listen, private_directory


@pytest.fixture
def pair() -> tuple[Connection, Connection]:
    left, right = socket.socketpair()
    return Connection(left), Connection(right)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 3_000_000])
def test_frames_of_any_size(pair: tuple[Connection, Connection], size: int) -> None:
    data = os.urandom(size)
    sender = threading.Thread(target=pair[0].send_bytes, args=(data,))
    sender.start()
    assert pair[1].recv_bytes(10) == data
    sender.join()


def test_typed_messages(pair: tuple[Connection, Connection]) -> None:
    step = Step(index=3, work=[Work(seq=1, start=0, count=2, blocks=[7])], swap_out=[(1, 2)])
    pair[0].send(step)
    assert pair[1].recv(Step, 5) == step
    pair[0].send({"index": "three"})
    with pytest.raises(msgspec.ValidationError):
        pair[1].recv(Step, 5)


def test_the_documented_format(pair: tuple[Connection, Connection]) -> None:
    pair[0].send([1, "a"])
    raw = pair[1]._socket.recv(100)
    assert raw == struct.pack("<I", 4) + msgspec.msgpack.encode([1, "a"])


def test_the_end_of_the_other_side(pair: tuple[Connection, Connection]) -> None:
    pair[0]._socket.sendall(b"\x10\x00\x00\x00half")
    pair[0].close()
    pair[0].close()
    with pytest.raises(EOFError):
        pair[1].recv_bytes(5)
    with pytest.raises(OSError, match="Broken pipe"):
        pair[1].send_bytes(b"x")


def test_silence(pair: tuple[Connection, Connection]) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        pair[0].recv_bytes(0.1)
    assert 0.05 < time.monotonic() - began < 2


def test_a_close_wakes_the_reader(pair: tuple[Connection, Connection]) -> None:
    ended = threading.Event()

    def read() -> None:
        with pytest.raises((EOFError, OSError)):
            pair[0].recv_bytes()
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.05)
    pair[0].close()
    thread.join(timeout=5)
    assert ended.is_set()


def test_what_is_no_frame_is_refused(pair: tuple[Connection, Connection]) -> None:
    pair[0]._socket.sendall(b"GET / HT")
    with pytest.raises(WireError, match="announces"):
        pair[1].recv_bytes(5)
    assert struct.unpack("<I", b"GET ")[0] > MAX_FRAME


def test_frames_of_several_threads_do_not_mix(pair: tuple[Connection, Connection]) -> None:
    threads = [threading.Thread(target=pair[0].send, args=([i] * 50_000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    got = [pair[1].recv(list[int], 10) for _ in threads]
    for thread in threads:
        thread.join()
    assert sorted(values[0] for values in got) == list(range(8))
    assert all(values == [values[0]] * 50_000 for values in got)


def test_only_this_user_reaches_a_socket() -> None:
    directory = private_directory()
    path = os.path.join(directory, "s")
    listener = listen(path)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    client = connect(path)
    server = listener.accept(5)
    client.send("hello")
    assert server.recv(str, 5) == "hello"
    with pytest.raises(TimeoutError):
        listener.accept(0.05)
    with pytest.raises(OSError, match="in use"):
        listen(path)
    listener.close()
    listener.close()
    assert not Path(path).exists()
    with pytest.raises(FileNotFoundError):
        connect(path, timeout=0.05)
    os.rmdir(directory)
