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
from engine.cli.bench.work import ModelWork, model_work, refuse
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

    def need(self, work: ModelWork) -> tuple[float, dict[str, float]]:
        """Bytes to read, and operations to compute by dtype, in that time."""
        if self.decode:
            context = self.input + self.output / 2
            return work.step_bytes(self.batch, context), work.step_operations(self.batch, context)
        return work.read_weights(self.batch * self.input), work.prefill_operations(self.batch, self.input)


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
        refuse(llm.config)
        work = model_work(llm.config, Engine(llm).call("work"))
        model = llm.config.model
        result = {"model": model.checkpoint.model, "dtype": model.dtype, "weight_bytes": work.read_weights(1)}
        result |= measure(llm, work, phases, own)
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
    all_limits = [_limits(engine, work)]
    for repeat in range(-1, own["repeats"]):
        print(f"engine bench: {'warming up' if repeat < 0 else f'{repeat + 1} of ' + str(own['repeats'])}", file=sys.stderr)
        for phase in phases:
            seconds = phase.seconds(_run(engine, phase, ordinary, source))
            if repeat >= 0:
                all_limits.append(_limits(engine, work))
                found[phase.name].append(compare(phase, work, seconds, all_limits[-2:]))
    profiles = {phase.name: _profile(llm, engine, phase, ordinary, source) for phase in phases}
    return {
        "limits": {name: statistics.median(each[name] for each in all_limits) for name in all_limits[0]},
        "phases": {
            name: {key: statistics.median(each[key] for each in every) for key in every[0]} | {"where": profiles[name], "repeats": every}
            for name, every in found.items()
        },
    }  # fmt: skip


def _limits(engine: Engine, work: ModelWork) -> dict[str, float]:
    """``read_bytes``, ``read_bytes_best``, and of each dtype of the work ``operations_DTYPE`` and ``operations_best_DTYPE``."""
    found = {kind: engine.call("limits", dtype=kind) for kind in work.kinds()}
    limits = {name: statistics.fmean(each[name] for each in found.values()) for name in ("read_bytes", "read_bytes_best")}
    for kind, each in found.items():
        limits |= {f"operations_{kind}": each["operations"], f"operations_best_{kind}": each["operations_best"]}
    return limits


def compare(phase: Phase, work: ModelWork, seconds: float, limits: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One phase beside the limits before and after it. ``share``: the least possible time ÷ the measured one.

    Limits are what the machine sustains; a name with ``best`` is beside its best pass. Different arithmetics take their times one
    after the other.
    """
    nbytes, operations = phase.need(work)
    mean = {name: statistics.fmean(each[name] for each in limits) for name in limits[0]}
    tokens = phase.batch * (1 if phase.decode else phase.input)
    found = {
        "seconds": seconds, "tokens_per_second": tokens / seconds, "read_bytes_per_second": nbytes / seconds,
        "operations_per_second": sum(operations.values()) / seconds,
    }  # fmt: skip
    for best in ("", "best_"):
        reading = nbytes / mean[f"read_bytes{'_best' if best else ''}"]
        computing = sum(count / mean[f"operations_{best}{kind}"] for kind, count in operations.items())
        found |= {
            f"{best}read_share": reading / seconds, f"{best}operations_share": computing / seconds,
            f"{best}share": max(reading, computing) / seconds,
        }  # fmt: skip
    return found | {f"limit_{name}": value for name, value in mean.items()}


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
    kinds = [name.removeprefix("operations_best_") for name in limits if name.startswith("operations_best_")]
    sustained, best = ([limits[f"operations_{which}{kind}"] / 1e9 for kind in kinds] for which in ("", "best_"))
    arithmetic = ", ".join(f"{a:.0f} GFLOPS of {kind} (best pass {b:.0f})" for kind, a, b in zip(kinds, sustained, best, strict=True))
    lines = [
        f"{result['model']}, {result['dtype']}, {result['weight_bytes'] / 1e9:.3f} GB of weights to read",
        f"this machine sustains {limits['read_bytes'] / 1e9:.1f} GB/s of reading "
        f"(best pass {limits['read_bytes_best'] / 1e9:.1f}), {arithmetic}",
        "",
    ]
    head = ["phase", "tok/s", "ms", "GB/s", "of limit", "GFLOPS", "of limit", "of the nearer limit", "of its best pass"]
    rows = []
    for name, found in result["phases"].items():
        rows.append([
            name, number(found["tokens_per_second"]), number(found["seconds"] * 1000), f"{found['read_bytes_per_second'] / 1e9:.1f}",
            f"{found['read_share']:.0%}", f"{found['operations_per_second'] / 1e9:.0f}", f"{found['operations_share']:.0%}",
            f"{found['share']:.2f}", f"{found['best_share']:.2f}",
        ])  # fmt: skip
    lines.append(columns(head, rows))
    for name, found in result["phases"].items():
        total = sum(found["where"].values())
        lines += ["", f"{name}: where the milliseconds went, in a run with the profile on"]
        lines += [columns(["", "ms", "of all"], [[key, f"{ms:.3f}", f"{ms / total:.1%}"] for key, ms in found["where"].items()])]
    return "\n".join(lines)
