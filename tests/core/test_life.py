"""A life of the engine process begins where one can be had, and ends once, however often and by whomever it is asked to."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import tempfile
from pathlib import Path

import pytest

from engine.args.engine_args import EngineArgs
from engine.args.resolve import resolve
from engine.client import EngineClient
from engine.errors import ConfigError, WorkerDied
from engine.life import Life
from engine.messages import Abort


async def test_an_interrupted_start_is_ended_by_everybody_at_once() -> None:
    """The start that is cancelled ends the engine, and so does whoever cancelled it."""
    client = EngineClient(resolve(EngineArgs(model="demo", num_gpu_blocks_override=200)))
    starting = asyncio.ensure_future(client.start())
    await client.launched.wait()
    starting.cancel()
    await asyncio.gather(client.stop(), client.stop())
    with pytest.raises(asyncio.CancelledError):
        await starting
    life = client._life
    assert life is not None
    life.send(Abort(["a request that was left late"]))


async def test_a_process_that_cannot_be_had_just_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt after a death meets a machine without a process to spare."""
    client = EngineClient(resolve(EngineArgs(model="demo", num_gpu_blocks_override=200)))
    await client.start()
    spawn = Life._spawn
    refused: list[Life] = []

    async def scarce(life: Life) -> object:
        if not refused:
            refused.append(life)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await spawn(life)

    monkeypatch.setattr(Life, "_spawn", scarce)
    try:
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while not client.restarts:
                await asyncio.sleep(0.02)
        assert refused and client.restarting is None and client.dead is None
    finally:
        await client.stop()


async def test_a_temporary_directory_too_long_for_a_socket_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigError, match="TMPDIR .* is too long") as caught:
        await EngineClient(resolve(EngineArgs(model="demo", num_gpu_blocks_override=200))).start()
    assert caught.value.fix == "TMPDIR=/tmp"
    assert not list(deep.iterdir())


async def test_a_start_without_a_process_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(life: Life) -> object:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(Life, "_spawn", none)
    with pytest.raises(WorkerDied, match="the engine process could not be started: .*temporarily unavailable"):
        await EngineClient(resolve(EngineArgs(model="demo", num_gpu_blocks_override=200))).start()
