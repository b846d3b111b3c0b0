"""Tensor-parallel ranks and pipeline stages together give what one worker gives."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import (
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from engine.errors import ConfigError
from engine.layers.model import stage_layers
from engine.plugin import Model
from tests.plugins.models.checkpoints import GROUPED, POSITIONS, SIZES, prompts, save
from tests.plugins.models.harness import Alone, Player, architecture, build, checkpoint, context, run_ranks

#: A vocabulary that no number of ranks divides.
ODD = GROUPED | POSITIONS | {"vocab_size": 95}
CASES = {
    "llama": ("llama", LlamaConfig(**ODD, attention_bias=True, mlp_bias=True), 2),
    "llama, one KV head on two ranks": ("llama", LlamaConfig(**ODD | {"num_key_value_heads": 1}), 2),
    "llama, two KV heads on four ranks": ("llama", LlamaConfig(**ODD, tie_word_embeddings=True), 4),
    "qwen3": ("qwen3", Qwen3Config(**ODD, head_dim=16, tie_word_embeddings=True), 2),
    "phi3, fused parts": ("phi3", Phi3Config(**ODD, pad_token_id=0, bos_token_id=1, eos_token_id=2), 2),
    "gpt2, fused and transposed": ("gpt2", GPT2Config(vocab_size=95, n_embd=32, n_layer=2, n_head=4, n_positions=128), 2),
    "gpt_neox": ("gpt_neox", GPTNeoXConfig(**SIZES, **POSITIONS), 2),
    "mixtral": ("mixtral", MixtralConfig(**ODD, num_local_experts=4), 2),
    "qwen3_moe": (
        "qwen3_moe",
        Qwen3MoeConfig(**ODD, moe_intermediate_size=16, num_experts=6, num_experts_per_tok=3, mlp_only_layers=[1]),
        2,
    ),
}
WANTED = 12


@pytest.mark.parametrize("case", CASES)
def test_ranks_equal_one_worker(case, tmp_path):
    module, config, size = CASES[case]
    save(config, tmp_path)
    arch, (values, tensors) = architecture(module), checkpoint(tmp_path)
    alone = Player(*build(arch, values, tensors)).run(prompts(95), WANTED)
    for rank in run_ranks(arch, values, tensors, prompts(95), WANTED, size):
        for mine, truth in zip(rank, alone, strict=True):
            assert mine.tokens == truth.tokens
            assert (torch.stack(mine.logits) - torch.stack(truth.logits)).abs().max() < 1e-4


class Stage(Alone):
    """One pipeline stage."""

    def __init__(self, stage, stages):
        self.stage, self.stages = stage, stages


class Pipeline(Model):
    """Stages run after each other in one process."""

    def __init__(self, models):
        self.models = models

    def forward(self, batch):
        hidden = None
        for model in self.models:
            hidden = model.forward(dataclasses.replace(batch, hidden=hidden))
        return hidden

    def logits(self, hidden):
        return self.models[-1].logits(hidden)

    def load(self, tensors):
        raise NotImplementedError


PIPELINES = {
    "llama": ("llama", LlamaConfig(**GROUPED, **POSITIONS)),
    "qwen3 tied": ("qwen3", Qwen3Config(**GROUPED, **POSITIONS, head_dim=8, tie_word_embeddings=True)),
    "opt": (
        "opt",
        OPTConfig(vocab_size=95, hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=16),
    ),
    "gpt2": ("gpt2", GPT2Config(vocab_size=95, n_embd=32, n_layer=3, n_head=4, n_positions=128)),
}


@pytest.mark.parametrize("case", PIPELINES)
def test_stages_equal_one_worker(case, tmp_path):
    module, config = PIPELINES[case]
    save(config, tmp_path)
    arch, (values, tensors) = architecture(module), checkpoint(tmp_path)
    model, made = build(arch, values, tensors)
    stages = [build(arch, values, tensors, Stage(stage, 2))[0] for stage in range(2)]
    assert sum(len(stage.layers) for stage in stages) == 3
    alone, staged = (Player(m, made).run(prompts(95), WANTED) for m in (model, Pipeline(stages)))
    for mine, truth in zip(staged, alone, strict=True):
        assert mine.tokens == truth.tokens
        assert torch.equal(torch.stack(mine.logits), torch.stack(truth.logits))


@pytest.mark.parametrize(
    ("layers", "stages", "counts"),
    [(8, 4, [2, 2, 2, 2]), (10, 4, [2, 3, 3, 2]), (9, 4, [2, 2, 3, 2]), (11, 4, [3, 3, 3, 2]), (3, 2, [2, 1]), (5, 1, [5])],
)
def test_remainder_goes_to_later_stages_but_the_last(layers, stages, counts):
    ranges = [stage_layers(layers, Stage(stage, stages)) for stage in range(stages)]
    assert [len(r) for r in ranges] == counts
    assert [i for r in ranges for i in r] == list(range(layers))


def test_indivisible_heads_name_the_flag_and_what_works():
    config = LlamaConfig(**GROUPED, **POSITIONS).to_dict()
    rank = Alone()
    rank.size = 3
    arch = architecture("llama")
    with pytest.raises(ConfigError, match=r"--tensor-parallel-size 3 does not divide") as caught:
        arch.build(context(arch, config, rank))
    assert caught.value.fix == "--tensor-parallel-size 2"
