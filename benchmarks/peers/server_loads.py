"""Loads for in_turns.py on a server that runs already: python server_loads.py URL; every request a stream of its own, of token ids."""

from __future__ import annotations

import asyncio
import sys
import time

from prompts import Prompts

from engine.cli.bench.http import Target
from engine.cli.bench.loads import Sizes
from engine.cli.bench.requests import Server, first_model


async def burst(server: Server, prompts: list[list[int]], outputs: int) -> float:
    """Seconds from the first request to the last end. Ends the process where one fails."""
    began = time.perf_counter()
    measured = await asyncio.gather(*(server.send(prompt, Sizes(len(prompt), outputs)) for prompt in prompts))
    for each in measured:
        if each.error or each.output_tokens != outputs:
            raise SystemExit(f"{each.output_tokens} of {outputs} tokens: {each.error}")
    return time.perf_counter() - began


def main() -> None:
    # Not the prompts of engine_loads.py, nor those of another run: nothing of them may be cached.
    prompts = Prompts(seed=None)
    target = Target(sys.argv[1])
    server = Server(target, asyncio.run(first_model(target)), "completions", {}, 600.0)
    print("ready", flush=True)
    for line in sys.stdin:
        print(f"{asyncio.run(burst(server, *prompts.of(line))):.4f}", flush=True)


if __name__ == "__main__":
    main()
