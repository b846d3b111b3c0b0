"""Loads for in_turns.py on this engine, offline, with an engine process of its own.

    python engine_loads.py MODEL [--pages N] [--kv-cache-dtype TYPE]
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from engine import LLM, SamplingParams


def ids(source: random.Random, count: int) -> list[int]:
    """So many random ones."""
    return [source.randrange(1000, 150000) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pages", type=int, default=700)
    parser.add_argument("--kv-cache-dtype", default="auto")
    options = parser.parse_args()
    source = random.Random(0)
    with LLM(
        options.model, max_model_len=4096, num_gpu_blocks_override=options.pages, kv_cache_dtype=options.kv_cache_dtype
    ) as llm:
        print("ready", flush=True)
        prefix: list[int] = []
        for line in sys.stdin:
            batch, inputs, outputs, shared, known = [*map(int, line.split()), 0, 0][:5]
            prefix = prefix if known else ids(source, shared)
            prompts = [{"prompt_token_ids": prefix + ids(source, inputs - shared)} for _ in range(batch)]
            params = [SamplingParams(temperature=0.0, max_tokens=outputs, ignore_eos=True)] * batch
            began = time.perf_counter()
            llm.generate(prompts, params, use_tqdm=False)
            print(f"{time.perf_counter() - began:.4f}", flush=True)


if __name__ == "__main__":
    main()
