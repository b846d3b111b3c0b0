"""One repetition of a load on one server: sending, and what came of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.cli.bench.http import HttpFailure
from engine.cli.bench.loads import Sizes, draw_prompts, draw_sizes, draw_times, draw_words
from engine.cli.bench.requests import Measured, Server, tokenize
from engine.cli.bench.summary import describe

#: Words of the text from which ordinary ids are learned; fewer where the model's length allows no more.
_SAMPLE_WORDS = (4000, 400, 60)
#: Words of the request that tells tokens per word.
_PROBE_WORDS = 60


@dataclass
class Round:
    """The requests of one repetition. ``goodput``: most milliseconds by name (ttft, tpot, e2e)."""

    requests: list[Measured]
    seconds: float
    goodput: Mapping[str, int] | None = None

    def completed(self) -> list[Measured]:
        """Those without error."""
        return [request for request in self.requests if request.error is None]

    def errors(self) -> list[str]:
        """What went wrong."""
        return [request.error for request in self.requests if request.error is not None]

    def good(self, request: Measured) -> bool:
        """Whether it kept to every limit of ``goodput``."""
        took = {"ttft": request.ttft, "tpot": request.tpot or 0.0, "e2e": request.e2e}
        return all(took[name] * 1000 <= most for name, most in (self.goodput or {}).items())

    def summary(self) -> dict[str, Any]:
        """Counts, rates per second over the whole repetition, and milliseconds."""
        done = self.completed()
        read, written = sum(one.input_tokens for one in done), sum(one.output_tokens for one in done)
        return {
            "completed": len(done), "failed": len(self.requests) - len(done), "seconds": self.seconds,
            "input_tokens": read, "output_tokens": written, "requests_per_second": len(done) / self.seconds,
            "output_tokens_per_second": written / self.seconds, "total_tokens_per_second": (read + written) / self.seconds,
            "goodput_per_second": sum(map(self.good, done)) / self.seconds if self.goodput else None,
            "ttft_ms": describe([one.ttft * 1000 for one in done]),
            "itl_ms": describe([gap * 1000 for one in done for gap in one.itl]),
            "tpot_ms": describe([one.tpot * 1000 for one in done if one.tpot is not None]),
            "e2e_ms": describe([one.e2e * 1000 for one in done]),
        }  # fmt: skip


async def calibrate(server: Server) -> None:
    """Learn how this server counts: ordinary token ids from its /tokenize, else tokens per word from a short request.

    Raises HttpFailure where it answers neither.
    """
    words = draw_words(_SAMPLE_WORDS[0], random.Random("words"))
    for count in _SAMPLE_WORDS if server.endpoint == "completions" else ():
        ids = await tokenize(server.target, server.model, " ".join(words[:count]))
        if ids and len(set(ids)) > 1:
            server.ordinary = sorted(set(ids))
            return
    probe = await server.send(" ".join(words[:_PROBE_WORDS]), Sizes(_PROBE_WORDS, 1))
    if probe.error is not None and not probe.input_tokens:
        raise HttpFailure(f"{server.target.url}: {probe.error}")
    server.tokens_per_word = max(1.0, probe.input_tokens / _PROBE_WORDS)


def make_prompts(
    server: Server, sizes: Sequence[Sizes], shared: int, source: random.Random, prefixes: random.Random
) -> Sequence[list[int] | str]:
    """Token ids where the server's are known, exactly as long as asked for; else words, about as long."""
    if server.ordinary:
        return draw_prompts(sizes, server.ordinary, prefixes.choices(server.ordinary, k=shared), source)

    def words(tokens: int, drawn: random.Random) -> list[str]:
        return draw_words(max(1, round(tokens / server.tokens_per_word)), drawn)

    prefix = words(shared, prefixes) if shared else []
    return [" ".join([*prefix, *words(max(1, size.input - shared), source)]) for size in sizes]


async def run_round(server: Server, own: Mapping[str, Any], seed: str) -> Round:
    """Send all requests of a repetition. The same seed makes the same load for every server that counts alike."""
    source = random.Random(seed)
    sizes = draw_sizes(own["num_prompts"], own["input_len"], own["output_len"], own["lengths"], source)
    times = draw_times(len(sizes), own["request_rate"], source)
    prefixes = random.Random(f"{own['prompt_seed']}/prefix") if own["warm_prefix"] else source
    prompts = make_prompts(server, sizes, own["shared_prefix"], source, prefixes)
    began = time.perf_counter()
    measured = await _send_all(server, zip(prompts, sizes, times, strict=True), own["concurrency"], began)
    return Round(measured, max(one.ended for one in measured) - began, own["goodput"])


async def _send_all(
    server: Server, load: Iterable[tuple[list[int] | str, Sizes, float]], concurrency: int, began: float
) -> list[Measured]:
    """At their times, at most ``concurrency`` at once; a request that has to wait for its turn is sent late."""
    turns = asyncio.Semaphore(concurrency)

    async def one(prompt: list[int] | str, size: Sizes) -> Measured:
        try:
            return await server.send(prompt, size)
        finally:
            turns.release()

    running = []
    for prompt, size, moment in load:
        wait = began + moment - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        await turns.acquire()
        running.append(asyncio.ensure_future(one(prompt, size)))
    return list(await asyncio.gather(*running))
