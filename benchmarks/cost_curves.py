"""How the time of a decode step grows: with the context, with the batch, with the number of waiting requests.

    python benchmarks/cost_curves.py MODEL [--png docs/cost-growth.png] [--json FILE] [--context 128 … 8192]
        [--batch 1 … 64] [--waiting 0 … 10000]

Needs the engine on the path; matplotlib (the extra ``bench``) for --png. Step times are means of the gaps between a request's tokens,
as the front end sees them: where it finds no processor it gets tokens in pairs, so that single gaps say nothing. The lower line of
each panel is what of a step is not the worker's: scheduler, messages, front end.
"""


from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine import LLM
from engine.cli.bench.loads import Sizes, draw_prompts
from engine.cli.bench.offline import Engine, Timed, ordinary_ids
from engine.plugin.request import Request, SamplingParams


class Curves:
    """One model and the step times measured on it."""

    def __init__(self, llm: LLM, steps: int) -> None:
        self._llm = llm
        self._engine = Engine(llm)
        self._ordinary = ordinary_ids(llm)
        self._source = random.Random(0)
        self._steps = steps

    def decode(self, batch: int, context: int) -> dict[str, float]:
        """Milliseconds of a step of ``batch`` sequences around ``context`` tokens; their prefill is done before."""
        prompts = draw_prompts([Sizes(context, 1)] * batch, self._ordinary, [], self._source)
        self._engine.run(prompts, [Sizes(context, 1)] * batch)
        before = self._llm.stats()
        runs = self._engine.run(prompts, [Sizes(context, self._steps)] * batch)
        after = self._llm.stats()
        wall = max(run.tokens[-1] for run in runs)
        around = (wall - (after.step_seconds - before.step_seconds)) / (after.steps - before.steps)
        return {"step_ms": mean_gap(runs) * 1000, "around_ms": around * 1000}

    def waiting(self, running: int, waiting: int) -> dict[str, float]:
        """Milliseconds of a step of ``running`` sequences (as many as there may be) while ``waiting`` more stand in the queue."""
        return self._llm.background.wait(self._waiting(running, waiting))

    async def _waiting(self, running: int, waiting: int) -> dict[str, float]:
        client = self._llm.client
        times: list[list[float]] = [[] for _ in range(running)]

        async def one(number: int, prompt: list[int], tokens: int) -> None:
            params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, seed=0)
            request = Request(id=f"{waiting}-{number}", prompt_token_ids=prompt, params=params, arrival=time.monotonic())
            async for output in client.generate(request):
                if number < running and output.token_ids:
                    times[number].append(time.perf_counter())

        prompts = draw_prompts([Sizes(32, 1)] * (running + waiting), self._ordinary, [], self._source)
        tasks = [asyncio.ensure_future(one(number, prompt, 10 * self._steps)) for number, prompt in enumerate(prompts)]
        while client.stats.running < running or client.stats.waiting < waiting:
            await asyncio.sleep(0.01)
        before, mark = client.stats, time.perf_counter()
        while client.stats.steps < before.steps + self._steps:
            await asyncio.sleep(0.01)
        after = client.stats
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while client.stats.running or client.stats.waiting:
            await asyncio.sleep(0.01)
        gaps = [b - a for each in times for a, b in pairwise(each) if a >= mark]
        worker = (after.step_seconds - before.step_seconds) / (after.steps - before.steps)
        return {"step_ms": statistics.fmean(gaps) * 1000, "around_ms": (statistics.fmean(gaps) - worker) * 1000}


def mean_gap(runs: list[Timed]) -> float:
    """Seconds from one token to the next after everybody's first."""
    begin = max(run.tokens[0] for run in runs)
    return statistics.fmean(b - a for run in runs for a, b in pairwise(run.tokens) if a >= begin)


def draw(path: str, title: str, curves: dict[str, dict[int, dict[str, float]]]) -> None:
    """One panel per curve."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(13, 4), layout="constrained")
    picture.suptitle(title)
    for panel, (name, points) in zip(picture.subplots(1, len(curves)), curves.items(), strict=True):
        for line, label in (("step_ms", "step"), ("around_ms", "of it outside the worker")):
            panel.plot(list(points), [point[line] for point in points.values()], marker="o", label=label)
        panel.set(title=f"decode step and {name}", xlabel=name, ylabel="ms", ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend()
    picture.savefig(path, dpi=110)


def measure(options: argparse.Namespace) -> dict[str, dict[int, dict[str, float]]]:
    """All points, each printed when it is known."""
    curves: dict[str, dict[int, dict[str, float]]] = {"context tokens": {}, "sequences in the batch": {}, "waiting requests": {}}
    longest = max(options.context) + options.steps + 16
    flags: dict[str, Any] = {"max_model_len": longest, "max_num_seqs": max(options.batch)}
    with LLM(model=options.model, **flags) as llm:
        found = Curves(llm, options.steps)
        found.decode(1, 128)
        plans = [
            ("context tokens", options.context, lambda value: found.decode(1, value)),
            ("sequences in the batch", options.batch, lambda value: found.decode(value, 256)),
            ("waiting requests", options.waiting, lambda value: found.waiting(max(options.batch), value)),
        ]
        for name, values, run in plans:
            for value in values:
                point = curves[name][value] = statistics_of([run(value) for _ in range(options.repeats)])
                print(f"{name} {value:6}: step {point['step_ms']:8.2f} ms, outside the worker {point['around_ms']:6.2f} ms", flush=True)
    return curves


def statistics_of(points: list[dict[str, float]]) -> dict[str, float]:
    """The median of every number."""
    return {name: statistics.median(point[name] for point in points) for name in points[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--context", type=int, nargs="+", default=[128, 512, 1024, 2048, 4096, 8192])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--waiting", type=int, nargs="+", default=[0, 100, 1000, 10000])
    parser.add_argument("--steps", type=int, default=32, help="decode steps per measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--png")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    curves = measure(options)
    if options.json:
        options.json.write_text(json.dumps(curves, indent=1) + "\n")
    if options.png:
        draw(options.png, Path(options.model).name, curves)


if __name__ == "__main__":
    main()
