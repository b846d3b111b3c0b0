"""What new schemas cost the streams beside them: inter-token times of unguided streams, in turns alone and beside first uses.

``python benchmarks/guided_neighbours.py [MODEL] [--streams 4] [--schemas 50] [--rounds 3]``
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import httpx

NUMBERS = itertools.count()


async def stream(client: httpx.AsyncClient, body: dict[str, Any], gaps: list[float], until: asyncio.Event) -> None:
    """One unguided stream after the other, each gap between two of its chunks noted."""
    while not until.is_set():
        last = None
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                now = time.perf_counter()
                if last is not None:
                    gaps.append(now - last)
                last = now
                if until.is_set():
                    return


async def first_use(client: httpx.AsyncClient, model: str) -> float:
    """Seconds to the only token of a request with a schema that is new."""
    number = next(NUMBERS)
    properties = {f"field_{number}_{i}": {"type": kind} for i, kind in enumerate(("string", "integer", "boolean", "string"))}
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    body = {"model": model, "prompt": "x", "max_tokens": 1, "response_format": shape}
    began = time.perf_counter()
    answer = await client.post("/v1/completions", json=body)
    answer.raise_for_status()
    return time.perf_counter() - began


async def plain_use(client: httpx.AsyncClient, model: str) -> float:
    """The same without a schema."""
    began = time.perf_counter()
    (await client.post("/v1/completions", json={"model": model, "prompt": "x", "max_tokens": 1})).raise_for_status()
    return time.perf_counter() - began


async def turn(client: httpx.AsyncClient, model: str, wanted: argparse.Namespace, use: Any) -> tuple[list[float], list[float]]:
    """The gaps of the streams beside so many uses, one every ``pause`` seconds, and what each of those took."""
    gaps: list[float] = []
    until = asyncio.Event()
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": wanted.tokens, "stream": True, "ignore_eos": True}
    streams = [asyncio.create_task(stream(client, body | {"seed": i}, gaps, until)) for i in range(wanted.streams)]
    await asyncio.sleep(0.5)
    gaps.clear()
    took = []
    for _ in range(wanted.schemas):
        took.append(await use(client, model))
        await asyncio.sleep(wanted.pause)
    until.set()
    await asyncio.gather(*streams)
    return gaps, took


def shown(gaps: list[float]) -> str:
    """Percentiles in words."""
    ordered = sorted(gaps)
    return "p50 {:6.2f} p99 {:6.2f} max {:6.2f} ms".format(*(1e3 * ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99, 1.0)))


async def wait_until_healthy(client: httpx.AsyncClient, server: subprocess.Popen[bytes]) -> None:
    """Until the server answers. Raises RuntimeError where it has ended."""
    while server.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get("/health")).status_code == 200:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the server ended with status {server.returncode}")


async def measure(url: str, wanted: argparse.Namespace, server: subprocess.Popen[bytes]) -> None:
    """Print each turn, and the median of what first uses add."""
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await wait_until_healthy(client, server)
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        await first_use(client, model)
        added = []
        for number in range(wanted.rounds):
            alone, plain = await turn(client, model, wanted, plain_use)
            beside, new = await turn(client, model, wanted, first_use)
            added.append(statistics.median(new) - statistics.median(plain))
            sys.stdout.write(f"round {number}: beside unguided requests {shown(alone)}; beside new schemas {shown(beside)}\n")
        sys.stdout.write(f"first use of a schema: {1e3 * statistics.median(added):+.1f} ms to its own first token\n")


def main() -> None:
    """Start a server, measure, end it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--schemas", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--port", str(port), "--host", "127.0.0.1", "--max-model-len", "1024", "--guided-decoding-backend", "xgrammar"]
    command = [sys.executable, "-m", "engine", "serve", wanted.model, *flags]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            asyncio.run(measure(f"http://127.0.0.1:{port}", wanted, server))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
