"""A life of the engine process ends once, however often and by whomever it is asked to."""

from __future__ import annotations

import asyncio

import pytest

from engine.args.engine_args import EngineArgs
from engine.args.resolve import resolve
from engine.client import EngineClient
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
