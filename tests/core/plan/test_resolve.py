"""From flags to the configuration: every decision and every refusal that needs a model."""

from __future__ import annotations

import json

import msgspec
import pytest

from engine.args.resolve import resolve
from engine.config import EngineConfig
from engine.errors import ConfigError, EngineError, ModelFileError, PluginError, UnavailablePlugin
from tests.core.plan.checkpoints import write_llama


def test_the_whole_configuration(arguments, host, llama):
    config = resolve(arguments(served_model_name=["tiny"], seed=7, max_num_seqs=8, max_num_batched_tokens=64), host)
    assert config.model.checkpoint.path == str(llama)
    assert (config.model.info.architecture, config.model.max_model_len, config.model.task) == ("LlamaForCausalLM", 256, "generate")
    assert (config.model.served_names, config.model.seed) == (("tiny",), 7)
    assert (config.scheduler.max_num_seqs, config.scheduler.max_num_batched_tokens, config.scheduler.chunked_prefill) == (8, 64, True)
    assert {kind: choice.name for kind, choice in config.choices.items()} == {
        "device": "fake", "config_format": "hf", "model_impl": "auto", "model": "LlamaForCausalLM", "task": "generate",
        "tokenizer": "auto", "policy": "fcfs", "executor": "uni", "loader": "safetensors", "kv_cache_dtype": "auto",
        "preemption": "recompute",
    }  # fmt: skip
    assert config.choices["loader"].asked == "auto"
    assert (config.cache.block_size, config.cache.host_pages, config.cache.prefix_caching) == (16, 0, True)


def test_it_travels_between_processes(arguments, host):
    config = resolve(arguments(hf_overrides={"rope_theta": 5.0}), host)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=EngineConfig) == config
    json.dumps(config.plan)


def test_the_seed_is_fresh_where_none_is_given(arguments, host):
    assert resolve(arguments(), host).model.seed != resolve(arguments(), host).model.seed


@pytest.mark.parametrize(
    ("checkpoint", "flag", "device", "dtype"),
    [
        ("float32", "auto", "fake", "float16"),
        ("float32", "auto", "cpu", "float32"),
        ("float16", "auto", "fake", "float16"),
        ("bfloat16", "auto", "fake", "float16"),
        ("bfloat16", "auto", "cpu", "bfloat16"),
        ("float16", "float", "fake", "float32"),
        ("float32", "half", "fake", "float16"),
    ],
)
def test_dtype(arguments, host, tmp_path, checkpoint, flag, device, dtype):
    model = write_llama(tmp_path / "m", torch_dtype=checkpoint)
    assert resolve(arguments(model=str(model), dtype=flag, device=device), host).model.dtype == dtype


def test_a_dtype_that_the_device_lacks(arguments, host):
    with pytest.raises(ConfigError, match="--dtype bfloat16: fake .* has float16, float32"):
        resolve(arguments(dtype="bfloat16"), host)


def test_length(arguments, host, monkeypatch):
    assert resolve(arguments(max_model_len=100), host).model.max_model_len == 100
    with pytest.raises(ConfigError, match="--max-model-len 257 is more than the 256 tokens") as caught:
        resolve(arguments(max_model_len=257), host)
    assert caught.value.fix == "--max-model-len 256"
    monkeypatch.setenv("ENGINE_ALLOW_LONG_MAX_MODEL_LEN", "1")
    config = resolve(arguments(max_model_len=257), host)
    assert (config.model.max_model_len, config.model.info.max_model_len) == (257, 257)
    assert "outputs may be wrong" in config.plan["warnings"][0]


def test_rope_flags_reach_the_model(arguments, host):
    config = resolve(arguments(rope_scaling={"rope_type": "linear", "factor": 2.0}, rope_theta=5000.0), host)
    assert config.model.config["rope_theta"] == 5000.0
    assert config.model.info.max_model_len == 512


