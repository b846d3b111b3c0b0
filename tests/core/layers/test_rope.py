"""Rotary frequencies of every type equal transformers', in the older and the newer spelling of the keys."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.errors import ModelFileError
from engine.layers.rope import context_length, read_rope
from engine.layers.rotary import RotaryEmbedding, Rotation, inverse_frequencies, rotate

HEAD = 16
LISTS = {"short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0 + 0.3 * i for i in range(8)]}
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    "yarn, all keys": {
        "rope_type": "yarn", "factor": 8.0, "beta_fast": 20.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 0.5,
        "original_max_position_embeddings": 32, "truncate": False,
    },
    "yarn, attention_factor": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.3},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "longrope": {"rope_type": "longrope", "original_max_position_embeddings": 64, **LISTS},
    "longrope, factor": {"rope_type": "longrope", "factor": 3.0, "original_max_position_embeddings": 64, **LISTS},
}  # fmt: skip
BASE = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 256}


def reference(scaling, length):
    config = LlamaConfig(**BASE, rope_parameters={"rope_theta": 500.0, **scaling})
    return ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config, "cpu", seq_len=length)


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("spelling", ["rope_parameters", "rope_scaling", "type"])
@pytest.mark.parametrize("length", [60, 256, 512])
def test_frequencies_equal_transformers(name, spelling, length):
    scaling = SCALINGS[name]
    if spelling == "rope_parameters":
        config = {**BASE, "rope_parameters": {**scaling, "rope_theta": 500.0}}
    elif spelling == "rope_scaling":
        config = {**BASE, "rope_theta": 500.0, "rope_scaling": scaling}
    else:
        kind = {"longrope": "su"}.get(scaling["rope_type"], scaling["rope_type"])
        config = {**BASE, "rope_theta": 500.0, "rope_scaling": {**scaling, "type": kind}}
        del config["rope_scaling"]["rope_type"]
    spec = read_rope(config, head_dim=HEAD, max_position=256)
    frequencies, scale = inverse_frequencies(spec, length)
    expected, expected_scale = reference(scaling, length)
    torch.testing.assert_close(frequencies, expected, rtol=1e-6, atol=1e-9)
    assert scale == pytest.approx(expected_scale)


def test_partial_rotation_leaves_the_rest():
    spec = read_rope({"partial_rotary_factor": 0.5}, head_dim=HEAD, max_position=256)
    assert spec.dim == 8
    rotation = RotaryEmbedding(spec, 256, torch.device("cpu"))(torch.tensor([3]), torch.float32)
    x = torch.randn(1, 2, HEAD)
    out = rotate(x, rotation)
    assert torch.equal(out[..., 8:], x[..., 8:])
    assert not torch.equal(out[..., :8], x[..., :8])


def test_interleaved_pairs_are_the_halves_reordered():
    angle = torch.randn(5, 1, 4)
    rotation = Rotation(angle.cos(), angle.sin())
    x = torch.randn(5, 3, 8)
    halves = torch.cat((x[..., ::2], x[..., 1::2]), -1)
    expected = rotate(halves, rotation)
    got = rotate(x, rotation, interleaved=True)
    torch.testing.assert_close(torch.cat((got[..., ::2], got[..., 1::2]), -1), expected)


def test_phi3_reads_its_own_spelling():
    scaling = {"type": "yarn", **LISTS}
    config = {**BASE, "original_max_position_embeddings": 64, "rope_scaling": scaling}
    spec = read_rope(config, head_dim=HEAD, max_position=256, original=4096, aliases={"yarn": "longrope"})
    own = Phi3Config(
        **BASE, original_max_position_embeddings=64, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **LISTS},
        pad_token_id=0,
    )  # fmt: skip
    expected, scale = ROPE_INIT_FUNCTIONS["longrope"](own, "cpu", seq_len=256)
    frequencies, got = inverse_frequencies(spec, 256)
    torch.testing.assert_close(frequencies, expected)
    assert got == pytest.approx(scale)


def test_a_scaling_that_replaces_the_table_keeps_its_base():
    config = {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    spec = read_rope(config, head_dim=HEAD, max_position=64)
    assert (spec.type, spec.theta, spec.factor) == ("linear", 123.0, 2.0)


def test_entries_per_layer_type():
    config = {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    }
    full = read_rope(config, head_dim=HEAD, max_position=64, layer_type="full_attention")
    sliding = read_rope(config, head_dim=HEAD, max_position=64, layer_type="sliding_attention")
    assert (full.type, full.factor, full.theta) == ("linear", 8.0, 1e6)
    assert (sliding.type, sliding.theta) == ("default", 1e4)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "curly", "factor": 2.0}, "rope_type is 'curly'; it must be one of default, linear"),
        ({"rope_type": "linear", "type": "yarn", "factor": 2.0}, "give one of them"),
        ({"rope_type": "linear"}, "factor is missing"),
        ({"rope_type": "linear", "factor": "2"}, "factor is '2'; it must be a number above 0"),
        ({"rope_type": "linear", "factor": -1.0}, "factor is -1.0"),
        ({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}, "short_factor is .* list of 8 positive numbers"),
        ({"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, "larger than low_freq_factor"),
        ({"rope_type": 3}, "rope_type is 3"),
        (["linear"], "rope_scaling is .* an object"),
        ({"rope_type": "default", "partial_rotary_factor": 0.05}, "partial_rotary_factor"),
    ],
)
def test_mistakes_are_named(scaling, message):
    with pytest.raises(ModelFileError, match=message):
        read_rope({"rope_scaling": scaling}, head_dim=HEAD, max_position=256)


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({}, 2048),
        ({"max_position_embeddings": 512, "rope_scaling": None}, 512),
        ({"max_position_embeddings": 512, "model_max_length": 300}, 300),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "linear", "factor": 2.0}}, 1024),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "dynamic", "factor": 2.5}}, 1280),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "su", "factor": 2.0}}, 512),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, 512),
        (
            {
                "max_position_embeddings": 4096,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
            },
            2048,
        ),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 2048),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 512),
    ],
)
def test_context_length(config, length):
    assert context_length(config, config.get("max_position_embeddings", 2048)) == length


@pytest.mark.parametrize("name", ["linear", "dynamic", "yarn", "llama3", "longrope"])
@pytest.mark.parametrize("longest", [48, 96])
def test_logits_of_a_scaling_given_by_flag(name, longest, tmp_path):
    """A prompt as long as the longest context served: there the lengths that dynamic and longrope depend on agree."""
    import json

    from transformers import AutoModelForCausalLM

    from tests.quant.checkpoints import logits_of, tiny_llama

    scaling = {key: value for key, value in SCALINGS[name].items() if key not in LISTS}
    if name == "longrope":
        scaling |= {"short_factor": [1.0 + 0.1 * i for i in range(16)], "long_factor": [2.0 + 0.3 * i for i in range(16)]}
    place = tiny_llama(tmp_path, max_position_embeddings=64)
    length = 64 if name in ("dynamic", "linear") else longest
    scaling |= {"original_max_position_embeddings": 64} if name in ("yarn", "longrope") else {}
    prompt = [(7 * i) % 150 for i in range(min(longest, 2 * length))]
    flags = {"max_model_len": longest} if name != "longrope" or longest <= 64 else {"hf_overrides": {"max_position_embeddings": 128}}
    if "hf_overrides" in flags:
        flags["max_model_len"] = longest
    if name == "llama3" and longest > 64:
        flags["hf_overrides"] = {"max_position_embeddings": 128}
    found = logits_of(place, (prompt,), rope_scaling=scaling, **flags)[0]
    config = json.loads((place / "config.json").read_text()) | flags.get("hf_overrides", {})
    theta = config.pop("rope_parameters", {}).get("rope_theta", 10_000.0)
    (place / "config.json").write_text(json.dumps(config | {"rope_parameters": scaling | {"rope_theta": theta}}))
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = model(torch.tensor([prompt]), use_cache=False).logits[0]
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=2e-4)
