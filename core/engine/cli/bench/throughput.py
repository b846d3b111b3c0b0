"""``engine bench throughput``: tokens per second of many requests at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.args.flag import Flag
from engine.cli.bench.loads import FLAGS as LOAD
from engine.cli.bench.loads import Sizes
from engine.cli.bench.offline import make_load, setting
from engine.cli.bench.results import FLAGS as RESULTS
from engine.cli.bench.results import check_counts, deliver
from engine.cli.bench.summary import over_repeats, table
from engine.cli.start import Command, open_model

if TYPE_CHECKING:
    from engine.llm import LLM

COMMAND = Command(
    "bench throughput", "engine bench throughput MODEL [flags]", "How many tokens per second many requests get in all.",
    own=(
        Flag("--num-prompts", "int", 64, "Requests, all sent at once."),
        Flag("--repeats", "int", 1, "Measured repetitions; medians count."),
        Flag("--warmup", "int", 1, "Requests before measuring."), *LOAD, *RESULTS,
    ),
)  # fmt: skip


def run(argv: list[str]) -> int:
    """Measure and print."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    own = line.own
    check_counts(own)
    with open_model(COMMAND, line) as llm:
        count = own["num_prompts"]
        prompts, sizes = make_load(llm, own, own["warmup"] + count * own["repeats"])
        if own["warmup"]:
            measure(llm, prompts[: own["warmup"]], sizes[: own["warmup"]])
        starts = range(own["warmup"], len(prompts), count)
        repeats = [measure(llm, prompts[at : at + count], sizes[at : at + count]) for at in starts]
        result: dict[str, Any] = {**setting(llm, own), "prompts": count, **_medians(repeats), "repeats": repeats}
    deliver(result, table(result), own)
    return 0


def measure(llm: LLM, prompts: Sequence[list[int]], sizes: Sequence[Sizes]) -> dict[str, Any]:
    """All prompts at once, through text as a user of the offline API gets it."""
    from engine.plugin.request import SamplingParams

    params = [SamplingParams(temperature=0.0, max_tokens=size.output, ignore_eos=True) for size in sizes]
    started = time.perf_counter()
    answers = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
    seconds = time.perf_counter() - started
    read = sum(len(answer.prompt_token_ids) for answer in answers)
    written = sum(len(output.token_ids) for answer in answers for output in answer.outputs)
    return {
        "seconds": seconds, "input_tokens": read, "output_tokens": written, "requests_per_second": len(answers) / seconds,
        "output_tokens_per_second": written / seconds, "total_tokens_per_second": (read + written) / seconds,
    }  # fmt: skip


def _medians(repeats: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {name: values["median"] for name, values in over_repeats(repeats).items()}
