"""Whom the engine works for, as another process reads it after the engine's death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from engine.messages import Output
from engine.plugin.request import FinishReason
from engine.record import PROVEN, Novices, Record


def test_what_a_killed_process_wrote_is_read() -> None:
    record = Record.create()
    code = "import os, sys; from engine.record import Record; Record(int(sys.argv[1])).write(['a', 'b']); os.kill(os.getpid(), 9)"
    died = subprocess.run([sys.executable, "-c", code, str(record.fd)], pass_fds=(record.fd,), check=False)
    assert died.returncode == -signal.SIGKILL
    assert record.read() == {"a", "b"}
    record.close()
    record.close()


def test_a_record_holds_what_fits() -> None:
    record = Record.create()
    assert record.read() == frozenset()
    ids = [f"request-{number}" for number in range(100_000)]
    record.write(ids)
    assert 1000 < len(record.read()) < 7000 and record.read() <= set(ids)
    record.write([])
    assert record.read() == frozenset()
    fd = record.fd
    record.close()
    try:
        os.fstat(fd)
    except OSError:
        return
    raise AssertionError("the file is open still")


def test_novices_are_those_that_got_little() -> None:
    written: list[list[str]] = []
    novices = Novices(written.append)
    novices.enter("a")
    novices.entered()
    novices.enter("b")
    novices.entered()
    assert written == [["a"], [], ["b"], []]
    novices.begin(["a", "b"])
    novices.begin(["a"])
    assert written[-2:] == [["a", "b"], ["a", "b"]]
    novices.enter("c")
    assert written[-1] == ["a", "b", "c"]
    novices.end([Output(id="a", token_ids=[1]), Output(id="b", finish_reason=FinishReason.STOP)])
    assert written[-1] == ["a"]
    novices.end([Output(id="a", token_ids=list(range(PROVEN)))])
    assert written[-1] == []
    count = len(written)
    novices.leave(["c"])
    novices.begin(["a", "b"])
    novices.end([])
    assert len(written) == count
