"""Loads for in_turns.py on this engine, offline, with an engine process of its own.

    python engine_loads.py MODEL [--pages N] [--kv-cache-dtype TYPE]
"""

from __future__ import annotations

import argparse
import sys
import time

from prompts import Prompts

from engine import LLM, SamplingParams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--pages", type=int, default=700)
    parser.add_argument("--kv-cache-dtype", default="auto")
    options = parser.parse_args()
    prompts = Prompts(seed=0)
    with LLM(
        options.model, max_model_len=4096, num_gpu_blocks_override=options.pages, kv_cache_dtype=options.kv_cache_dtype
    ) as llm:
        print("ready", flush=True)
        for line in sys.stdin:
            wanted, outputs = prompts.of(line)
            load = [{"prompt_token_ids": ids} for ids in wanted]
            params = [SamplingParams(temperature=0.0, max_tokens=outputs, ignore_eos=True)] * len(load)
            began = time.perf_counter()
            llm.generate(load, params, use_tqdm=False)
            print(f"{time.perf_counter() - began:.4f}", flush=True)


if __name__ == "__main__":
    main()
