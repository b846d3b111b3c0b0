"""Loads for in_turns.py on this engine, offline, with an engine process of its own: python engine_loads.py MODEL [PAGES]."""

from __future__ import annotations

import random
import sys
import time

from engine import LLM, SamplingParams


def main() -> None:
    pages = int(sys.argv[2]) if len(sys.argv) > 2 else 700
    source = random.Random(0)
    with LLM(sys.argv[1], max_model_len=4096, num_gpu_blocks_override=pages) as llm:
        print("ready", flush=True)
        for line in sys.stdin:
            batch, inputs, outputs = map(int, line.split())
            prompts = [{"prompt_token_ids": [source.randrange(1000, 150000) for _ in range(inputs)]} for _ in range(batch)]
            params = [SamplingParams(temperature=0.0, max_tokens=outputs, ignore_eos=True)] * batch
            began = time.perf_counter()
            llm.generate(prompts, params, use_tqdm=False)
            print(f"{time.perf_counter() - began:.4f}", flush=True)


if __name__ == "__main__":
    main()
