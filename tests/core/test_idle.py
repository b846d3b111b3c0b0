"""An engine that waits for long gives memory back, once, and still hears the next message."""

from __future__ import annotations

import socket
import threading
import time

import msgspec
import pytest

from engine import process
from engine.messages import Abort, Stop
from engine.plugin.wire import Connection


@pytest.fixture
def link(monkeypatch):
    trims: list[float] = []
    monkeypatch.setattr(process, "rest", lambda: trims.append(time.monotonic()))
    monkeypatch.setattr(process, "_IDLE_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    made = process.Link(Connection(theirs))
    made.start()
    made.trims = trims
    made.front_end = Connection(ours)
    yield made
    made.front_end.close()
    made.close()


def test_a_long_wait_trims_once(link):
    said = msgspec.msgpack.encode(Abort(["a"]))
    threading.Timer(0.3, link.front_end.send_bytes, (said,)).start()
    assert link.receive(True) == Abort(["a"])
    assert len(link.trims) == 1


def test_a_look_and_a_short_wait_do_not(link):
    assert link.receive(False) is None
    link.front_end.send_bytes(msgspec.msgpack.encode(Stop()))
    assert link.receive(True) == Stop()
    assert link.trims == []
