"""Memory of a model's weights by method, quantized while loading: ``python -m benchmarks.quantized_memory MODEL [METHOD …]``.

MODEL is any checkpoint, plain ones for the methods (``benchmarks/make_model.py`` writes one). Each runs in a process of its own, which
reports what it holds after loading less what it had before. The embedding stays as it is with these methods: the last column is without it.
"""

from __future__ import annotations

import os
import subprocess
import sys

METHODS = ("bitsandbytes", "fp8", "ptpc_fp8", "tpu_int8", "neuron_quant")


def resident() -> int:
    """Anonymous bytes of this process: mapped files are not counted."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def load(model: str, method: str) -> tuple[int, int]:
    """Bytes that loading adds to this process, and bytes of the embedding as bfloat16."""
    import torch

    from engine.args import EngineArgs
    from engine.args.resolve import resolve
    from engine.footprint import trim
    from engine.worker import build
    from engine.worker.parallel import SingleProcess

    args = EngineArgs(
        model=model, device="cpu", dtype="bfloat16", skip_tokenizer_init=True, use_tqdm_on_load=False, quantization=method or None
    )
    config = resolve(args)
    device = build.open_device(config, 0)
    before = resident()
    with torch.inference_mode():
        network = build.build_model(config, device, SingleProcess(), build.attention_of(device, config))
        build.load_weights(network, config, 0, None)
    trim()
    return resident() - before, 2 * config.model.info.vocab_size * config.model.info.hidden_size


def main(arguments: list[str]) -> int:
    """Print a row for the plain model and one for each method."""
    model, *methods = arguments
    print("| method | bytes | of bfloat16 | without the embedding |\n|---|---|---|---|")
    plain = 0
    for method in ("", *(methods or METHODS)):
        command = [sys.executable, "-c", f"from benchmarks.quantized_memory import load; print(*load({model!r}, {method!r}))"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        held, embedding = map(int, done.stdout.split()[-2:])
        plain = plain or held
        layers = (held - embedding) / (plain - embedding)
        print(f"| {method or 'none'} | {held} | {held / plain:.2f} | {layers:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
