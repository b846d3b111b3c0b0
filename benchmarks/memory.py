"""Memory of a server's processes after its start and after 32 requests at once: ``python -m benchmarks.memory MODEL [FLAGS …]``."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from tests.integration.serving import RunningServer, serve

#: Seconds until a server has loaded what it loads at rest, and has given back what its requests left.
START, REST = 8.0, 6.0
REQUESTS, PROMPT, TOKENS = 32, 170, 64


def table(server: RunningServer, when: str) -> None:
    """Resident and proportional set size of each process, and their sums, MiB."""
    parent = psutil.Process(server.process.pid)
    sums = [0, 0]
    for process in (parent, *parent.children(recursive=True)):
        found = process.memory_full_info()
        sums = [sums[0] + found.rss, sums[1] + found.pss]
        name = next((word for word in process.cmdline()[1:] if word.startswith("engine")), process.name())
        print(f"  {name:24} resident {found.rss / 2**20:6.0f}   proportional {found.pss / 2**20:6.0f}")
    print(f"{when}: resident {sums[0] / 2**20:.0f} MiB, proportional {sums[1] / 2**20:.0f} MiB")


def main(model: str, *flags: str) -> None:
    """Serve, look, ask, look again."""
    words = "The quick brown fox jumps over the lazy dog, 12345 times a day. " * 20
    with tempfile.TemporaryDirectory() as place, serve(Path(place) / "log", model, *flags) as server:
        time.sleep(START)
        table(server, "after the start")

        def ask(number: int) -> int:
            body = {"prompt": f"{number} {words[number * 13 :][:PROMPT]}", "max_tokens": TOKENS, "ignore_eos": True}
            return httpx.post(f"{server.url}/v1/completions", json=body, timeout=300).raise_for_status().status_code

        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(ask, range(REQUESTS)))
        time.sleep(REST)
        table(server, f"after {REQUESTS} requests")


if __name__ == "__main__":
    main(*sys.argv[1:])
