"""What cannot be quantized, or written, is refused by name, and leaves nothing that looks complete."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from engine.quantize.output import SafetensorsOutput
from tests.quant.checkpoints import tiny_llama
from tests.quantize.runs import plain, quantize


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    torch.manual_seed(0)
    return tiny_llama(tmp_path_factory.mktemp("source") / "llama", dtype=torch.bfloat16)


def said(source, out, method, *flags, status=2):
    return plain(source, out, method, *flags, status=status)["error"]


def test_a_method_that_does_not_exist(llama, tmp_path):
    assert "--method int5: no such plugin. Did you mean int" in said(llama, tmp_path / "out", "int5", status=3)
    assert not (tmp_path / "out").exists()


def test_what_is_missing(llama, tmp_path, capsys):
    from engine.cli import main

    assert main(["quantize", str(llama), "--out", str(tmp_path / "out")]) == 2
    assert "--method is missing. Try: --method int4" in capsys.readouterr().err
    assert main(["quantize", str(llama), "--method", "int4"]) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_a_place_that_is_taken(llama, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "plain").touch()
    assert "is not empty" in said(llama, tmp_path / "full", "int4")
    assert "is a file" in said(llama, tmp_path / "plain", "int4")
    assert (tmp_path / "full" / "file").exists()
    (tmp_path / "empty").mkdir()
    plain(llama, tmp_path / "empty", "int4")
    assert (tmp_path / "empty" / "config.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "plain"]


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--group-size", "96"), "--group-size 96 does not divide the"),
        (("--group-size", "-1"), "--group-size -1: must be 0"),
        (("--ignore", "*.q_prj"), "--ignore *.q_prj: no layer's name matches; one is '"),
        (("--ignore", "*"), "there is no layer that it would quantize"),
        (("--method-config", '{"grop_size": 1}'), "has no option 'grop_size'. It knows: group_size"),
        (("--max-file-size", "0"), "--max-file-size 0.0: must be above 0"),
        (("--tokens", "0"), "--tokens 0: must be above 0"),
        (("--text", "/nowhere/text"), "--text /nowhere/text cannot be read"),
        (("--load-format", "dummy"), "--load-format dummy reads no checkpoint"),
        (("--quantization", "fp8"), "--quantization fp8 quantizes while loading"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_flags_that_cannot_be_meant(llama, tmp_path, flags, cause):
    assert cause in said(llama, tmp_path / "out", "int4", *flags)
    assert not any(tmp_path.iterdir())


def test_methods_say_what_they_have_no_form_for(llama, tmp_path):
    assert "no form for an embedding in 4 bits" in said(llama, tmp_path / "out", "nf4", "--include-head")
    assert "takes no options, but was given 'group_size'" in said(llama, tmp_path / "out", "gguf_q8_0", "--group-size", "64")
    assert not any(tmp_path.iterdir())


def test_a_model_without_room_in_memory_is_quantized_without_perplexity(tmp_path):
    """It is read tensor by tensor; only the measurement loads it."""
    from tests.quantize.runs import quantize

    report = quantize("demo", tmp_path / "out", "int4", "--gpu-memory-utilization", "0.000001")
    assert report["quantized"] == 43 and report["perplexity_after"] is None
    assert "Perplexity was not measured." in report["warnings"][-1] and "--gpu-memory-utilization" in report["warnings"][-1]
    assert (tmp_path / "out" / "config.json").exists()


def test_sources_that_are_no_plain_checkpoints(llama, tmp_path):
    plain(llama, tmp_path / "int4", "int4")
    plain(llama, tmp_path / "gguf", "gguf_q8_0")
    assert "is quantized already (compressed-tensors)" in said(tmp_path / "int4", tmp_path / "out", "int8")
    assert "is a GGUF file" in said(tmp_path / "gguf" / "model-Q8_0.gguf", tmp_path / "out", "int8")
    assert "neither a directory" in said(tmp_path / "nothing", tmp_path / "out", "int8", status=4)
    assert not (tmp_path / "out").exists()


def test_an_architecture_without_a_native_network(llama, tmp_path):
    assert "has no native implementation" in said(llama, tmp_path / "out", "int8", "--model-impl", "transformers")


def test_an_architecture_that_gguf_does_not_have(tmp_path):
    from transformers import AutoModelForCausalLM, OPTConfig

    sizes = {"vocab_size": 160, "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    sizes["word_embed_proj_dim"] = 64
    AutoModelForCausalLM.from_config(OPTConfig(**sizes)).save_pretrained(tmp_path / "opt")
    found = said(tmp_path / "opt", tmp_path / "out", "gguf_q4_0")
    assert "GGUF files of OPTForCausalLM are not known here; known are GPT2LMHeadModel" in found
    plain(tmp_path / "opt", tmp_path / "int8", "int8")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"hidden_act": "gelu"}, "cannot say that the activation is 'gelu'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "cannot say that rope_scaling is 'dynamic'"),
    ],
    ids=["activation", "rope"],
)
def test_what_gguf_cannot_say(llama, tmp_path, change, cause):
    place = tmp_path / "source"
    place.mkdir()
    (place / "model.safetensors").symlink_to(llama / "model.safetensors")
    config = json.loads((llama / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | change))
    assert cause in said(place, tmp_path / "out", "gguf_q4_0")


def test_a_truncated_source(llama, tmp_path):
    place = tmp_path / "source"
    place.mkdir()
    (place / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes()[:-100])
    (place / "config.json").write_bytes((llama / "config.json").read_bytes())
    assert "model.safetensors" in said(place, tmp_path / "out", "int4", status=4)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_tensor_that_is_missing(llama, tmp_path):
    from safetensors.torch import load_file, save_file

    place = tmp_path / "source"
    place.mkdir()
    tensors = load_file(llama / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    (place / "config.json").write_bytes((llama / "config.json").read_bytes())
    assert "lacks 1 tensors of LlamaForCausalLM: model.layers.1.mlp.up_proj.weight" in said(place, tmp_path / "out", "int4", status=4)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_disk_that_is_full(llama, tmp_path, monkeypatch):
    def full(self, name, tensor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SafetensorsOutput, "_write", full)
    found = said(llama, tmp_path / "out", "int4")
    assert "No space left on device" in found and "bytes are free there. Try: --out on another disk" in found
    assert not any(tmp_path.iterdir())


def test_too_little_room_is_known_before(llama, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    assert "10 are free there" in said(llama, tmp_path / "out", "int4")
    assert not any(tmp_path.iterdir())


@contextmanager
def said_first(code, word):
    """A process that runs ``code``, once it has said ``word``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # A shell's background jobs, and what they start, ignore SIGINT.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command, pipe = [sys.executable, "-c", heard + code], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as child:
        assert child.stdout is not None and child.stdout.readline() == f"{word}\n"
        yield child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_an_interrupt_leaves_nothing(llama, tmp_path, number):
    code = f"""
import time
from engine.quantize.output import SafetensorsOutput
add = SafetensorsOutput.add
def slow(self, name, tensor):
    print("writing", flush=True)
    time.sleep(0.2)
    add(self, name, tensor)
SafetensorsOutput.add = slow
from engine.cli import main
raise SystemExit(main(["quantize", {str(llama)!r}, "--method", "int4", "--out", {str(tmp_path / "out")!r}, "--skip-tokenizer-init"]))
"""
    with said_first(code, "writing") as child:
        assert child.stdout is not None and child.stderr is not None
        assert [path.name for path in tmp_path.iterdir()] == [f".out.unfinished-{child.pid}"]
        time.sleep(0.3)
        child.send_signal(number)
        assert child.wait(60) == 130
        assert "engine quantize: interrupted" in child.stderr.read()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_an_interrupt_while_it_measures_leaves_a_whole_checkpoint(llama, tmp_path, number):
    code = f"""
import time
from engine.quantize import quality
def endless(*arguments):
    print("measuring", flush=True)
    time.sleep(60)
quality.perplexity = endless
from engine.cli import main
raise SystemExit(main(["quantize", {str(llama)!r}, "--method", "int4", "--out", {str(tmp_path / "out")!r}, "--skip-tokenizer-init"]))
"""
    with said_first(code, "measuring") as child:
        assert child.stdout is not None and child.stderr is not None
        child.send_signal(number)
        assert child.wait(60) == 130
        assert f"{tmp_path / 'out'} is complete. Perplexity was not measured: interrupted." in child.stdout.read()
        assert "engine quantize: interrupted" in child.stderr.read()
    plain(tmp_path / "out", tmp_path / "again", "int4", status=2)  # it is a checkpoint, quantized already
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_model_without_a_tokenizer_has_no_perplexity(llama, tmp_path, capsys):
    report = quantize(llama, tmp_path / "out", "int4", "--skip-tokenizer-init")
    assert report["perplexity_after"] is None
