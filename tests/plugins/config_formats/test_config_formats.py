"""config.json: what is wrong with it is said by key; several spellings become one; code in it is not run."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Use
from engine_plugins.config_formats import auto, hf
from tests.data import shared

PLAIN = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}


def checkpoint(place: Path) -> Checkpoint:
    return Checkpoint(model=str(place), path="elsewhere", config_path=str(place), tokenizer_path="elsewhere")


def read(tmp_path: Path, **changes: object) -> dict[str, object]:
    (tmp_path / "config.json").write_text(json.dumps(PLAIN | changes))
    return hf.engine_create_config_format(checkpoint(tmp_path)).read()


def test_a_real_config():
    place = shared("stories260k")
    made = hf.engine_create_config_format(checkpoint(place))
    config = made.read()
    written = json.loads((place / "config.json").read_text())
    assert {key: config[key] for key in written if key not in ("dtype", "torch_dtype")} == {
        key: value for key, value in written.items() if key not in ("dtype", "torch_dtype")
    }
    assert config["dtype"] == "float32"
    assert made.generation()["eos_token_id"] == [2, 1]


def test_without_a_generation_config(tmp_path):
    read(tmp_path)
    assert hf.engine_create_config_format(checkpoint(tmp_path)).generation() == {}
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(ModelFileError, match=r"generation_config\.json holds a JSON array"):
        hf.engine_create_config_format(checkpoint(tmp_path)).generation()


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON.*line 1"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", "holds a JSON array where an object was expected"),
        (b"null", "holds a JSON null"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_no_json_object(tmp_path, content, shown):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=shown) as caught:
        hf.engine_create_config_format(checkpoint(tmp_path)).read()
    assert str(tmp_path / "config.json") in str(caught.value) and caught.value.status == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", "two"),
        ("head_dim", 0),
        ("hidden_size", -64),
        ("hidden_size", 64.5),
        ("vocab_size", True),
        ("num_key_value_heads", ["x"]),
        ("tie_word_embeddings", "yes"),
        ("architectures", "LlamaForCausalLM"),
        ("architectures", []),
        ("torch_dtype", "float31"),
        ("dtype", 16),
        ("rope_scaling", "linear"),
        ("text_config", "x"),
    ],
)
def test_values_that_cannot_be_meant(tmp_path, key, value):
    with pytest.raises(ModelFileError) as caught:
        read(tmp_path, **{key: value})
    message = str(caught.value)
    assert key in message and repr(value) in message and "must be" in message


def test_nested_keys_are_named_by_their_path(tmp_path):
    with pytest.raises(ModelFileError, match=r"text_config\.head_dim is 0"):
        read(tmp_path, text_config={"head_dim": 0})


def test_absent_and_null_and_per_layer_sizes_are_fine(tmp_path):
    config = read(tmp_path, head_dim=None, intermediate_size=[128, 256])
    assert config["intermediate_size"] == [128, 256]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "linear", "factor": 2.0}, {"rope_type": "linear", "factor": 2.0}),
        ({"type": "su", "rope_type": "longrope"}, {"rope_type": "longrope"}),
        ({"type": "mrope", "mrope_section": [1, 2]}, {"rope_type": "default", "mrope_section": [1, 2]}),
        ({"rope_type": "llama3"}, {"rope_type": "llama3"}),
    ],
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rope_spellings(tmp_path, key, given, expected):
    assert read(tmp_path, **{key: given})[key] == expected
    assert read(tmp_path, text_config={key: given})["text_config"][key] == expected


def test_rope_per_layer_type(tmp_path):
    given = {"full_attention": {"type": "su"}, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    found = read(tmp_path, rope_parameters=given)["rope_parameters"]
    assert found == {"full_attention": {"rope_type": "longrope"}, "sliding_attention": given["sliding_attention"]}


def test_conflicting_spellings(tmp_path):
    with pytest.raises(ModelFileError, match=r"rope_scaling\.type is 'linear'; it must be the same as"):
        read(tmp_path, rope_scaling={"type": "linear", "rope_type": "yarn"})
    with pytest.raises(ModelFileError, match="torch_dtype is 'float16'"):
        read(tmp_path, torch_dtype="float16", dtype="bfloat16")


@pytest.mark.parametrize(
    "given", [{"torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}, {"torch_dtype": "torch.bfloat16"}]
)
def test_dtype_spellings(tmp_path, given):
    config = read(tmp_path, **given)
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config


def test_code_in_a_config_is_left_out_and_said(tmp_path, caplog):
    nested = {"auto_map": {"AutoConfig": "evil.Config"}, "trust_remote_code": True, "hidden_size": 8}
    with caplog.at_level(logging.WARNING):
        config = read(tmp_path, auto_map={"AutoModel": "evil.Model"}, trust_remote_code=True, text_config=nested)
    assert "--trust-remote-code" in caplog.text and str(tmp_path) in caplog.text
    assert "auto_map" not in json.dumps(config) and "trust_remote_code" not in json.dumps(config)


def test_directories_and_pipes(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelFileError, match="not a regular file"):
        hf.engine_create_config_format(checkpoint(tmp_path)).read()
    (tmp_path / "config.json").rmdir()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelFileError, match="not a regular file"):
        hf.engine_create_config_format(checkpoint(tmp_path)).read()


@pytest.mark.parametrize(("files", "name"), [(["config.json", "params.json"], "hf"), (["params.json"], "mistral")])
def test_auto(tmp_path, files, name):
    for file in files:
        (tmp_path / file).write_text("{}")
    answer = auto.engine_create_config_format(checkpoint(tmp_path))
    assert isinstance(answer, Use) and answer.name == name


def test_auto_names_both_files(tmp_path):
    with pytest.raises(ModelFileError, match=r"neither config\.json nor params\.json"):
        auto.engine_create_config_format(checkpoint(tmp_path))
