"""Writes trained weights, configuration, tokenizer and chat template in the format of a Qwen3 checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from model import SHAPES, Shape
from safetensors.torch import save_file
from tokenizer import SPECIAL

HERE = Path(__file__).parent
BUNDLED = HERE.parent.parent / "core/engine/bundled"
PAD, START, END = 0, 1, 2


def config(shape: Shape) -> dict[str, Any]:
    """The model configuration, with both the older and the newer key where readers differ."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": END,
        "pad_token_id": PAD,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "layer_types": ["full_attention"] * shape.layers,
        "max_position_embeddings": shape.positions,
        "max_window_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.epsilon,
        "rope_parameters": {"rope_theta": shape.theta, "rope_type": "default"},
        "rope_scaling": None,
        "rope_theta": shape.theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocabulary,
    }


def plain_tags(document: dict[str, Any]) -> dict[str, Any]:
    """Only the turn markers are special: the other tags must survive decoding, since parsers read them."""
    for token in document["added_tokens"]:
        token["special"] = token["id"] in (PAD, START, END)
    return document


def tokenizer_config(shape: Shape, template: str) -> dict[str, Any]:
    """The tokenizer configuration."""
    added = {
        str(index): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": index in (PAD, START, END),
        }
        for index, token in enumerate(SPECIAL)
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "added_tokens_decoder": added,
        "additional_special_tokens": [SPECIAL[START], SPECIAL[END]],
        "bos_token": None,
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PAD],
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.positions,
        "chat_template": template,
    }


def write(name: str, work: Path, target: Path) -> None:
    """Writes the folder of one model."""
    shape = SHAPES[name]
    target.mkdir(parents=True, exist_ok=True)
    template = (HERE / "chat_template.jinja").read_text().rstrip("\n")
    documents = {
        "config.json": config(shape),
        "generation_config.json": {"do_sample": False, "eos_token_id": [END, PAD], "pad_token_id": PAD},
        "tokenizer_config.json": tokenizer_config(shape, template),
        "tokenizer.json": plain_tags(json.loads((work / "tokenizer.json").read_text())),
    }
    for file, document in documents.items():
        (target / file).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    (target / "chat_template.jinja").write_text(template)
    state = torch.load(work / f"{name}.pt")
    tensors = {key: value.to(torch.bfloat16).contiguous() for key, value in state.items()}
    save_file(tensors, str(target / "model.safetensors"), metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    size = (target / "model.safetensors").stat().st_size
    print(f"{name}: {sum(t.numel() for t in tensors.values())} parameters, {size} bytes")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=list(SHAPES))
    parser.add_argument("--work", type=Path, default=Path("/tmp/demo-train"))
    parser.add_argument("--output", type=Path, default=BUNDLED)
    options = parser.parse_args()
    write(options.model, options.work, options.output / options.model)


if __name__ == "__main__":
    main()
