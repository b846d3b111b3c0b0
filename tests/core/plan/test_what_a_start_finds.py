"""engine plan ends with the status that a start would end with: tensors that do not fit, bad tokenizers and templates."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file, save_file

from engine.args.engine_args import EngineArgs
from engine.args.resolve import resolve
from engine.checkpoint import BUNDLED
from engine.cli import main

GATE, NORM = "model.layers.0.mlp.gate_proj.weight", "model.norm.weight"


@pytest.fixture
def place(tmp_path):
    shutil.copytree(BUNDLED / "demo", tmp_path / "demo")
    return tmp_path / "demo"


def tensors(change):
    def spoil(place):
        file = place / "model.safetensors"
        found = load_file(file)
        change(found)
        save_file(found, file)

    return spoil


def config(**changes):
    def spoil(place):
        file = place / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def text(name, content):
    return lambda place: (place / name).write_text(content)


CASES = {
    "a shape": (tensors(lambda t: t.update({GATE: t[GATE][:-1].clone()})), rf"'{GATE}' has shape"),
    "a norm": (tensors(lambda t: t.update({NORM: t[NORM][:-1].clone()})), rf"'{NORM}' has shape"),
    "a layer gone": (tensors(lambda t: [t.pop(n) for n in list(t) if ".layers.1." in n]), "no tensor of layer 1"),
    "fewer layers": (config(num_hidden_layers=1, layer_types=["full_attention"]), "is of layer"),
    "another width": (config(intermediate_size=100), "configuration asks for"),
    "no tokenizer": (text("tokenizer.json", "{"), "tokenizer.json"),
    "half a tokenizer": (text("tokenizer.json", '{"model": {"type": "BPE"}}'), "tokenizer.json"),
    "a template": (text("chat_template.jinja", "{% if %}"), "chat template cannot be compiled"),
}


@pytest.mark.parametrize("name", CASES)
def test_status_4(place, name, capsys):
    spoil, shown = CASES[name]
    spoil(place)
    began = time.monotonic()
    assert main(["plan", str(place)]) == 4
    assert time.monotonic() - began < 2
    assert re.search(shown, capsys.readouterr().err)


def test_the_whole_model_is_fine(place, capsys):
    assert main(["plan", str(place)]) == 0
    assert main(["plan", str(place), "--chat-template", "{% if %}"]) == 4
    assert main(["plan", str(place), "--chat-template", "{% if %}", "--skip-tokenizer-init"]) == 2


def test_more_tokens_than_logits(place, capsys):
    file = place / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append({**content["added_tokens"][-1], "id": 5000, "content": "<more>"})
    file.write_text(json.dumps(content))
    assert main(["plan", str(place)]) == 0
    assert "prompts with the others are refused" in capsys.readouterr().out


def test_torch_stays_unimported():
    code = "import sys; from engine.cli import main; main(['plan', 'demo']); print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.stdout.splitlines()[-1] == "[]"


def test_overrides_that_nobody_reads():
    made = resolve(EngineArgs(model="demo", hf_overrides={"rope_tetha": 5.0, "vocab_size": 2048, "quite_another_thing": 1}))
    notes = [note for note in made.plan["warnings"] if "--hf-overrides" in note]
    assert len(notes) == 2 and "Did you mean rope_theta?" in notes[0]


@pytest.mark.parametrize("kind", ["llama", "mixtral", "qwen3_moe"])
def test_dummy_weights_are_counted_without_files(tmp_path, kind):
    from tests.quant import checkpoints

    place = getattr(checkpoints, f"tiny_{kind}")(tmp_path / "m")
    flags = {"model": str(place), "load_format": "dummy", "skip_tokenizer_init": True, "device": "cpu", "dtype": "float32"}
    with_files = resolve(EngineArgs(**flags)).plan["weights"]["bytes"]
    for file in place.glob("*.safetensors*"):
        file.unlink()
    found = resolve(EngineArgs(**flags)).plan
    assert with_files * 0.99 < found["weights"]["bytes"] <= with_files * 1.01
