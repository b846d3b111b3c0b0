"""What a decode step costs beside the model: microseconds of scheduler, inputs, sampler, commit and messages.

    python benchmarks/step_overhead.py --model demo --sequences 1 16 64

Drives the engine's own parts in this process, without a front end. ``model``: the forward pass with logits; everything
else is the engine's overhead. Medians over the steps of a run; ``front`` is the front end's decoding of the message.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.messages import FromEngine, Outputs
from engine.plugin.request import Request, SamplingParams
from engine.process import agree_on_pages, create_loop, start_executor


class Clock:
    """Durations by part, in microseconds."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = defaultdict(list)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its durations noted."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.parts[name].append((time.perf_counter() - began) * 1e6)

        return call


class Outbox:
    """Encodes what the engine sends, as its connection does."""

    def __init__(self, clock: Clock) -> None:
        self.encode = clock.timed("encode", msgspec.msgpack.Encoder().encode)
        self.decode = clock.timed("front", msgspec.msgpack.Decoder(FromEngine).decode)
        self.bytes: list[int] = []

    def receive(self, wait: bool) -> None:
        """Nothing comes."""

    def send(self, message: Outputs) -> None:
        """Encode and decode."""
        frame = self.encode(message)
        self.bytes.append(len(frame))
        self.decode(frame)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--sequences", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--sampled", action="store_true", help="temperature 0.8, top-p 0.95 instead of greedy")
    parser.add_argument("--eager", action="store_true", help="--enforce-eager")
    options = parser.parse_args()
    flags: dict[str, Any] = {
        "disable_log_stats": True,
        "max_num_seqs": max(options.sequences),
        "enforce_eager": options.eager,
        "dtype": options.dtype,
    }
    config = resolve(EngineArgs(model=options.model, enable_prefix_caching=False, **flags))
    with tempfile.TemporaryDirectory() as rendezvous:
        executor = start_executor(config, rendezvous, lambda *_: None)
        executor.allocate(*agree_on_pages(config, executor.budgets()))
        for count in options.sequences:
            measure(config, executor, count, options)
        print(executor.call("describe", {})[0]["steps"])
        executor.shutdown()


def measure(config: Any, executor: Any, count: int, options: argparse.Namespace) -> None:
    """One row: ``count`` sequences decode together."""
    from engine.worker import worker as worker_module

    clock = Clock()
    outbox = Outbox(clock)
    loop = create_loop(config, executor, *agree_on_pages(config, executor.budgets()), outbox)  # type: ignore[arg-type]
    scheduler, worker = loop._scheduler, executor._worker
    sampling = {"temperature": 0.8, "top_p": 0.95} if options.sampled else {"temperature": 0.0}
    for number in range(count):
        params = SamplingParams(max_tokens=options.steps + 10, ignore_eos=True, seed=number, **sampling)
        prompt = [2 + (number + i) % 50 for i in range(options.prompt)]
        scheduler.add(Request(id=f"request-{count}-{number}", prompt_token_ids=prompt, params=params, arrival=0.0))
    for _ in range(8):
        loop.step()
    scheduler.schedule, scheduler.commit = clock.timed("schedule", scheduler.schedule), clock.timed("commit", scheduler.commit)
    runner, sampler, assemble, collect = worker._runner, worker._sampler, worker_module.assemble, worker_module.collect
    original = runner.run, sampler.sample
    runner.run, sampler.sample = clock.timed("model", runner.run), clock.timed("sample", sampler.sample)
    worker_module.assemble, worker_module.collect = clock.timed("inputs", assemble), clock.timed("collect", collect)
    step = clock.timed("step", loop.step)
    outbox.bytes.clear()
    for _ in range(options.steps):
        step()
    runner.run, sampler.sample = original
    worker_module.assemble, worker_module.collect = assemble, collect
    while scheduler.has_work():
        loop.step()
    medians = {name: statistics.median(values) for name, values in clock.parts.items()}
    overhead = medians["step"] - medians["model"] - medians["front"]
    shown = ("model", "schedule", "inputs", "sample", "collect", "commit", "encode", "front")
    parts = "  ".join(f"{name} {medians[name]:.0f}" for name in shown)
    size = statistics.median(outbox.bytes)
    print(f"{count:4} sequences: step {medians['step']:.0f} us, overhead {overhead:.0f} us | {parts} | {size:.0f} bytes")


if __name__ == "__main__":
    main()