def test_rope_flags_replace_rope_parameters(arguments, host, tmp_path):
    model = write_llama(tmp_path / "m", rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0})
    config = resolve(arguments(model=str(model), rope_theta=9.0), host).model
    assert (config.config["rope_theta"], config.info.max_model_len) == (9.0, 512)
    config = resolve(arguments(model=str(model), rope_scaling={"rope_type": "linear", "factor": 3.0}), host).model
    assert config.info.max_model_len == 768


def test_overrides_come_before_everything(arguments, host):
    config = resolve(arguments(hf_overrides={"max_position_embeddings": 64}), host)
    assert config.model.max_model_len == 64
    with pytest.raises(ModelFileError, match="num_hidden_layers"):
        resolve(arguments(hf_overrides={"num_hidden_layers": 10**9}), host)


def test_disable_sliding_window(arguments, host, tmp_path):
    model = write_llama(tmp_path / "m", sliding_window=32)
    config = resolve(arguments(model=str(model), disable_sliding_window=True), host)
    assert config.model.max_model_len == 32
    assert all(spec.window is None for spec in config.model.info.layers)


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"tensor_parallel_size": 3}, ConfigError, "does not divide the model's 4 attention heads"),
        ({"max_num_batched_tokens": 64, "enable_chunked_prefill": False}, ConfigError, "smaller than the model length 256"),
        ({"max_num_partial_prefills": 2, "long_prefill_token_threshold": 300}, ConfigError, "--long-prefill-token-threshold 300"),
        ({"model_loader_extra_config": {"a": 1}}, ConfigError, "takes no options"),
        ({"hf_overrides": {"architectures": []}}, ModelFileError, "architectures is []"),
        ({"hf_overrides": {"architectures": ["Nothing"]}}, ModelFileError, "none is registered"),
        ({"hf_overrides": {"quantization_config": {"quant_method": "gptr"}}}, PluginError, "quantization gptr"),
        ({"hf_overrides": {"quantization_config": {"bits": 4}}}, ModelFileError, "quant_method is None"),
        ({"hf_overrides": {"eos_token_id": 2}, "override_generation_config": {"eos_token_id": 10**6}}, ConfigError, "eos_token_id"),
        ({"override_generation_config": {"temprature": 1}}, ConfigError, "temprature: not among"),
        ({"override_generation_config": {"temperature": -1}}, ConfigError, "temperature is -1"),
        ({"override_generation_config": {"top_p": True}}, ConfigError, "top_p is True"),
        ({"generation_config": "/nowhere"}, ConfigError, "--generation-config /nowhere"),
    ],
)
def test_refusals(arguments, host, values, error, says):
    with pytest.raises(error) as caught:
        resolve(arguments(**values), host)
    assert says in str(caught.value)
    assert caught.value.fix or error is ModelFileError


