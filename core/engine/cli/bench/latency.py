"""``engine bench latency``: how long one batch takes, and each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.args.flag import Flag
from engine.cli.bench.loads import FLAGS as LOAD
from engine.cli.bench.offline import Engine, Timed, make_load, setting
from engine.cli.bench.results import FLAGS as RESULTS
from engine.cli.bench.results import check_counts, deliver
from engine.cli.bench.summary import describe, percentile, table
from engine.cli.start import Command, open_model

COMMAND = Command(
    "bench latency", "engine bench latency MODEL [flags]", "How long one batch takes, and each of its tokens.",
    own=(
        Flag("--batch-size", "int", 1, "Requests in the batch."), Flag("--num-iters", "int", 5, "Measured repetitions."),
        Flag("--num-iters-warmup", "int", 1, "Repetitions before measuring."), *LOAD, *RESULTS,
    ),
)  # fmt: skip


def run(argv: list[str]) -> int:
    """Measure and print."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    own = line.own
    check_counts(own)
    size, warm = own["batch_size"], own["num_iters_warmup"]
    with open_model(COMMAND, line) as llm:
        prompts, sizes = make_load(llm, own, size * (own["num_iters"] + warm))
        engine = Engine(llm)
        batches = [engine.run(prompts[at : at + size], sizes[at : at + size]) for at in range(0, len(prompts), size)][warm:]
        result = {**setting(llm, own), "batch_size": size, "iterations": len(batches), **summarize(batches)}
    deliver(result, table(result), own)
    return 0


def summarize(batches: Sequence[Sequence[Timed]]) -> dict[str, Any]:
    """Seconds per batch; to the first token; between tokens. Rates are medians over the batches."""
    seconds = [max(one.tokens[-1] for one in batch) for batch in batches]
    first = [one.tokens[0] for batch in batches for one in batch]
    gaps = [later - earlier for batch in batches for one in batch for earlier, later in zip(one.tokens, one.tokens[1:], strict=False)]
    decode = []
    for batch in batches:
        began = max(one.tokens[0] for one in batch)
        tokens = sum(sum(moment > began for moment in one.tokens) for one in batch)
        if tokens:
            decode.append(tokens / (max(one.tokens[-1] for one in batch) - began))
    return {
        "batch_seconds": describe(seconds), "ttft_seconds": describe(first), "itl_seconds": describe(gaps),
        "output_tokens_per_second": percentile([sum(len(one.tokens) for one in b) / s for b, s in zip(batches, seconds, strict=True)], 50),
        "decode_tokens_per_second": percentile(decode, 50) if decode else None,
        "prefill_tokens_per_second": percentile([sum(one.prompt for one in b) / max(one.tokens[0] for one in b) for b in batches], 50),
    }  # fmt: skip
