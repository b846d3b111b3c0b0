"""Ten times what a server can do, for a minute: what it still gets done, whom it refuses, and how long the admitted wait.

    python benchmarks/overload.py --factor 10 --seconds 60 demo --max-num-seqs 32 --max-queued-requests 64

Starts ``engine serve`` with the arguments after its own, measures the saturated rate in a closed loop (twice as many clients as
sequences), then sends ``factor`` times as many requests in an open loop: one connection each (from many loopback addresses, so
that ports suffice), at their time whatever happens to the others. The clients run on the last core, the server on the rest.
Prints one JSON object: rates in requests per second, latencies in seconds from the sending of a request to the end of its
answer, resident memory in MB of all the server's processes at every tenth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Seconds that an answer may take before it counts as missing.
PATIENCE = 120.0


def body(tokens: int, number: int) -> bytes:
    """A completion request; the prompts differ, so that no prefix is shared for free."""
    fields = {"prompt": f"{number} rabbits went into the wood and", "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    return json.dumps(fields).encode()


class Load:
    """Sends requests and keeps the account of their answers."""

    def __init__(self, port: int, tokens: int) -> None:
        self.port, self.tokens = port, tokens
        self.answers: Counter[str] = Counter()
        self.took: list[float] = []
        self.ends: list[float] = []
        self.without_retry = 0
        self.sent = 0

    async def ask(self) -> int:
        """One request on a connection of its own; its status, 0 where no answer came."""
        self.sent += 1
        payload = body(self.tokens, self.sent)
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                head = await self._exchange(payload)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.answers[type(error).__name__] += 1
            return 0
        status = int(head.split(b" ", 2)[1])
        self.answers[str(status)] += 1
        if status == 200:
            self.ends.append(time.monotonic())
            self.took.append(self.ends[-1] - began)
        elif b"retry-after:" not in head.lower():
            self.without_retry += 1
        return status

    async def _exchange(self, payload: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(f"127.0.0.{2 + self.sent % 200}", 0))
        try:
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%s" % (len(payload), payload)
            )
            answer = await reader.read()
        finally:
            writer.close()
        head, separator, _ = answer.partition(b"\r\n\r\n")
        if not separator:
            raise asyncio.IncompleteReadError(answer, None)
        return head


async def saturate(load: Load, clients: int, seconds: float) -> float:
    """Requests per second of a closed loop; the first fifth of the time is not counted."""
    start = time.monotonic()
    end = start + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await load.ask()

    await asyncio.gather(*(client() for _ in range(clients)))
    counted = [at for at in load.ends if start + seconds / 5 < at <= end]
    return len(counted) / (seconds * 4 / 5)


async def overload(load: Load, rate: float, seconds: float, watch: Any) -> tuple[float, list[int]]:
    """An open loop of ``rate``; the rate of finished answers after the first tenth, and the memory as it went."""
    start = time.monotonic()
    asking: set[asyncio.Task[int]] = set()
    memory: list[int] = []
    for number in range(round(rate * seconds)):
        due = start + number / rate
        while (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(load.ask())
        asking.add(task)
        task.add_done_callback(asking.discard)
        if time.monotonic() - start > seconds / 10 * (len(memory) + 1):
            memory.append(watch())
    end = time.monotonic()
    await asyncio.gather(*asking)
    counted = [at for at in load.ends if start + seconds / 10 < at <= end]
    return len(counted) / (end - start - seconds / 10), memory


def resident(pid: int) -> int:
    """MB of a process and its children."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return total // 2**20


@contextlib.contextmanager
def served(arguments: list[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """``engine serve`` on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        # The clients' work must not be taken from the server, in either phase.
        cores = sorted(os.sched_getaffinity(0))
        apart = ["taskset", "--cpu-list", ",".join(map(str, cores[:-1]))] if len(cores) > 1 else []
        command = [sys.executable, "-m", "engine", "serve", *arguments, "--port", str(port), "--disable-uvicorn-access-log"]
        process = subprocess.Popen([*apart, *command, "--disable-log-requests"], stdout=log, stderr=log)
        if apart:
            os.sched_setaffinity(0, cores[-1:])
        try:
            _wait(process, port)
            yield port, process
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the server does not serve")


async def measure(port: int, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement."""
    closed, opened = Load(port, options.tokens), Load(port, options.tokens)
    rate = await saturate(closed, options.clients, options.saturate)
    before = resident(pid)
    goodput, memory = await overload(opened, rate * options.factor, options.seconds, lambda: resident(pid))
    took = sorted(opened.took)
    return {
        "saturated_rate": round(rate, 2), "offered_rate": round(rate * options.factor, 1), "goodput": round(goodput, 2),
        "goodput_share": round(goodput / rate, 4), "sent": opened.sent, "answers": dict(opened.answers),
        "refused_without_retry_after": opened.without_retry, "saturated_p50": round(statistics.median(closed.took), 3),
        "admitted_p50": round(statistics.median(took), 3), "admitted_p99": round(took[int(len(took) * 0.99)], 3),
        "admitted_longest": round(took[-1], 3), "memory_mb_before": before, "memory_mb": memory,
    }  # fmt: skip


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factor", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--saturate", type=float, default=20.0, help="seconds of the closed loop")
    parser.add_argument("--clients", type=int, default=64, help="clients of the closed loop")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each answer")
    options, arguments = parser.parse_known_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with served(arguments) as (port, process):
        print(json.dumps(asyncio.run(measure(port, process.pid, options)), indent=1))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    main()
