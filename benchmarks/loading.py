"""Loading against reading: ``python -m benchmarks.loading MODEL [--rounds N]``.

A round reads the bytes of MODEL's safetensors files into fresh memory, and loads the model on the CPU device (weights read, packed, kernels
made; not the imports), each in a process of its own, in turns. The files are in the page cache: the first round, which may find them
elsewhere, is not counted.
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def read(model: str) -> float:
    """Seconds that it takes to read the files into memory that was never written to."""
    files = sorted(Path(model).glob("*.safetensors"))
    begin = time.perf_counter()
    for path in files:
        # Pages of an anonymous map are committed by the reading, as those of the packed weights are by the packing.
        held = memoryview(mmap.mmap(-1, path.stat().st_size))
        with path.open("rb", buffering=0) as file:
            done = 0
            while count := file.readinto(held[done:]):
                done += count
    return time.perf_counter() - begin


def load(model: str) -> float:
    """Seconds that it takes to load and pack the weights; what is imported and opened for it before is not counted."""
    import torch

    from engine.args import EngineArgs
    from engine.args.resolve import resolve
    from engine.worker import build
    from engine.worker.parallel import SingleProcess

    args = EngineArgs(model=model, device="cpu", skip_tokenizer_init=True, use_tqdm_on_load=False, max_model_len=2048)
    config = resolve(args)
    device = build.open_device(config, 0)
    with torch.inference_mode():
        network = build.build_model(config, device, SingleProcess(), build.attention_of(device, config))
        begin = time.perf_counter()
        build.load_weights(network, config, 0, None)
        return time.perf_counter() - begin


def measured(what: str, model: Path) -> float:
    """The same in a process of its own, whose threads wait as those of the engine's process do."""
    code = f"from benchmarks.loading import {what}; print({what}({str(model)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ})  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{what} {model}: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def main(arguments: list[str]) -> int:
    """Print each round, and the medians with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    measured("read", asked.model)
    rounds = []
    for _ in range(asked.rounds):
        rounds.append((measured("read", asked.model), measured("load", asked.model)))
        print(f"read {rounds[-1][0]:.2f} s, load {rounds[-1][1]:.2f} s", flush=True)
    reading, loading = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"medians: read {reading:.2f} s, load {loading:.2f} s, ratio {loading / reading:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
