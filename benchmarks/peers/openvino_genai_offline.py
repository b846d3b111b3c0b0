"""The loads of docs/performance.md on openvino-genai, which has no server: one line of JSON per load.

    python openvino_genai_offline.py EXPORTED [--threads N] [--cache TYPE] [--repeats N | --turns]

``--cache``: what keys and values are kept in (its CPU plugin's own choice: u8; bf16 is what this engine keeps).
``--turns``: loads come from in_turns.py.
Run it with the interpreter of an environment that has openvino-genai; see benchmarks/peers.md for the export.
"""


from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np
import openvino
import openvino_genai as genai
from prompts import Prompts


class Pipeline:
    """Continuous batching with a 4 GB cache and prefix caching, greedy, end-of-sequence ignored."""

    def __init__(self, model: str, threads: int, cache: str | None) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 4
        scheduler.enable_prefix_caching = True
        scheduler.max_num_batched_tokens = 2048
        scheduler.max_num_seqs = 64
        properties: dict[str, int | str] = {"INFERENCE_NUM_THREADS": threads}
        if cache:
            properties["KV_CACHE_PRECISION"] = cache
        self._pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
        self._prompts = Prompts(seed=0)

    def run(self, load: str) -> float:
        """Seconds for the prompts of a load at once."""
        wanted, outputs = self._prompts.of(load)
        prompts = [openvino.Tensor(np.array([ids])) for ids in wanted]
        settings = genai.GenerationConfig()
        settings.max_new_tokens = settings.min_new_tokens = outputs
        settings.ignore_eos = True
        settings.do_sample = False
        began = time.perf_counter()
        self._pipeline.generate(prompts, [settings] * len(prompts))
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", choices=["u8", "bf16", "f16", "f32"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--turns", action="store_true")
    options = parser.parse_args()
    pipeline = Pipeline(options.model, options.threads, options.cache)
    pipeline.run("1 16 4")
    if options.turns:
        print("ready", flush=True)
        for line in sys.stdin:
            print(f"{pipeline.run(line):.4f}", flush=True)
        return

    def median(batch: int, inputs: int, outputs: int) -> float:
        return statistics.median(pipeline.run(f"{batch} {inputs} {outputs}") for _ in range(options.repeats))

    prompt, whole = median(1, 128, 1), median(1, 128, 129)
    decode = 128 / (whole - prompt)
    print(json.dumps({"load": "one stream, 128 in, 128 decoded", "decode_tokens_per_second": decode, "ttft_seconds": prompt}))
    prefill = median(1, 1024, 1)
    print(json.dumps({"load": "prompt of 1024", "prefill_tokens_per_second": 1024 / prefill}))
    batch = median(32, 128, 64)
    print(json.dumps({"load": "32 requests of 128 in, 64 out", "output_tokens_per_second": 32 * 64 / batch}))


if __name__ == "__main__":
    main()
