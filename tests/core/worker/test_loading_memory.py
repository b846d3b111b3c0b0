"""What loading a checkpoint needs beside its weights: a real file, the real loader, a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine_devices._native import Absent, load

#: 400 MB in bfloat16: more than the limit's allowance, so that a second copy of the weights would show.
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 16_000,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "torch_dtype": "bfloat16",
}  # fmt: skip

LOADING = """
import sys
from pathlib import Path
import torch
from engine.plugin.contracts.model import Parallel
from engine.worker.build import attention_of, build_model, load_weights, open_device
from tests.core.worker.harness import make_config
class Alone(Parallel):
    rank, size = int(sys.argv[2]), int(sys.argv[3])
    def all_reduce(self, x): return x
    def all_gather(self, x, dim=-1): return x
def status(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))
modules = {"model": "engine_plugins.models.qwen3", "device": "engine_devices.cpu", "loader": "engine_plugins.loaders.safetensors"}
config = make_config(Path(sys.argv[1]), modules=modules, dtype="bfloat16", tensor_parallel=Alone.size)
device = open_device(config, 0)
with torch.inference_mode():
    model = build_model(config, device, Alone(), attention_of(device, config))
    before = status("VmRSS")
    load_weights(model, config, Alone.rank, None)
print(status("VmHWM") - before, status("VmRSS") - before)
"""


def write(place: Path, tied: bool) -> dict[str, int]:
    """A random checkpoint; the bytes of its tensors."""
    sizes = {key: CONFIG[key] for key in ("hidden_size", "intermediate_size", "vocab_size", "num_hidden_layers")}
    hidden, inner, vocab, layers = (int(str(size)) for size in sizes.values())
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, rows, columns in (("q", 1024, hidden), ("k", 512, hidden), ("v", 512, hidden), ("o", hidden, 1024)):
            shapes[f"{prefix}self_attn.{name}_proj.weight"] = (rows, columns)
        shapes |= {f"{prefix}self_attn.{name}_norm.weight": (64,) for name in "qk"}
        shapes |= {f"{prefix}mlp.{name}_proj.weight": (inner, hidden) for name in ("gate", "up")}
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{prefix}{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    if not tied:
        shapes["lm_head.weight"] = (vocab, hidden)
    save_file({name: torch.full(shape, 0.01, dtype=torch.bfloat16) for name, shape in shapes.items()}, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": tied}))
    return {name: 2 * torch.Size(shape).numel() for name, shape in shapes.items()}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.skipif(isinstance(load(), Absent), reason="the native kernels are not available here")
@pytest.mark.parametrize(("tied", "ranks"), [(True, 1), (False, 1), (True, 2)])
def test_the_peak_is_the_weights_and_one_tensor(tied: bool, ranks: int, tmp_path: Path) -> None:
    sizes = write(tmp_path, tied)
    whole, largest = sum(sizes.values()), max(sizes.values())
    for rank in range(ranks):
        done = subprocess.run(
            [sys.executable, "-c", LOADING, str(tmp_path), str(rank), str(ranks)], capture_output=True, text=True, check=True
        )
        peak, left = map(int, done.stdout.split()[-2:])
        print(f"rank {rank} of {ranks}, tied {tied}: peak {peak >> 20} MiB, then {left >> 20} of {whole >> 20}")
        assert whole / ranks * 0.9 < left < whole / ranks + (60 << 20)
        # far inside the promise of 300 MB beside the weights and the largest tensor
        assert peak < whole / ranks + largest + (100 << 20)
