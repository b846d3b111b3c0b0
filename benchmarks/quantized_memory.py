"""Memory of a model's weights by method and scheme: ``python -m benchmarks.quantized_memory MODEL [--only TEXT] [--keep FOLDER]``.

MODEL is a plain checkpoint (``benchmarks/make_model.py`` writes one). Online methods load it as it is; for the others a checkpoint of its
shape is written first, with random contents, as memory depends on shapes and dtypes alone. Each loads in a process of its own, which
reports what it holds after loading less what it had before, and what ``engine plan`` says of it. The last column is without the
embedding, which most methods leave in 16 bits: GGUF's types and ``engine quantize`` do not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ONLINE = ("bitsandbytes", "fp8", "ptpc_fp8", "tpu_int8", "neuron_quant")


def resident() -> int:
    """Anonymous bytes of this process: mapped files are not counted."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


def load(model: str, method: str) -> tuple[int, int, int]:
    """Bytes that loading adds to this process, bytes of the embedding as bfloat16, and the plan's bytes of the weights."""
    import torch

    from engine.args import EngineArgs
    from engine.args.resolve import resolve
    from engine.footprint import trim
    from engine.worker import build
    from engine.worker.parallel import SingleProcess

    args = EngineArgs(
        model=model, device="cpu", dtype="bfloat16", skip_tokenizer_init=True, use_tqdm_on_load=False, quantization=method or None,
        max_model_len=2048,
    )  # fmt: skip
    config = resolve(args)
    device = build.open_device(config, 0)
    before = resident()
    with torch.inference_mode():
        network = build.build_model(config, device, SingleProcess(), build.attention_of(device, config))
        build.load_weights(network, config, 0, None)
    trim()
    info = config.model.info
    return resident() - before, 2 * info.vocab_size * info.hidden_size, config.plan["weights"]["bytes"]


def measured(model: Path, method: str) -> tuple[int, int, int]:
    """The same, in a process of its own."""
    code = f"from benchmarks.quantized_memory import load; print(*load({str(model)!r}, {method!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode:
        raise SystemExit(f"{model} {method}: {done.stderr.strip().splitlines()[-1]}")
    held, embedding, planned = map(int, done.stdout.split()[-3:])
    return held, embedding, planned


def main(arguments: list[str]) -> int:
    """Print a row for the plain model and one for each scheme."""
    from benchmarks.random_checkpoints import QUANTIZE, SCHEMES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--only", default="", help="schemes whose name contains this")
    parser.add_argument("--keep", type=Path, help="where checkpoints are written and left")
    asked = parser.parse_args(arguments)
    print("| method | scheme | bytes | of bfloat16 | without the embedding | measured ÷ planned |\n|---|---|---|---|---|---|", flush=True)
    plain, embedding, planned = measured(asked.model, "")
    print(f"| none | bfloat16 | {plain} | 1.00 | 1.00 | {plain / planned:.3f} |", flush=True)
    rows = [(method, "while loading", None) for method in ONLINE] + [(*name, write) for name, write in SCHEMES.items()]
    for method, scheme, write in rows:
        if asked.only not in f"{method} {scheme}":
            continue
        with tempfile.TemporaryDirectory() as scratch:
            path = asked.model
            if write is not None:
                folder = (asked.keep or Path(scratch)) / f"{method} {scheme}".replace(" ", "-")
                path = write(asked.model, folder)
            # A checkpoint says its method itself.
            held, _, planned = measured(path, method if write is None else "")
        whole = method == "gguf" or scheme.startswith(QUANTIZE)
        layers = "" if whole else f"{(held - embedding) / (plain - embedding):.2f}"
        print(f"| `{method}` | {scheme} | {held} | {held / plain:.2f} | {layers} | {held / planned:.3f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
