"""Tiny random checkpoints made by transformers, with weights large enough that every part of a network shows in the logits."""

from __future__ import annotations

import torch
import transformers
from transformers import AutoModelForCausalLM

transformers.utils.logging.set_verbosity_error()
VOCAB = 96
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
GROUPED = SIZES | {"num_key_value_heads": 2}
POSITIONS = {"max_position_embeddings": 256}


def randomize(model) -> None:
    """Fill all parameters: matrices at unit gain, norms around their neutral value, biases visibly."""
    source = torch.Generator().manual_seed(11)
    tied = bool(model.config.tie_word_embeddings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=source)
            if tied and ("embed_tokens" in name or "wte" in name):
                # Small, so that with a tied head a token does not simply predict itself.
                parameter.copy_(0.4 * noise / parameter.shape[-1] ** 0.5)
            elif parameter.dim() > 1:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.add_(0.3 * noise)


def save(config, path):
    """A random model of that config, saved; returns it in float32 for comparison."""
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    randomize(model)
    model.tie_weights()
    model.save_pretrained(path)
    return model


def prompts(vocab: int = VOCAB) -> list[list[int]]:
    """Three prompts of lengths below, at and above the harness's chunk."""
    source = torch.Generator().manual_seed(3)
    return [torch.randint(3, vocab, (n,), generator=source).tolist() for n in (3, 17, 8)]
