"""``engine bench roofline``: decode and prefill as shares of what this machine can do at most, measured in the same run."""

from __future__ import annotations

import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.args.flag import Flag
from engine.cli.bench.loads import Sizes, draw_prompts
from engine.cli.bench.offline import Engine, Timed, ordinary_ids
from engine.cli.bench.results import FLAGS as RESULTS
from engine.cli.bench.results import check_counts, deliver
from engine.cli.bench.summary import columns, number
from engine.cli.bench.work import ModelWork, model_work
from engine.cli.start import Command, open_model
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.llm import LLM

COMMAND = Command(
    "bench roofline", "engine bench roofline MODEL [flags]",
    "Decode and prefill as shares of this machine's memory bandwidth and arithmetic, which are measured between the phases.",
    own=(
        Flag("--batch-sizes", "floats", [1.0, 32.0], "Sequences that decode together.", metavar="N,…"),
        Flag("--input-len", "int", 128, "Tokens of context at which decoding begins.", metavar="TOKENS"),
        Flag("--output-len", "int", 128, "Tokens to decode.", metavar="TOKENS"),
        Flag("--prefill-len", "int", 1024, "Tokens of the prompt whose prefill is measured.", metavar="TOKENS"),
        Flag("--repeats", "int", 3, "Measured repetitions; medians count."),
        Flag("--prompt-seed", "int", 0, "Seed of the made-up prompts.", metavar="SEED"),
        *RESULTS,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Phase:
    """``output`` tokens each for ``batch`` prompts of ``input`` tokens; ``decode``: only what comes after the first token counts."""

    name: str
    batch: int
    input: int
    output: int
    decode: bool

    def seconds(self, runs: Sequence[Timed]) -> float:
        """Per decode step, or of the whole prefill."""
        first = max(run.tokens[0] for run in runs)
        return (max(run.tokens[-1] for run in runs) - first) / (self.output - 1) if self.decode else first

    def need(self, work: ModelWork) -> tuple[float, float]:
        """Bytes to read and operations to compute in that time."""
        if self.decode:
            context = self.input + self.output / 2
            return work.step_bytes(self.batch, context), work.step_operations(self.batch, context)
        return work.step_bytes(0, 0), work.prefill_operations(self.batch, self.input)


def run(argv: list[str]) -> int:
    """Measure and print."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    own = line.own
    check_counts(own)
    phases = _phases(own)
    with open_model(COMMAND, line) as llm:
        longest = max(phase.input + phase.output for phase in phases)
        if longest > llm.config.model.max_model_len:
            raise ConfigError(
                f"The phases need {longest} tokens, more than the model length {llm.config.model.max_model_len}.", fix="smaller lengths"
            )
        work = model_work(llm.config)
        result = {"model": llm.config.model.checkpoint.model, "dtype": llm.config.model.dtype, **measure(llm, work, phases, own)}
    deliver(result, _text(result), own)
    return 0


def _phases(own: Mapping[str, Any]) -> list[Phase]:
    sizes = [int(size) for size in own["batch_sizes"]]
    if any(size < 1 or size != given for size, given in zip(sizes, own["batch_sizes"], strict=True)):
        raise ConfigError("--batch-sizes: whole numbers from 1 on are needed.", fix="--batch-sizes 1,32")
    if own["output_len"] < 2:
        raise ConfigError("--output-len 1: the first token is the prefill's; decoding needs more.", fix="--output-len 64")
    decodes = [Phase(f"decode, batch {size}", size, own["input_len"], own["output_len"], True) for size in sizes]
    return [*decodes, Phase(f"prefill, {own['prefill_len']} tokens", 1, own["prefill_len"], 1, False)]


def measure(llm: LLM, work: ModelWork, phases: Sequence[Phase], own: Mapping[str, Any]) -> dict[str, Any]:
    """Every repetition runs every phase between two measurements of the limits; at last each once more with the profile on."""
    engine, source, ordinary = Engine(llm), random.Random(own["prompt_seed"]), ordinary_ids(llm)
    found: dict[str, list[dict[str, float]]] = {phase.name: [] for phase in phases}
    all_limits = [engine.call("limits")]
    for repeat in range(-1, own["repeats"]):
        print(f"engine bench: {'warming up' if repeat < 0 else f'{repeat + 1} of ' + str(own['repeats'])}", file=sys.stderr)
        for phase in phases:
            seconds = phase.seconds(_run(engine, phase, ordinary, source))
            if repeat >= 0:
                all_limits.append(engine.call("limits"))
                found[phase.name].append(compare(phase, work, seconds, all_limits[-2:]))
    profiles = {phase.name: _profile(llm, engine, phase, ordinary, source) for phase in phases}
    return {
        "limits": {name: statistics.median(each[name] for each in all_limits) for name in all_limits[0]},
        "phases": {
            name: {key: statistics.median(each[key] for each in every) for key in every[0]} | {"where": profiles[name], "repeats": every}
            for name, every in found.items()
        },
    }  # fmt: skip


def compare(phase: Phase, work: ModelWork, seconds: float, limits: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One phase beside the limits before and after it. ``share``: the least possible time ÷ the measured one."""
    nbytes, operations = phase.need(work)
    read = statistics.fmean(each["read_bytes"] for each in limits)
    arithmetic = statistics.fmean(each["operations"] for each in limits)
    tokens = phase.batch * (1 if phase.decode else phase.input)
    return {
        "seconds": seconds, "tokens_per_second": tokens / seconds, "read_bytes_per_second": nbytes / seconds,
        "operations_per_second": operations / seconds, "limit_read_bytes": read, "limit_operations": arithmetic,
        "read_share": nbytes / read / seconds, "operations_share": operations / arithmetic / seconds,
        "share": max(nbytes / read, operations / arithmetic) / seconds,
    }  # fmt: skip


def _run(engine: Engine, phase: Phase, ordinary: Sequence[int], source: random.Random, before: Any = None) -> list[Timed]:
    """One run with new prompts. Decoding begins when they are in the prefix cache, so that little else is in its time."""
    sizes = [Sizes(phase.input, phase.output)] * phase.batch
    prompts = draw_prompts(sizes, ordinary, [], source)
    if phase.decode:
        engine.run(prompts, [Sizes(phase.input, 1)] * phase.batch)
    if before is not None:
        before()
    return engine.run(prompts, sizes)


def _profile(llm: LLM, engine: Engine, phase: Phase, ordinary: Sequence[int], source: random.Random) -> dict[str, float]:
    """Milliseconds of a decode step or of the whole prefill: by kernel, in the worker around them, in the engine around it."""
    counted: list[Any] = []

    def begin() -> None:
        counted.append(llm.stats())
        engine.call("profile", on=True)

    runs = _run(engine, phase, ordinary, source, begin)
    kernels = engine.call("profile", on=False)
    first, last = counted[0], llm.stats()
    steps = max(1, last.steps - first.steps) if phase.decode else 1
    inside = (last.step_seconds - first.step_seconds) / steps
    around = max(run.tokens[-1] for run in runs) / steps - inside
    where = {name.removeprefix("engine_"): seconds / steps for name, seconds in sorted(kernels.items(), key=lambda item: -item[1])}
    where["worker around its kernels" if kernels else "worker"] = inside - sum(where.values())
    where["scheduler, messages"] = around
    return {name: seconds * 1000 for name, seconds in where.items()}


def _text(result: Mapping[str, Any]) -> str:
    limits = result["limits"]
    lines = [
        f"{result['model']}, {result['dtype']}",
        f"this machine: reads {limits['read_bytes'] / 1e9:.1f} GB/s (best pass {limits['read_bytes_best'] / 1e9:.1f}), "
        f"{limits['operations'] / 1e9:.0f} GFLOPS",
        "",
    ]
    head = ["phase", "tok/s", "ms", "GB/s", "of limit", "GFLOPS", "of limit", "share of the nearer limit"]
    rows = []
    for name, found in result["phases"].items():
        rows.append([
            name, number(found["tokens_per_second"]), number(found["seconds"] * 1000), f"{found['read_bytes_per_second'] / 1e9:.1f}",
            f"{found['read_share']:.0%}", f"{found['operations_per_second'] / 1e9:.0f}", f"{found['operations_share']:.0%}",
            f"{found['share']:.2f}",
        ])  # fmt: skip
    lines.append(columns(head, rows))
    for name, found in result["phases"].items():
        total = sum(found["where"].values())
        lines += ["", f"{name}: where the milliseconds went, in a run with the profile on"]
        lines += [columns(["", "ms", "of all"], [[key, f"{ms:.3f}", f"{ms / total:.1%}"] for key, ms in found["where"].items()])]
    return "\n".join(lines)
