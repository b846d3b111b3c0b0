"""Rope scalings in a running model, other spellings of checkpoints, replaced rows, trained weights."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    Qwen3MoeConfig,
)

from engine.errors import ModelFileError
from tests.data import shared
from tests.plugins.models.checkpoints import GROUPED, POSITIONS, prompts, randomize, save
from tests.plugins.models.harness import Player, architecture, build, checkpoint, context
from tests.plugins.models.test_equal_transformers import check

G = GROUPED | POSITIONS
LONG = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 3.0, 5.0, 8.0]}
ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ROPES)
def test_scaled_rope_equals_transformers(kind, tmp_path):
    reference = save(LlamaConfig(**G, rope_parameters={"rope_theta": 50.0, **ROPES[kind]}), tmp_path)
    model, made = build(architecture("llama"), *checkpoint(tmp_path))
    check(reference, Player(model, made).run(prompts(), 64))


def _phi3(tmp_path):
    config = Phi3Config(
        **G, original_max_position_embeddings=96, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "longrope", "rope_theta": 100.0, **LONG},
    )  # fmt: skip
    return save(config, tmp_path)


def test_longrope_below_the_pretrained_length(tmp_path):
    """Served up to the pretrained length, the short factors hold, as transformers has them for such sequences."""
    reference = _phi3(tmp_path)
    model, made = build(architecture("phi3"), *checkpoint(tmp_path), max_model_len=96)
    check(reference, Player(model, made).run(prompts(), 64))


def test_longrope_beyond_the_pretrained_length(tmp_path):
    """Served beyond it, the long factors hold throughout: compared where transformers uses them, in a sequence that long."""
    reference = _phi3(tmp_path)
    model, made = build(architecture("phi3"), *checkpoint(tmp_path))
    sequence = Player(model, made).run([prompts()[1]], 100)[0]
    with torch.inference_mode():
        expected = reference(torch.tensor([sequence.tokens]), use_cache=False).logits[0]
    assert (torch.stack(sequence.logits) - expected).abs().max() < 1e-4


def test_dynamic_rope_at_the_longest_context(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
    reference = save(LlamaConfig(**GROUPED, max_position_embeddings=32, rope_parameters=rope), tmp_path)
    model, made = build(architecture("llama"), *checkpoint(tmp_path))
    assert made.info.max_model_len == 64
    sequence = Player(model, made).run([prompts()[0]], 61)[0]
    with torch.inference_mode():
        expected = reference(torch.tensor([sequence.tokens]), use_cache=False).logits[0]
    assert (torch.stack(sequence.logits) - expected).abs().max() < 1e-4


MIXTURES = {
    "mixtral": MixtralConfig(**G, num_local_experts=4),
    "qwen3_moe": Qwen3MoeConfig(**G, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
}


@pytest.mark.parametrize("module", MIXTURES)
def test_experts_fused_in_one_tensor(module, tmp_path):
    """The names and shapes that transformers has in memory."""
    reference = save(MIXTURES[module], tmp_path)
    config, _ = checkpoint(tmp_path)
    state = dict(reference.state_dict())
    assert any(name.endswith("experts.gate_up_proj") for name in state)
    model, made = build(architecture(module), config, state.items)
    check(reference, Player(model, made).run(prompts(), 64))


@pytest.mark.parametrize(("module", "prefix", "config"), [
    ("llama", "model.", LlamaConfig(**G, tie_word_embeddings=True)),
    ("gpt2", "transformer.", GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=128)),
])  # fmt: skip
def test_trunk_saved_without_its_prefix(module, prefix, config, tmp_path):
    reference = save(config, tmp_path)
    values, tensors = checkpoint(tmp_path)
    extra = [("h.0.attn.bias", torch.ones(1, 1, 4, 4)), ("lm_head.weight", torch.zeros(96, 32))]
    if module == "llama":
        extra = [("layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4)), extra[1]]
    bare = [*((name.removeprefix(prefix), tensor) for name, tensor in tensors()), *extra]
    model, made = build(architecture(module), values, lambda: bare)
    check(reference, Player(model, made).run(prompts(), 64))


def test_older_config_keys(tmp_path):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 77.0}
    reference = save(LlamaConfig(**G, rope_parameters=rope), tmp_path)
    config, tensors = checkpoint(tmp_path)
    del config["rope_parameters"]
    old = {**config, "rope_theta": 77.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    model, made = build(architecture("llama"), old, tensors)
    check(reference, Player(model, made).run(prompts(), 64))


def test_gemma3_beside_a_vision_tower(tmp_path):
    text = G | {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 9, "pad_token_id": 0}
    text["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    config = Gemma3Config(text_config=text, vision_config=vision | {"patch_size": 14}, mm_tokens_per_image=4)
    reference = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager").eval()
    randomize(reference)
    reference.tie_weights()
    reference.save_pretrained(tmp_path)
    values, tensors = checkpoint(tmp_path)
    assert any("vision_tower" in name for name, _ in tensors())
    model, made = build(architecture("gemma3_conditional"), values, tensors)
    check(reference, Player(model, made).run(prompts(), 64))
    newer = [(name.replace("language_model.model.", "model.language_model."), tensor) for name, tensor in tensors()]
    build(architecture("gemma3_conditional"), values, lambda: newer)


def test_rows_whose_embedding_is_replaced(tmp_path):
    save(LlamaConfig(**G), tmp_path)
    model, made = build(architecture("llama"), *checkpoint(tmp_path))
    ids = prompts()[1]

    def run(change):
        player = Player(model, made)
        plain = player.batch
        player.batch = lambda work: change(plain(work))
        return torch.stack(player.run([ids], 0)[0].logits)

    def replaced(batch):
        mask = torch.arange(len(batch.token_ids)) % 2 == 0
        rows = model.embed(batch.token_ids)
        wrong = torch.where(mask, 0, batch.token_ids)
        return dataclasses.replace(batch, token_ids=wrong, embeddings=rows, embedding_mask=mask)

    assert torch.equal(run(replaced), run(lambda batch: batch))


def test_unknown_tensors_end_the_load(tmp_path):
    save(LlamaConfig(**G), tmp_path)
    config, _ = checkpoint(tmp_path)
    arch = architecture("llama")
    model = arch.build(context(arch, config))
    with pytest.raises(ModelFileError, match=r"'model.layers.7.mlp.up_proj.weight'"):
        model.load([("model.layers.7.mlp.up_proj.weight", torch.zeros(48, 32))])


def test_bfloat16_is_close(tmp_path):
    reference = save(LlamaConfig(**G), tmp_path)
    config, tensors = checkpoint(tmp_path)
    arch = architecture("llama")
    made = dataclasses.replace(context(arch, config), dtype=torch.bfloat16)
    model = arch.build(made)
    assert model.load(tensors()) == set()
    model.finish()
    sequence = Player(model, made).run([prompts()[1]], 1)[0]
    assert sequence.logits[0].dtype == torch.bfloat16
    with torch.inference_mode():
        expected = reference(torch.tensor([sequence.tokens]), use_cache=False).logits[0]
    assert (torch.stack(sequence.logits).float() - expected).abs().max() < 0.2


def test_trained_weights():
    folder = shared("stories260k")
    model, made = build(architecture("llama"), *checkpoint(folder))
    rows = json.loads((folder / "reference_greedy.json").read_text())["rows"]
    sequences = Player(model, made, pages=1024).run([row["prompt_ids"] for row in rows], 64)
    for row, sequence in zip(rows, sequences, strict=True):
        assert sequence.tokens[sequence.prompt :] == row["greedy_ids"]
        scores = torch.log_softmax(torch.stack(sequence.logits), -1)
        for position, expected in enumerate(row["prompt_logprobs"]):
            if expected is not None:
                assert abs(scores[position - 1, row["prompt_ids"][position]].item() - expected) < 1e-3
