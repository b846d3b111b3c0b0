"""A QLoRA adapter beside a base model that is rounded to nf4 while loading: logits against PEFT on the same rounded weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import ConfigError, ModelFileError
from tests.quant.checkpoints import PROMPTS, logits_of, tensors_of, worst, write_quantized

peft = pytest.importorskip("peft")
functional = pytest.importorskip("bitsandbytes.functional")
FLAGS: dict[str, Any] = {"quantization": "bitsandbytes"}


def rounded(_: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    packed, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    return {"weight": weight}, functional.dequantize_4bit(packed, state).float()


def trained(llama: Path, folder: Path, **settings: Any) -> tuple[Path, list[Tensor]]:
    """A random adapter as PEFT saves it, and PEFT's logits with it on the rounded base."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    dense = write_quantized(folder / "unused", llama, rounded, None)
    base = folder / "base"
    base.mkdir()
    save_file({name: dense.get(name, t).float().contiguous() for name, t in tensors_of(llama).items()}, base / "model.safetensors")
    (base / "config.json").write_text((llama / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(5)
    config = peft.LoraConfig(**({"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | settings))
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(folder / "adapter")
    with torch.inference_mode():
        return folder / "adapter", [adapted.eval()(torch.tensor([ids])).logits[0] for ids in PROMPTS]


CASES: dict[str, dict[str, Any]] = {
    "two projections": {"target_modules": ["q_proj", "v_proj"]},
    "all, scaled by the root of the rank": {"target_modules": "all-linear", "use_rslora": True},
    "ranks and alphas of their own": {
        "target_modules": ["q_proj", "down_proj", "gate_proj"], "rank_pattern": {"down_proj": 8},
        "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 2},
    },
}  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_pefts(llama: Path, tmp_path: Path, case: str, ranks: int) -> None:
    adapter, wanted = trained(llama, tmp_path, **CASES[case])
    flags = FLAGS | {"qlora_adapter_name_or_path": str(adapter)}
    plain = logits_of(llama, **FLAGS)
    got = logits_of(llama, ranks=ranks, **flags)
    # Two ranks round what they hold, in other blocks: as near to the truth, but not the same.
    assert worst(got, wanted) < (2e-2 if ranks == 1 else worst(plain, wanted) / 3)
    if ranks == 1:
        sixteen = flags | {"dtype": "bfloat16"}
        assert worst(logits_of(llama, native=True, **sixteen), logits_of(llama, **sixteen)) < 1e-1


def test_the_plan_says_what_the_adapter_asks_for(llama: Path, tmp_path: Path) -> None:
    from engine.args import EngineArgs
    from engine.args.resolve import resolve

    adapter, _ = trained(llama, tmp_path, target_modules=["q_proj"])
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}))
    given: dict[str, Any] = {"model_loader_extra_config": {"qlora_adapter_name_or_path": str(adapter)}}
    for flags in ({"qlora_adapter_name_or_path": str(adapter)}, given):
        plan = resolve(EngineArgs(model=str(llama), skip_tokenizer_init=True, device="cpu", **FLAGS, **flags)).plan
        assert plan["quantization"]["type"] == "fp4" and "adapter_config.json" in plan["quantization"]["config"]


def change(adapter: Path, **keys: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_what_cannot_be_applied_is_refused(llama: Path, tmp_path: Path) -> None:
    adapter, _ = trained(llama, tmp_path, target_modules=["q_proj"])
    flags = FLAGS | {"qlora_adapter_name_or_path": str(adapter)}
    sound = {"use_dora": False, "bias": "none", "peft_type": "LORA"}
    for keys, said in (({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias"), ({"peft_type": "IA3"}, "peft_type")):
        change(adapter, **(sound | keys))
        with pytest.raises(ModelFileError, match=said):
            logits_of(llama, **flags)
    with pytest.raises(ConfigError, match="needs --quantization bitsandbytes"):
        logits_of(llama, qlora_adapter_name_or_path=str(adapter))
    with pytest.raises(ModelFileError, match="cannot be read|peft_type is missing"):
        logits_of(llama, **(FLAGS | {"qlora_adapter_name_or_path": str(llama)}))


def test_a_quantized_base_is_refused(llama: Path, tmp_path: Path) -> None:
    adapter, _ = trained(llama, tmp_path, target_modules=["q_proj"])
    write_quantized(tmp_path / "q", llama, lambda *_: None, {"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(ConfigError, match="goes with a plain model"):
        logits_of(tmp_path / "q", **(FLAGS | {"qlora_adapter_name_or_path": str(adapter)}))
