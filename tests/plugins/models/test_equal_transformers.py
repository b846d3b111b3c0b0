"""Every native architecture gives transformers' logits and greedy tokens, in mixed batches with prompts in chunks."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, Qwen3Config

from tests.plugins.models.checkpoints import GROUPED, POSITIONS, prompts, save
from tests.plugins.models.harness import Player, architecture, build, checkpoint

CASES = {
    "llama": ("llama", LlamaConfig(**GROUPED, **POSITIONS)),
    "llama biases, head_dim": (
        "llama", LlamaConfig(**GROUPED, **POSITIONS, attention_bias=True, mlp_bias=True, head_dim=16, tie_word_embeddings=True),
    ),
    "qwen3": ("qwen3", Qwen3Config(**GROUPED, **POSITIONS, head_dim=16, tie_word_embeddings=True)),
    "qwen3 window": (
        "qwen3",
        Qwen3Config(**GROUPED, **POSITIONS, head_dim=8, use_sliding_window=True, sliding_window=7, max_window_layers=1, attention_bias=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens(case, tmp_path):
    module, config = CASES[case]
    reference = save(config, tmp_path)
    model, made = build(architecture(module), *checkpoint(tmp_path))
    check(reference, Player(model, made).run(prompts(), 64))


def check(reference, sequences):
    for sequence in sequences:
        assert len(sequence.tokens) == sequence.prompt + 64
        with torch.inference_mode():
            expected = reference(torch.tensor([sequence.tokens]), use_cache=False).logits[0]
        got = torch.stack(sequence.logits)
        assert (got - expected[: len(got)]).abs().max() < 1e-4
        greedy = expected[sequence.prompt - 1 : -1].argmax(-1).tolist()
        assert greedy == sequence.tokens[sequence.prompt :]
        assert expected.std() > 0.1, "logits too flat to compare"
        assert len(set(sequence.tokens)) > 5
