"""Mistral's own checkpoints: the engine computes what the original network computes from the original tensors."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.args.engine_args import EngineArgs
from engine.args.resolve import resolve
from engine.errors import ModelFileError
from engine.plugin import Checkpoint
from engine_plugins.config_formats import mistral as mistral_config
from tests.plugins.loaders import original_mistral as original
from tests.quant.checkpoints import PROMPTS, logits_of

FLAGS = {"skip_tokenizer_init": True}
MOE = {"moe": {"num_experts": 4, "num_experts_per_tok": 2}}


def read(place, **changes):
    (place / "params.json").write_text(json.dumps(original.PARAMS | changes))
    return mistral_config.engine_create_config_format(Checkpoint("m", str(place), str(place), str(place))).read()


@pytest.mark.parametrize(
    ("shards", "together", "changes"),
    [(1, False, {}), (3, False, {}), (1, False, MOE), (2, True, MOE), (1, False, {"sliding_window": 4})],
)
def test_logits_of_the_original_network(tmp_path, shards, together, changes):
    tensors = original.write(tmp_path, shards=shards, together=together, **changes)
    found = logits_of(tmp_path, **FLAGS)
    for prompt, logits in zip(PROMPTS, found, strict=True):
        torch.testing.assert_close(logits, original.logits(tensors, prompt, **changes), atol=2e-4, rtol=2e-4)


def test_two_ranks(tmp_path):
    tensors = original.write(tmp_path)
    found = logits_of(tmp_path, ranks=2, **FLAGS)
    torch.testing.assert_close(found[0], original.logits(tensors, PROMPTS[0]), atol=2e-4, rtol=2e-4)


def test_auto_takes_both_and_counts_the_bytes(tmp_path):
    tensors = original.write(tmp_path, together=True, **MOE)
    config = resolve(EngineArgs(model=str(tmp_path), skip_tokenizer_init=True))
    assert (config.choices["loader"].name, config.choices["config_format"].name) == ("mistral", "mistral")
    assert config.plan["weights"]["stored_bytes"] == sum(tensor.nbytes for tensor in tensors.values())
    assert config.model.info.architecture == "MixtralForCausalLM" and config.model.dtype == "float32"


def test_an_index_decides_which_shards_count(tmp_path):
    tensors = original.write(tmp_path)
    save_file({"nonsense": torch.zeros(1)}, tmp_path / "consolidated-old.safetensors")
    weight_map = dict.fromkeys(tensors, "consolidated.safetensors")
    (tmp_path / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    logits_of(tmp_path, **FLAGS)
    weight_map["norm.weight"] = "consolidated-2.safetensors"
    (tmp_path / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelFileError, match=r"consolidated-2\.safetensors is missing"):
        logits_of(tmp_path, **FLAGS)


@pytest.mark.parametrize(
    ("name", "tensor", "shown"),
    [
        ("layers.0.attention.wx.weight", torch.zeros(2), r"'layers\.0\.attention\.wx\.weight', which is no name"),
        ("layers.0.attention.wq.weight", torch.zeros(32, 64), r"asks for \[64, 64\]"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, name, tensor, shown):
    original.write(tmp_path)
    file = tmp_path / "consolidated.safetensors"
    tensors = load_file(file)
    save_file(tensors | {name: tensor}, file)
    with pytest.raises(ModelFileError, match=shown):
        logits_of(tmp_path, **FLAGS)


def test_params_in_the_words_of_config(tmp_path):
    found = read(tmp_path, sliding_window=None, tie_embeddings=True)
    assert found["hidden_size"] == 64 and found["num_key_value_heads"] == 2 and found["tie_word_embeddings"] is True
    assert found["max_position_embeddings"] == 256 and found["sliding_window"] is None and found["hidden_act"] == "silu"
    bare = {key: value for key, value in original.PARAMS.items() if key not in ("rope_theta", "max_seq_len")}
    (tmp_path / "params.json").write_text(json.dumps(bare))
    found = mistral_config.engine_create_config_format(Checkpoint("m", str(tmp_path), str(tmp_path), str(tmp_path))).read()
    assert found["max_position_embeddings"] == 128_000 and found["rope_theta"] == 1e6


def test_yarn_quantization_and_vision(tmp_path):
    found = read(tmp_path, yarn={"factor": 4, "original_max_position_embeddings": 64, "beta": 16, "alpha": 2, "apply_scale": False})
    scaling = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64, "beta_fast": 16, "beta_slow": 2}
    assert found["rope_scaling"] == scaling | {"attention_factor": 1.0}
    assert read(tmp_path, quantization={"qformat_weight": "fp8_e4m3"})["quantization_config"] == {
        "quant_method": "fp8", "activation_scheme": "static"}  # fmt: skip
    found = read(tmp_path, vision_encoder={"hidden_dim": 32})
    assert found["architectures"] == ["PixtralForConditionalGeneration"] and found["text_config"]["hidden_size"] == 64
    assert found["vision_config"] == {"intermediate_size": 32}


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"quantization": {"qformat_weight": "int8"}}, "quantization is .*fp8_e4m3"),
        ({"moe": {"num_experts": 4}}, "moe is .*num_experts_per_tok"),
        ({"sliding_window": [4, 8]}, "sliding_window is"),
        ({"llama_4_scaling": {"beta": 1}}, "llama_4_scaling is"),
        ({"n_layers": "two"}, "num_hidden_layers is 'two'"),
    ],
)
def test_params_that_cannot_be_meant(tmp_path, changes, shown):
    with pytest.raises(ModelFileError, match=shown) as caught:
        read(tmp_path, **changes)
    assert str(tmp_path / "params.json") in str(caught.value)


def test_nothing_there(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(original.PARAMS))
    with pytest.raises(ModelFileError, match=r"no consolidated\*\.safetensors"):
        logits_of(tmp_path, load_format="mistral", **FLAGS)
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(ModelFileError, match="dim is missing"):
        logits_of(tmp_path, **FLAGS)