def test_generation_defaults(arguments, host, llama, tmp_path):
    (llama / "generation_config.json").write_text('{"temperature": 0.7, "top_k": 0, "max_new_tokens": 9, "eos_token_id": [2, 5]}')
    config = resolve(arguments(), host)
    assert config.server.default_sampling == {"temperature": 0.7, "top_k": -1}
    assert config.server.max_new_tokens == 9
    assert config.model.info.eos_token_ids == (2, 5)
    config = resolve(arguments(override_generation_config={"temperature": 0.1, "eos_token_id": 7}), host)
    assert config.server.default_sampling["temperature"] == 0.1
    assert config.model.info.eos_token_ids == (7,)
    config = resolve(arguments(generation_config="vllm"), host)
    assert (config.server.default_sampling, config.model.info.eos_token_ids) == ({}, (2,))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "generation_config.json").write_text('{"top_p": 0.5}')
    assert resolve(arguments(generation_config=str(tmp_path / "other")), host).server.default_sampling == {"top_p": 0.5}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("temperature", -1, "temperature is -1"), ("top_k", "9", "top_k is '9'"), ("eos_token_id", [-3], "eos_token_id is")],
)
def test_a_bad_value_is_told_of_where_it_stands(arguments, host, llama, key, value, says):
    with pytest.raises(ConfigError, match="^--override-generation-config: ") as caught:
        resolve(arguments(override_generation_config={key: value}), host)
    assert says in str(caught.value)
    (llama / "generation_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(ModelFileError, match="^generation_config.json") as refused:
        resolve(arguments(), host)
    assert says in str(refused.value) and refused.value.fix == "--generation-config vllm"
    assert resolve(arguments(generation_config="vllm"), host).server.default_sampling == {}


def test_server_settings(arguments, host, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "from-the-environment")
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    config = resolve(arguments(api_key=["k"], chat_template=str(tmp_path / "t.jinja"), port=0, allowed_origins=["x"]), host).server
    assert config.api_keys == ("k", "from-the-environment")
    assert (config.chat_template, config.host, config.port, config.allowed_origins) == ("{{ messages }}", "127.0.0.1", 0, ("x",))


def test_devices(arguments, host, monkeypatch):
    assert resolve(arguments(device="auto"), host).choices["device"].name == "fake"  # the highest priority
    monkeypatch.setenv("FAKE_GONE", "1")
    assert resolve(arguments(device="auto"), host).choices["device"].name == "cpu"
    with pytest.raises(UnavailablePlugin, match="--device fake: not available here .no fake is plugged in.") as caught:
        resolve(arguments(), host)
    assert caught.value.fix == "--device cpu"


def test_workers(arguments, host):
    config = resolve(arguments(tensor_parallel_size=2), host)
    assert (config.choices["executor"].name, config.parallel.tensor_parallel) == ("mp", 2)
    assert config.cache.page_bytes * 2 == resolve(arguments(), host).cache.page_bytes


def test_no_tokenizer(arguments, host):
    config = resolve(arguments(skip_tokenizer_init=True), host)
    assert "tokenizer" not in config.choices
    assert config.model.skip_tokenizer_init


@pytest.mark.parametrize("content", ["", "[]", "{", '{"architectures": 3}', '{"architectures": ["LlamaForCausalLM"]}'])
def test_damaged_configs_end_with_status_4(arguments, host, llama, content):
    (llama / "config.json").write_text(content)
    with pytest.raises(EngineError) as caught:
        resolve(arguments(), host)
    assert caught.value.status == 4


def test_a_damaged_gguf_file_is_named(arguments, host, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    with pytest.raises(ModelFileError, match=r"m\.gguf: the file is truncated") as caught:
        resolve(arguments(model=str(tmp_path / "m.gguf")), host)
    assert caught.value.status == 4


def test_rope_flags_replace_parameters_beside_empty_keys(arguments, host, tmp_path):
    table = {"rope_type": "default", "rope_theta": 7.0}
    model = write_llama(tmp_path / "m", rope_parameters=table, rope_scaling=None, rope_theta=None)
    assert resolve(arguments(model=str(model), rope_theta=9.0), host).model.config["rope_theta"] == 9.0
    found = resolve(arguments(model=str(model), rope_scaling={"rope_type": "linear", "factor": 2.0}), host).model
    assert (found.config["rope_theta"], found.info.max_model_len) == (7.0, 512)


def test_swap_space_that_nothing_uses_is_said(arguments, host):
    assert "--swap-space 2 is not used" in resolve(arguments(swap_space=2.0), host).plan["warnings"][0]
    assert resolve(arguments(swap_space=0.01, preemption_mode="swap"), host).plan["warnings"] == []


@pytest.mark.parametrize(
    ("key", "value"), [("top_p", 0), ("top_p", 1.1), ("repetition_penalty", 0), ("repetition_penalty", 2.5), ("temperature", True)]
)
def test_request_defaults_are_what_a_request_may_say(arguments, host, key, value):
    with pytest.raises(ConfigError, match=f"--override-generation-config: {key} is {value}"):
        resolve(arguments(override_generation_config={key: value}), host)


def test_an_open_server_without_a_key_is_warned_of(arguments, host, monkeypatch):
    for name in ("ENGINE_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert "--host 0.0.0.0 without --api-key" in resolve(arguments(host="0.0.0.0"), host).plan["warnings"][0]
    assert resolve(arguments(host="0.0.0.0", api_key=["k"]), host).plan["warnings"] == []
    assert resolve(arguments(host="localhost"), host).plan["warnings"] == []
