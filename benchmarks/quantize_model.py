"""Rounds a checkpoint's linear layers to integers, to measure with: compressed-tensors, values packed into 32-bit words.

    python benchmarks/quantize_model.py MODELS/qwen3-0.6b --bits 4 --group 128 --out MODELS/qwen3-0.6b-int4

Round to nearest, symmetric, scales in bfloat16. Embedding and head stay as they are.
"""


from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def rounded(weight: torch.Tensor, bits: int, group: int) -> dict[str, torch.Tensor]:
    """[outputs, inputs] → packed values, scales and shape under their suffixes."""
    outputs, inputs = weight.shape
    largest = 2 ** (bits - 1) - 1
    grouped = weight.float().view(outputs, -1, group or inputs)
    scale = (grouped.abs().amax(2) / largest).to(torch.bfloat16)
    values = (grouped / scale.float().clamp_min(1e-12)[:, :, None]).round().clamp(-largest - 1, largest).view(outputs, inputs)
    each = 32 // bits
    words = torch.zeros((outputs, inputs // each), dtype=torch.int64)
    for place in range(each):
        words |= (values[:, place::each].long() + 2 ** (bits - 1)) << (bits * place)
    packed = torch.where(words < 2**31, words, words - 2**32).to(torch.int32)
    return {"weight_packed": packed, "weight_scale": scale, "weight_shape": torch.tensor([outputs, inputs])}


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4)
    parser.add_argument("--group", type=int, default=0, help="inputs per scale; 0: one scale per output")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for path in asked.model.iterdir():
        if path.suffix != ".safetensors" and path.name != "model.safetensors.index.json":
            shutil.copy(path, asked.out)
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(asked.model.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                tensor = file.get_tensor(name)
                if not name.endswith("_proj.weight"):
                    tensors[name] = tensor
                    continue
                parts = rounded(tensor, asked.bits, asked.group)
                tensors |= {f"{name.removesuffix('weight')}{suffix}": part for suffix, part in parts.items()}
    save_file(tensors, asked.out / "model.safetensors", {"format": "pt"})
    weights = {"num_bits": asked.bits, "type": "int", "symmetric": True, "strategy": "group" if asked.group else "channel"}
    if asked.group:
        weights["group_size"] = asked.group
    config = json.loads((asked.out / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ["lm_head"],
    }  # fmt: skip
    (asked.out / "config.json").write_text(json.dumps(config, indent=2))


if __name__ == "__main__":
    main()
