"""``engine bench``: measure latency or throughput with made-up prompts, offline."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.args.flag import Flag
from engine.args.spelling import nearest
from engine.cli.start import Command, open_model
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.llm import LLM
    from engine.plugin.request import SamplingParams

_COMMON = (
    Flag("--input-len", "int", 32, "Tokens per prompt.", metavar="TOKENS"),
    Flag("--output-len", "int", 128, "Tokens per output.", metavar="TOKENS"),
    Flag("--prompt-seed", "int", 0, "Seed of the made-up prompts.", metavar="SEED"),
    Flag("--json", "flag", False, "Print the results as JSON."),
)  # fmt: skip
COMMANDS = {
    "latency": Command(
        "bench latency", "engine bench latency MODEL [flags]",
        "How long one batch takes. Serving benchmarks over HTTP are not available in this version.",
        own=(
            Flag("--batch-size", "int", 8, "Prompts in the batch."), Flag("--num-iters", "int", 5, "Measured repetitions."),
            Flag("--num-iters-warmup", "int", 1, "Repetitions before measuring."), *_COMMON,
        ),
    ),
    "throughput": Command(
        "bench throughput", "engine bench throughput MODEL [flags]",
        "How many tokens per second many requests get in all. Serving benchmarks over HTTP are not available in this version.",
        own=(Flag("--num-prompts", "int", 64, "Requests, all sent at once."), *_COMMON),
    ),
}  # fmt: skip


def run(argv: list[str]) -> int:
    """``engine bench latency|throughput MODEL``."""
    if not argv or argv[0] not in COMMANDS:
        if argv and argv[0] in ("-h", "--help"):
            print("usage: engine bench latency|throughput MODEL [flags]\n")
            print("\n".join(f"  {name:<11} {command.about}" for name, command in COMMANDS.items()))
            return 0
        near = nearest(argv[0], COMMANDS) if argv else None
        given = f"{argv[0]}: no such benchmark" if argv else "No benchmark is named"
        raise ConfigError(f"{given} ({', '.join(COMMANDS)}).", fix=f"engine bench {near or 'latency'} MODEL")
    command = COMMANDS[argv[0]]
    line = command.read(argv[1:])
    if line is None:
        return 0
    _check(line.own)
    with open_model(command, line) as llm:
        measure = _latency if argv[0] == "latency" else _throughput
        result = measure(llm, line.own)
    print(json.dumps(result, indent=2) if line.own["json"] else _table(result))
    return 0


def _check(own: Mapping[str, Any]) -> None:
    for name, value in own.items():
        least = 0 if name == "num_iters_warmup" else 1
        if isinstance(value, int) and not isinstance(value, bool) and name != "prompt_seed" and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: must be at least {least}.", fix=f"--{name.replace('_', '-')} {least}")


def _latency(llm: LLM, own: Mapping[str, Any]) -> dict[str, Any]:
    prompts = _prompts(llm, own, own["batch_size"] * (own["num_iters"] + own["num_iters_warmup"]))
    seconds = []
    for number in range(own["num_iters"] + own["num_iters_warmup"]):
        batch = prompts[number * own["batch_size"] : (number + 1) * own["batch_size"]]
        started = time.perf_counter()
        llm.generate(batch, _params(own), use_tqdm=False)
        seconds.append(time.perf_counter() - started)
    measured = sorted(seconds[own["num_iters_warmup"] :])
    mean = sum(measured) / len(measured)
    return {
        **_setting(llm, own, own["batch_size"]), "iterations": len(measured), "mean_seconds": mean, "min_seconds": measured[0],
        "p50_seconds": _percentile(measured, 50), "p90_seconds": _percentile(measured, 90), "max_seconds": measured[-1],
        "output_tokens_per_second": own["batch_size"] * own["output_len"] / mean,
    }  # fmt: skip


def _throughput(llm: LLM, own: Mapping[str, Any]) -> dict[str, Any]:
    prompts = _prompts(llm, own, own["num_prompts"])
    started = time.perf_counter()
    answers = llm.generate(prompts, _params(own), use_tqdm=False)
    seconds = time.perf_counter() - started
    read = sum(len(answer.prompt_token_ids) for answer in answers)
    written = sum(len(output.token_ids) for answer in answers for output in answer.outputs)
    return {
        **_setting(llm, own, own["num_prompts"]), "seconds": seconds, "requests_per_second": len(answers) / seconds,
        "output_tokens_per_second": written / seconds, "total_tokens_per_second": (read + written) / seconds,
    }  # fmt: skip


def _params(own: Mapping[str, Any]) -> SamplingParams:
    from engine.plugin.request import SamplingParams

    return SamplingParams(temperature=0.0, max_tokens=own["output_len"], ignore_eos=True)


def _prompts(llm: LLM, own: Mapping[str, Any], count: int) -> list[Any]:
    """Random ids of ordinary tokens: no two prompts share a beginning that a prefix cache could reuse."""
    length = own["input_len"] + own["output_len"]
    if length > llm.config.model.max_model_len:
        raise ConfigError(
            f"--input-len {own['input_len']} and --output-len {own['output_len']} are more than the model length "
            f"{llm.config.model.max_model_len}.", fix="smaller ones",
        )  # fmt: skip
    tokenizer = llm.get_tokenizer()
    special = tokenizer.special_ids() if tokenizer is not None else frozenset()
    size = min(llm.config.model.info.vocab_size, tokenizer.size() if tokenizer is not None else 2**62)
    ordinary = [token for token in range(size) if token not in special]
    source = random.Random(own["prompt_seed"])
    return [{"prompt_token_ids": source.choices(ordinary, k=own["input_len"])} for _ in range(count)]


def _setting(llm: LLM, own: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {
        "model": llm.config.model.checkpoint.model, "dtype": llm.config.model.dtype, "device": llm.config.device.name,
        "prompts": count, "input_len": own["input_len"], "output_len": own["output_len"],
    }  # fmt: skip


def _percentile(ordered: list[float], percent: int) -> float:
    """The smallest measured value that at least ``percent`` % of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def _table(result: Mapping[str, Any]) -> str:
    width = max(map(len, result))
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in result.items()}
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())
