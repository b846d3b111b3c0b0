"""Who provides an architecture: native plugins, transformers' classes, or an error that says what would work."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.errors import ModelFileError
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.model_impls import auto, transformers, vllm

NATIVE = {"LlamaForCausalLM": "engine 0.1", "Qwen3ForCausalLM": "engine 0.1"}


def test_native_takes_the_first_registered_name():
    impl = vllm.engine_create_model_impl()
    assert impl.architecture({"architectures": ["Own", "Qwen3ForCausalLM"]}, NATIVE) == "Qwen3ForCausalLM"


def test_native_names_the_nearest_and_the_way_out():
    with pytest.raises(ModelFileError, match=r"'LlamaForCausalLm'.*LlamaForCausalLM") as caught:
        vllm.engine_create_model_impl().architecture({"architectures": ["LlamaForCausalLm"]}, NATIVE)
    assert caught.value.fix == "--model-impl transformers"


@pytest.mark.parametrize("module", [auto, vllm, transformers])
@pytest.mark.parametrize("names", [None, "LlamaForCausalLM", [], [7]])
def test_architectures_must_be_a_list_of_names(module, names):
    with pytest.raises(ModelFileError, match="architectures"):
        module.engine_create_model_impl().architecture({"architectures": names}, NATIVE)


def test_auto_prefers_native_and_warns_where_there_is_none(caplog):
    impl = auto.engine_create_model_impl()
    assert impl.architecture({"architectures": ["LlamaForCausalLM"]}, NATIVE) == "LlamaForCausalLM"
    assert not caplog.records
    assert isinstance(impl.architecture({"architectures": ["OlmoForCausalLM"]}, NATIVE), ModelArchitecture)
    assert "OlmoForCausalLM" in caplog.text


def test_auto_says_what_both_providers_lack():
    config = {"architectures": ["LlamaForCausalLm"], "model_type": "lama"}
    found = auto.engine_create_model_impl().architecture(config, NATIVE)
    with pytest.raises(ModelFileError, match=r"'LlamaForCausalLm' \(the nearest is LlamaForCausalLM\)\. .*'lama'.*'llama'"):
        found.describe(config)


def test_transformers_never_takes_a_native_one():
    found = transformers.engine_create_model_impl().architecture({"architectures": ["LlamaForCausalLM"]}, NATIVE)
    assert isinstance(found, ModelArchitecture)


def test_the_light_modules_import_neither_torch_nor_transformers():
    code = (
        "import sys, pkgutil, importlib, engine_plugins.models as m, engine_plugins.model_impls.auto, engine_plugins.model_impls.vllm\n"
        "[importlib.import_module(f'engine_plugins.models.{x.name}') for x in pkgutil.iter_modules(m.__path__) if x.name != 'nets']\n"
        "from engine_plugins.models.llama import engine_create_model as make\n"
        "make().describe({'vocab_size': 9, 'hidden_size': 8, 'num_attention_heads': 2, 'num_hidden_layers': 1, 'intermediate_size': 8})\n"
        "print([x for x in ('torch', 'transformers', 'triton') if x in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert run.stdout.strip() == "[]"
