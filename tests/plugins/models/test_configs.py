"""Families read their configurations as transformers' classes do, and name what cannot be meant."""

from __future__ import annotations

import json
from importlib import import_module

import msgspec
import pytest
import transformers

from engine.errors import ModelFileError
from engine.plugin import ModelInfo
from tests.plugins.models.harness import architecture

SIZES = {"vocab_size": 96, "hidden_size": 512, "intermediate_size": 96, "num_hidden_layers": 30, "num_attention_heads": 32}
GPT2 = {"vocab_size": 96, "n_embd": 512, "n_layer": 30, "n_head": 32}
OPT = {**{k: v for k, v in SIZES.items() if k != "intermediate_size"}, "ffn_dim": 96}
#: module, transformers' class, the keys that a file must have, our name of the typed config (None: a function reads it)
FAMILIES = {
    "LlamaForCausalLM": ("llama", transformers.LlamaConfig, SIZES, "LlamaConfig"),
    "MistralForCausalLM": ("mistral", transformers.MistralConfig, SIZES, None),
    "Qwen2ForCausalLM": ("qwen2", transformers.Qwen2Config, SIZES, None),
    "Qwen3ForCausalLM": ("qwen3", transformers.Qwen3Config, SIZES, None),
    "Gemma2ForCausalLM": ("gemma2", transformers.Gemma2Config, SIZES, "Gemma2Config"),
    "Gemma3ForCausalLM": ("gemma3", transformers.Gemma3TextConfig, {}, "Gemma3Config"),
    "Phi3ForCausalLM": ("phi3", transformers.Phi3Config, SIZES, "Phi3Config"),
    "OPTForCausalLM": ("opt", transformers.OPTConfig, OPT, "OPTConfig"),
    "GPT2LMHeadModel": ("gpt2", transformers.GPT2Config, GPT2, "GPT2Config"),
    "GPTNeoXForCausalLM": ("gpt_neox", transformers.GPTNeoXConfig, SIZES, "GPTNeoXConfig"),
    "MixtralForCausalLM": ("mixtral", transformers.MixtralConfig, SIZES, "MixtralConfig"),
    "Qwen3MoeForCausalLM": ("qwen3_moe", transformers.Qwen3MoeConfig, SIZES, "Qwen3MoeConfig"),
}
#: Ours alone: what transformers derives in its network.
DERIVED = {"heads", "rope", "full_rope", "sliding_rope", "windows", "sliding", "sparse", "scales", "final_norm", "n_inner"}


def own(name, config):
    module, _, _, reader = FAMILIES[name]
    loaded = import_module(f"engine_plugins.models.{module}")
    return getattr(loaded, f"read_{module}")(config) if reader is None else getattr(loaded, reader).read(config)


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_are_those_of_transformers(name):
    module, theirs, required, _ = FAMILIES[name]
    reference = theirs(**required)
    typed = own(name, dict(required))
    for field in typed.__dataclass_fields__:
        if field not in DERIVED:
            expected = getattr(reference, field, False if field.endswith("_bias") else None)
            assert getattr(typed, field) == expected, field
    info = architecture(module).describe(dict(required))
    eos = reference.eos_token_id
    assert info.eos_token_ids == (() if eos is None else (eos,))
    assert info.bos_token_id == reference.bos_token_id
    assert info.tied_embeddings == reference.tie_word_embeddings
    assert len(info.layers) == reference.num_hidden_layers
    assert info.max_model_len == reference.max_position_embeddings
    same_attention(info, reference)
    if hasattr(typed, "rope"):
        assert typed.rope.theta == reference.rope_parameters["rope_theta"]
        assert typed.rope.dim == int(typed.heads.dim * reference.rope_parameters.get("partial_rotary_factor", 1.0))


def same_attention(info: ModelInfo, reference):
    kinds = getattr(reference, "layer_types", None) or [None] * len(info.layers)
    for spec, kind in zip(info.layers, kinds, strict=True):
        assert spec.num_heads == reference.num_attention_heads
        assert spec.num_kv_heads == getattr(reference, "num_key_value_heads", reference.num_attention_heads)
        dim = getattr(reference, "head_dim", None) or reference.hidden_size // reference.num_attention_heads
        assert spec.head_dim == dim
        window = None if kind == "full_attention" else getattr(reference, "sliding_window", None)
        assert spec.window == window
        assert spec.soft_cap == getattr(reference, "attn_logit_softcapping", None)


