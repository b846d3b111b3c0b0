"""Models of transformers on the engine's pages give what they give on their own."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from engine.errors import ModelFileError
from engine.plugin import Parallel
from engine_plugins.model_impls.transformers import TransformersArchitecture
from tests.data import shared
from tests.plugins.models.checkpoints import GROUPED, POSITIONS, prompts, save
from tests.plugins.models.harness import Player, build, checkpoint, context
from tests.plugins.models.test_equal_transformers import check

G = GROUPED | POSITIONS | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 4,
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
CASES = {
    "granite: scaled logits": transformers.GraniteConfig(**G, logits_scaling=3.0, attention_multiplier=0.5),
    "cohere2: scaled logits, windows": transformers.Cohere2Config(**G, sliding_window=6, sliding_window_pattern=2, logit_scale=0.3),
    "olmo2": transformers.Olmo2Config(**G),
    "starcoder2: biases": transformers.Starcoder2Config(**G, use_bias=True),
    "gpt_oss: sinks, windows": transformers.GptOssConfig(**G, num_local_experts=4, num_experts_per_tok=2, sliding_window=6),
    "gemma2: soft caps": transformers.Gemma2Config(**G, head_dim=16, attn_logit_softcapping=2.0, sliding_window=6),
    "gpt_bigcode: one KV head": transformers.GPTBigCodeConfig(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "phi: partial rotation": transformers.PhiConfig(**G, partial_rotary_factor=0.5),
    "mixtral: experts renamed and fused": transformers.MixtralConfig(**G, num_local_experts=4),
    "qwen2_moe: a shared expert": transformers.Qwen2MoeConfig(
        **G, **EXPERTS, num_experts=4, shared_expert_intermediate_size=16
    ),
    "deepseek_v3: latent attention": transformers.DeepseekV3Config(**G | LATENT | EXPERTS),
    "nemotron: arguments not handed on": transformers.NemotronConfig(**G),
    "opt: the head calls the decoder": transformers.OPTConfig(
        vocab_size=96, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=20
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_tokens(case, tmp_path):
    reference = save(CASES[case], tmp_path)
    model, made = build(TransformersArchitecture(), *checkpoint(tmp_path))
    check(reference, Player(model, made).run(prompts(), 64))


REFUSED = {
    "not pluggable": (transformers.BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4), "BloomForCausalLM is not pluggable"),
    "other layer types": (transformers.Lfm2Config(**G, layer_types=["conv", "full_attention", "conv"]), r"layer_types\[0\] is 'conv'"),
    "a mask of its own": (transformers.DogeConfig(**G), "mask of its own"),
    "attention that the interface does not show": (transformers.DiffLlamaConfig(**G), "gives other logits on the paged cache"),
    "not causal": (transformers.BertConfig(**GROUPED), "is not causal|KV heads"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_what_pages_cannot_serve(case, tmp_path):
    config, message = REFUSED[case]
    save(config, tmp_path)
    with pytest.raises(ModelFileError, match=message):
        build(TransformersArchitecture(), *checkpoint(tmp_path))


def _llama(tmp_path):
    save(transformers.LlamaConfig(**G), tmp_path)
    return checkpoint(tmp_path)


def test_unknown_and_missing_tensors_are_named(tmp_path):
    config, tensors = _llama(tmp_path)
    with pytest.raises(ModelFileError, match=r"'model.extra.weight'"):
        build(TransformersArchitecture(), config, lambda: [*tensors(), ("model.extra.weight", torch.zeros(2))])
    arch = TransformersArchitecture()
    model = arch.build(context(arch, config))
    rest = ((name, tensor) for name, tensor in tensors() if name != "model.norm.weight")
    assert model.load(rest) == {"model.norm.weight"}


def test_wrong_shapes_are_named(tmp_path):
    config, tensors = _llama(tmp_path)
    wrong = [(name, tensor[:-1] if name == "lm_head.weight" else tensor) for name, tensor in tensors()]
    with pytest.raises(ModelFileError, match=r"lm_head.weight"):
        build(TransformersArchitecture(), config, lambda: wrong)


def test_one_worker_only(tmp_path):
    class Two(Parallel):
        size = 2

        def all_reduce(self, x):
            return x

        def all_gather(self, x, dim=-1):
            return x

    config, _ = _llama(tmp_path)
    arch = TransformersArchitecture()
    assert "tensor_parallel" not in arch.describe(config).supports
    with pytest.raises(ModelFileError, match="one worker"):
        arch.build(context(arch, config, Two()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "lama"}, "no model_type 'lama'. The nearest known is 'llama'"),
        ({"model_type": "own", "auto_map": {"AutoModelForCausalLM": "x.Y"}}, "not run without --trust-remote-code"),
        ({"model_type": "vit"}, "no causal language model for 'vit'"),
        ({"hidden_size": "wide"}, "transformers refuses it"),
        ({"quantization_config": {"quant_method": "awq"}}, "does not read quantized"),
    ],
)
def test_configs_that_cannot_be_served(changes, message):
    config = {**transformers.LlamaConfig(**G).to_dict(), "architectures": ["LlamaForCausalLM"], **changes}
    with pytest.raises(ModelFileError, match=message):
        TransformersArchitecture().describe(config)


def test_longrope_is_fixed(tmp_path):
    lists = {"short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [2.0, 3.0, 5.0, 8.0]}
    rope = {"rope_type": "longrope", "rope_theta": 100.0, **lists}
    reference = save(transformers.Phi3Config(**G, original_max_position_embeddings=32, rope_parameters=rope), tmp_path)
    model, made = build(TransformersArchitecture(), *checkpoint(tmp_path))
    sequence = Player(model, made).run([prompts()[0]], 40)[0]
    with torch.inference_mode():
        expected = reference(torch.tensor([sequence.tokens]), use_cache=False).logits[0]
    assert (torch.stack(sequence.logits) - expected).abs().max() < 1e-4


def test_rope_that_follows_the_length_is_fixed(tmp_path):
    """Longer than the pretrained length, all rows rotate as transformers rotates a whole sequence of the longest length."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
    config = transformers.LlamaConfig(**GROUPED, max_position_embeddings=32, rope_parameters=rope)
    reference = save(config, tmp_path)
    model, made = build(TransformersArchitecture(), *checkpoint(tmp_path))
    assert made.info.max_model_len == 64
    sequence = Player(model, made).run([prompts()[0]], 61)[0]
    ids = torch.tensor([sequence.tokens])
    assert ids.shape == (1, 64)
    with torch.inference_mode():
        expected = reference(ids, use_cache=False).logits[0]
    assert (torch.stack(sequence.logits) - expected).abs().max() < 1e-4


def test_trained_weights():
    folder = shared("stories260k")
    model, made = build(TransformersArchitecture(), *checkpoint(folder))
    rows = json.loads((folder / "reference_greedy.json").read_text())["rows"]
    assert rows
    sequences = Player(model, made, pages=1024).run([row["prompt_ids"] for row in rows], 32)
    for row, sequence in zip(rows, sequences, strict=True):
        assert sequence.tokens[sequence.prompt :] == row["greedy_ids"][:32]
