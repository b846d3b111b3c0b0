"""Which method reads a checkpoint: the config's places, side files, claims of other methods, the flag, and what the plan says of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from engine.args import EngineArgs
from engine.args.quantization import check_dtype, choose_quantization
from engine.checkpoint import locate
from engine.errors import ConfigError, ModelFileError
from engine.plugin import DeviceFacts
from engine.plugin.host import PluginHost
from engine.report import examine, render
from tests.quant.checkpoints import tiny_llama

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
HOST = PluginHost()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("plain"))


def choose(folder, *, device="cpu", load_format="auto", asked=None, files=None, **config):
    """The choice for a config.json of those keys with those side files beside it."""
    (folder / "config.json").write_text("{}")
    for name, content in (files or {}).items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    facts = DeviceFacts(name=device, available=True, reason="")
    args = EngineArgs(model=str(folder), quantization=asked)
    return choose_quantization(args, HOST, locate(str(folder)), config, facts, load_format)


def chosen(folder, **how):
    found = choose(folder, **how)
    return None if found is None else found.choice.name


CLAIMS = [
    # config, device, flag → method
    (GPTQ, "cpu", None, "ipex"),
    (GPTQ, "xpu", None, "ipex"),
    (GPTQ, "cuda", None, "gptq_marlin"),
    (GPTQ, "cpu", "gptq", "gptq"),
    (GPTQ, "cuda", "gptq", "gptq"),
    (GPTQ, "cpu", "gptq_marlin", "gptq_marlin"),
    (GPTQ, "cuda", "marlin", "gptq_marlin"),
    (GPTQ, "cuda", "ipex", "ipex"),
    (GPTQ, "cuda", "moe_wna16", "moe_wna16"),
    (GPTQ | {"bits": 8}, "cpu", None, "gptq"),
    (GPTQ | {"bits": 8}, "cuda", None, "gptq_marlin"),
    (GPTQ | {"bits": 3}, "cuda", None, "gptq"),
    (GPTQ | {"sym": False}, "cuda", None, "gptq"),
    (GPTQ | {"group_size": 16}, "cuda", None, "gptq"),
    (GPTQ | {"checkpoint_format": "marlin"}, "cpu", None, "marlin"),
    (GPTQ | {"is_marlin_format": True}, "cuda", "gptq", "marlin"),
    (GPTQ | {"checkpoint_format": "marlin_24"}, "cpu", None, "gptq_marlin_24"),
    (GPTQ | {"checkpoint_format": "marlin_24"}, "cuda", "gptq_marlin_24", "gptq_marlin_24"),
    (AWQ, "cpu", None, "ipex"),
    (AWQ, "cuda", None, "awq_marlin"),
    (AWQ, "cuda", "awq", "awq"),
    (AWQ, "cpu", "awq_marlin", "awq_marlin"),
    (AWQ, "cpu", "moe_wna16", "moe_wna16"),
    (AWQ | {"group_size": 16}, "cuda", None, "awq"),
    ({"quant_method": "QQQ", "wbits": 4}, "cpu", None, "qqq"),
    ({"quant_method": "compressed_tensors"}, "cpu", None, "compressed-tensors"),
]


@pytest.mark.parametrize(("config", "device", "asked", "method"), CLAIMS)
def test_the_method_of_a_config(config, device, asked, method, tmp_path):
    found = choose(tmp_path, device=device, asked=asked, quantization_config=config)
    assert found.choice.name == method and found.config == config
    assert found.choice.asked == (asked or config["quant_method"].lower())
    assert ("--quantization" if asked else "quantization_config") in found.choice.reason


def test_where_the_config_may_stand(tmp_path):
    assert chosen(tmp_path) is None
    assert chosen(tmp_path, text_config={"quantization_config": AWQ}) == "ipex"
    assert chosen(tmp_path, compression_config={"format": "pack-quantized"}) == "compressed-tensors"
    assert chosen(tmp_path, quantization_config=GPTQ | {"bits": 8}, compression_config={"format": "x"}) == "gptq"
    for wrong in ({"bits": 4}, {"quant_method": 4}, "gptq", []):
        with pytest.raises(ModelFileError, match=r"quantization_config\.quant_method is"):
            choose(tmp_path, quantization_config=wrong)


@pytest.mark.parametrize(
    ("files", "asked", "method"),
    [
        ({"quantize_config.json": {"bits": 8, "group_size": 32, "desc_act": False}}, None, "gptq"),
        ({"quantize_config.json": {"bits": 4, "group_size": 32, "desc_act": False}}, "gptq", "gptq"),
        ({"quantize_config.json": GPTQ | {"bits": 3}}, None, "gptq"),
        ({"quant_config.json": {"w_bit": 4, "q_group_size": 128, "zero_point": True}}, None, "ipex"),
        ({"quant_config.json": {"w_bit": 4, "q_group_size": 128, "zero_point": True}}, "awq", "awq"),
        ({"quant_config.json": {"wbits": 4, "group_size": -1}}, None, "qqq"),
        ({"quant_config.json": {"quant_method": "qqq", "wbits": 4}}, None, "qqq"),
        ({"other_quant_config.json": GPTQ}, None, None),
    ],
)
def test_side_files(files, asked, method, tmp_path):
    assert chosen(tmp_path, files=files, asked=asked) == method


def test_the_config_of_the_model_goes_before_a_side_file(tmp_path):
    found = choose(tmp_path, files={"quantize_config.json": GPTQ | {"bits": 3}}, quantization_config=GPTQ | {"bits": 8})
    assert found.config["bits"] == 8 and found.source == "config.json: quantization_config"


def test_side_files_that_cannot_be_meant(tmp_path):
    both = {"quant_config.json": {"w_bit": 4}, "quantize_config.json": {"w_bit": 4}}
    with pytest.raises(ModelFileError, match=r"the model has quant_config\.json and quantize_config\.json"):
        choose(tmp_path, files=both, asked="awq")
    (tmp_path / "quantize_config.json").unlink()
    for content, message in (("{", "cannot be read as JSON"), ("[1]", "holds list"), ("\xff\xfe", "JSON")):
        with pytest.raises(ModelFileError, match=message):
            choose(tmp_path, files={"quant_config.json": content}, asked="awq")


def test_a_contradiction_names_both(tmp_path):
    for config, asked in ((GPTQ, "awq"), (AWQ, "gptq"), (GPTQ, "fp8"), (AWQ, "gptq_marlin"), (GPTQ | {"quant_method": "hqq"}, "gptq")):
        with pytest.raises(ConfigError) as caught:
            choose(tmp_path, asked=asked, quantization_config=config)
        assert f"--quantization {asked} contradicts" in str(caught.value) and f"says {config['quant_method']}" in str(caught.value)
        assert caught.value.fix == f"--quantization {config['quant_method']}"
    with pytest.raises(ConfigError, match="--quantization qqq contradicts the checkpoint: quantize_config.json says gptq"):
        choose(tmp_path, asked="qqq", files={"quantize_config.json": GPTQ})


@pytest.mark.parametrize(
    ("config", "asked", "message"),
    [
        (GPTQ | {"sym": False}, "gptq_marlin", "sym is False; it must be true"),
        (GPTQ | {"bits": 3}, "gptq_marlin", "bits is 3; it must be 4 or 8"),
        (GPTQ | {"desc_act": True}, "moe_wna16", "gptq has desc_act"),
        (AWQ | {"bits": 8}, "moe_wna16", "awq has 8 bits"),
        (GPTQ | {"bits": 8}, "ipex", "it must have 4"),
        (AWQ | {"group_size": 16}, "awq_marlin", "groups of 16"),
    ],
)
def test_methods_that_are_asked_for_say_what_they_cannot_read(config, asked, message, tmp_path):
    with pytest.raises(ConfigError, match=re.escape(message)):
        choose(tmp_path, asked=asked, quantization_config=config)


def test_methods_without_a_config(tmp_path):
    found = choose(tmp_path, asked="fp8")
    assert found.config is None and found.choice.name == "fp8"
    with pytest.raises(ModelFileError, match=r"no quantization_config in config\.json, and no quantize_config\.json"):
        choose(tmp_path, asked="gptq")
    with pytest.raises(ModelFileError, match=r"--quantization gptq_marlin_24 reads checkpoints that are quantized already"):
        choose(tmp_path, asked="gptq_marlin_24")


def test_weights_that_are_invented_are_not_quantized(plain, tmp_path):
    with pytest.raises(ConfigError, match="--load-format dummy invents plain weights") as caught:
        choose(tmp_path, load_format="dummy", quantization_config=GPTQ)
    assert caught.value.fix == "--hf-overrides '{\"quantization_config\": null}'"
    assert plan(plain, load_format="dummy", hf_overrides={"quantization_config": None})[1] is None


def test_a_dtype_beside_the_definition_warns_on_the_cpu_and_is_refused_elsewhere(tmp_path):
    found = choose(tmp_path, asked="gptq", quantization_config=GPTQ)
    cpu, cuda = (DeviceFacts(name=name, available=True, reason="") for name in ("cpu", "cuda"))
    assert check_dtype(found, "float16", cuda) == []
    assert check_dtype(found, "bfloat16", cpu) == [
        "Quantization gptq is defined for activations in float16, not in bfloat16; cpu computes it all the same."
    ]
    with pytest.raises(ConfigError, match="float16, not in bfloat16") as caught:
        check_dtype(found, "bfloat16", cuda)
    assert caught.value.fix == "--dtype float16"


def plan(path, **flags):
    return examine(EngineArgs(model=str(path), device="cpu", skip_tokenizer_init=True, **flags))


def test_the_plan_shows_the_method_and_why(plain):
    found, error = plan(plain, hf_overrides={"quantization_config": GPTQ | {"bits": 4, "desc_act": True}})
    assert error is None
    assert found["quantization"] == {
        "method": "ipex", "config": "config.json: quantization_config", "bits": 4, "group": 32, "zero points": "none",
        "order of inputs": "by activation", "kernels": {"grouped_int 4": "a kernel of cpu"},
    }  # fmt: skip
    row = next(row for row in found["plugins"] if row["kind"] == "quantization")
    assert (row["name"], row["asked"], row["reason"]) == ("ipex", "gptq", "config.json: quantization_config says gptq; 4 bits on cpu")
    text = render(found)
    assert "quantized  ipex: config config.json: quantization_config, bits 4, group 32" in text
    assert "quantization    ipex (for gptq): config.json: quantization_config says gptq; 4 bits on cpu" in text
    assert plan(plain)[0]["quantization"] is None


def test_the_plan_refuses_configs_that_the_method_cannot_read(plain):
    found, error = plan(plain, hf_overrides={"quantization_config": GPTQ | {"bits": 5}})
    assert isinstance(error, ModelFileError) and "bits is 5" in found["refused"][0]["cause"]


ALL = {
    "gptq": GPTQ | {"bits": 8}, "awq": AWQ, "qqq": {"quant_method": "qqq", "wbits": 4},
    "marlin": GPTQ | {"checkpoint_format": "marlin", "group_size": 128},
    "gptq_marlin_24": GPTQ | {"checkpoint_format": "marlin_24", "group_size": 128},
    "hqq": {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}},
    "fp8": {"quant_method": "fp8"}, "fbgemm_fp8": {"quant_method": "fbgemm_fp8"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "aqlm": {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": 1, "nbits_per_codebook": 8},
}  # fmt: skip


def test_planning_imports_no_torch(plain):
    code = f"""
import json, sys
from engine.args import EngineArgs
from engine.report import examine
for method, config in json.loads({json.dumps(ALL)!r}).items():
    args = EngineArgs(model={str(plain)!r}, device="cpu", skip_tokenizer_init=True, hf_overrides={{"quantization_config": config}})
    found, error = examine(args)
    assert error is None, (method, error)
    heavy = sorted({{"torch", "transformers", "triton"}} & set(sys.modules))
    assert not heavy, (method, heavy)
    assert found["quantization"]["method"] in (method, "ipex")
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