@pytest.mark.parametrize("name", FAMILIES)
def test_saved_configs_read_the_same(name, tmp_path):
    """What transformers writes today describes the same model as the bare keys."""
    module, theirs, required, _ = FAMILIES[name]
    theirs(**required, architectures=[name]).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    info, bare = (architecture(module).describe(c) for c in (saved, dict(required)))
    assert info == msgspec.structs.replace(bare, dtype=info.dtype)
    assert own(name, saved) == own(name, dict(required))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "64"}, r"hidden_size is '64'; it must be an integer from 1 to"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it must be an integer from 1 to 1024"),
        ({"head_dim": 0}, "head_dim is 0; it must be an integer from 1"),
        ({"head_dim": 7}, "partial_rotary_factor|head_dim"),
        ({"num_attention_heads": 7}, "num_attention_heads is 7; it must be a divisor of hidden_size"),
        ({"num_key_value_heads": 3}, r"num_key_value_heads is 3; it must be a divisor of num_attention_heads \(32\)"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'; it must be a number above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"attention_bias": "yes"}, "attention_bias is 'yes'; it must be true or false"),
        ({"eos_token_id": [2, "3"]}, "eos_token_id"),
        ({"torch_dtype": "int8"}, "torch_dtype is 'int8'; it must be one of float32"),
        ({"dtype": 16}, "dtype is 16"),
        ({"rope_scaling": {"type": "twisted"}}, "type is 'twisted'; it must be one of"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
    ],
)
def test_mistakes_name_key_value_and_what_would_work(changes, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        architecture("llama").describe(SIZES | changes)
    assert caught.value.status == 4


@pytest.mark.parametrize(
    ("module", "sizes", "changes", "message"),
    [
        ("qwen3", SIZES, {"layer_types": ["full_attention"]}, "layer_types is .* a list of 30"),
        ("qwen2", SIZES, {"layer_types": ["conv"] * 30}, "full_attention, sliding_attention"),
        ("mixtral", SIZES, {"num_experts_per_tok": 9}, "num_experts_per_tok is 9; it must be an integer from 1 to 8"),
        ("gpt2", GPT2, {"n_head": 5}, "n_head is 5; it must be a divisor of n_embd"),
        ("gpt2", GPT2, {"add_cross_attention": True}, "add_cross_attention"),
        ("gemma2", SIZES, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_conditional", {}, {"text_config": 3}, "text_config is 3; it must be an object"),
        ("gemma3_conditional", {}, {}, "text_config is None"),
    ],
)
def test_mistakes_of_families(module, sizes, changes, message):
    with pytest.raises(ModelFileError, match=message):
        architecture(module).describe(sizes | changes)


def test_unknown_activation_lists_the_known():
    from tests.plugins.models.harness import context

    config = SIZES | {"hidden_act": "swoosh"}
    arch = architecture("llama")
    with pytest.raises(ModelFileError, match=r"'swoosh'; known are .*silu"):
        arch.build(context(arch, config))


def test_gemma3_stated_length_is_the_scaled_one():
    config = {"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    assert architecture("gemma3").describe(config).max_model_len == 131072


def test_gemma3_in_a_tower_reads_the_text_part():
    text = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "model_type": "gemma3_text"}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "eos_token_id": [1, 106], "torch_dtype": "bfloat16"}
    info = architecture("gemma3_conditional").describe(config)
    assert (info.hidden_size, info.eos_token_ids, info.dtype) == (64, (1, 106), "bfloat16")
    assert info.architecture == "Gemma3ForConditionalGeneration"


WRONG = [None, 0, -1, 1, 10**9, 10**400, "x", "", [], [1], [None], {}, {"a": 1}, True, False, 1.5, -0.5, float("nan"), float("inf")]


@pytest.mark.parametrize("name", FAMILIES)
def test_any_value_is_read_or_refused(name):
    """Whatever stands at a key, the answer is a description or an error that names the file."""
    module, theirs, required, _ = FAMILIES[name]
    saved = json.loads(theirs(**required, architectures=[name]).to_json_string())
    saved |= {"rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "head_dim": saved.get("head_dim", 64)}
    arch = architecture(module)
    refused = 0
    for key in saved:
        for value in WRONG:
            try:
                arch.describe(saved | {key: value})
            except ModelFileError as error:
                refused += 1
                assert "config.json" in str(error)
    for key in ("rope_type", "factor", "rope_theta", "original_max_position_embeddings", "beta_fast", "truncate", "mscale"):
        for value in WRONG:
            try:
                arch.describe(saved | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, key: value}})
            except ModelFileError as error:
                refused += 1
                assert "config.json" in str(error)
    assert refused > 40
