"""GGUF models as they are named on the command line: files, directories, split files, configurations, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.checkpoint import single_gguf
from engine.errors import ConfigError, EngineError, ModelFileError
from engine.plugin import Checkpoint
from engine_plugins._gguf.config import read_config
from engine_plugins._gguf.model import GgufModel
from engine_plugins.loaders import gguf as loader
from tests.gguf.files import build, entry, number, tensor, text, write
from tests.gguf.producer import write_gguf
from tests.gguf.test_families import mixed
from tests.quant import checkpoints

pytest.importorskip("gguf")
TINY = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}


def at(path: Path) -> Checkpoint:
    home = str(path.parent if path.is_file() else path)
    return Checkpoint(str(path), str(path), home, home)


def plan(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-m", "engine", "plan", *words], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """A checkpoint, the same as a GGUF file of several types, and the weights that the file means."""
    place = tmp_path_factory.mktemp("model")
    source = checkpoints.tiny_llama(place / "source", **TINY)
    return source, place / "file" / "m.gguf", write_gguf(place / "file" / "m.gguf", source, "llama", mixed)


def test_a_split_model_is_read_from_any_of_its_files(model, tmp_path):
    source, _, _ = model
    meant = write_gguf(tmp_path / "file" / "m.gguf", source, "llama", mixed, split=5)
    files = sorted((tmp_path / "file").iterdir())
    assert files[0].name == f"m-00001-of-{len(files):05}.gguf"
    wanted = checkpoints.logits_of_transformers(source, meant, tmp_path)
    for file in (files[0], files[-1], tmp_path / "file"):
        assert checkpoints.worst(checkpoints.logits_of(file), wanted) < 1e-5
    files[2].unlink()
    with pytest.raises(ModelFileError, match=f"{files[2].name} is missing; the model is split into {len(files)} files"):
        GgufModel(files[0])


def test_shards_that_do_not_belong_together_are_refused(model, tmp_path):
    source, _, _ = model
    write_gguf(tmp_path / "file" / "m.gguf", source, "llama", split=11)
    first, second = sorted((tmp_path / "file").iterdir())
    second.write_bytes(first.read_bytes())
    with pytest.raises(ModelFileError, match=f"is in {first.name} too"):
        GgufModel(first)
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(first.read_bytes())
    with pytest.raises(ModelFileError, match=r"split.count is 2, but 1 files"):
        GgufModel(alone)


def test_a_directory_with_one_model_is_that_model(model, tmp_path):
    _, file, _ = model
    here = at(file.parent)
    assert single_gguf(here, "auto").path == single_gguf(here, "gguf").path == str(file)
    assert single_gguf(here, "dummy") is here
    (tmp_path / "a.gguf").touch()
    (tmp_path / "mmproj-a.gguf").touch()
    assert single_gguf(at(tmp_path), "auto").path == str(tmp_path / "a.gguf")
    (tmp_path / "model.safetensors").touch()
    assert single_gguf(at(tmp_path), "auto").path == str(tmp_path)
    assert single_gguf(at(tmp_path), "gguf").path == str(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ModelFileError, match=r"holds 2 models \(a.gguf, b.gguf\); one is served"):
        single_gguf(at(tmp_path), "gguf")


def test_plan_says_the_types_without_torch(model):
    _, file, _ = model
    found = plan(str(file), "--json", "--skip-tokenizer-init")
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout)
    assert report["quantization"]["types"]["Q4_0"] == 2
    assert report["model"]["architecture"] == "LlamaForCausalLM"
    assert {row["kind"]: row["name"] for row in report["plugins"]}["loader"] == "gguf"
    code = "import sys\nfrom engine.__main__ import main\ntry:\n main()\nexcept SystemExit:\n pass\nprint('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, "plan", str(file), "--skip-tokenizer-init"], capture_output=True, text=True,
                          env=environment, check=False)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_a_method_that_the_file_is_not_of_is_refused(model):
    _, file, _ = model
    with pytest.raises(ConfigError, match="gguf"):
        resolve(EngineArgs(model=str(file), quantization="awq", skip_tokenizer_init=True, device="cpu"))


def test_a_config_beside_the_file_wins_and_keeps_the_types(model, tmp_path):
    source, file, _ = model
    (tmp_path / "m.gguf").write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text()) | {"rms_norm_eps": 0.125, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = resolve(EngineArgs(model=str(tmp_path / "m.gguf"), skip_tokenizer_init=True, device="cpu")).model
    assert found.config["rms_norm_eps"] == 0.125
    assert found.config["tie_word_embeddings"] is False
    assert found.config["quantization_config"]["types"]["lm_head"] == "IQ4_XS"
    elsewhere = EngineArgs(model=str(file), hf_config_path=str(tmp_path), skip_tokenizer_init=True, device="cpu")
    assert resolve(elsewhere).model.config["rms_norm_eps"] == 0.125


def test_loading_is_lazy_and_names_are_those_described(model):
    _, file, meant = model
    made = loader.engine_create_loader(at(file))
    described = {info.name: info for info in made.describe()}
    found = dict(made.tensors())
    assert list(found) == list(described)
    for name, info in described.items():
        assert (str(found[name].dtype), tuple(found[name].shape)) == (f"torch.{info.dtype}", info.shape)
    assert {name.rsplit(".", 1)[0] for name in found} == {name.rsplit(".", 1)[0] for name in meant}
    assert made.nbytes() == sum(tensor.nbytes for tensor in found.values())


def metadata(tmp_path: Path, *more: bytes, tensors: list[bytes] | None = None, data: bytes = b"", architecture: str = "llama") -> GgufModel:
    """A model of the keys that every file has, and more."""
    a = architecture
    sizes = {"block_count": 1, "embedding_length": 64, "attention.head_count": 4, "context_length": 4096}
    keys = [entry("general.architecture", "str", text(a))]
    keys += [entry(f"{a}.{key}", "u32", number("u32", value)) for key, value in sizes.items()]
    own = [tensor("token_embd.weight", (64, 10), 0, 0), *(tensors or [])]
    return GgufModel(write(tmp_path / "m.gguf", build([*keys, *more], own, b"\0" * 2560 + data)))


def ropes(tmp_path: Path, **keys: Any) -> Any:
    kinds = {str: "str", float: "f32", int: "u32"}
    more = []
    for key, value in keys.items():
        raw = text(value) if isinstance(value, str) else number(kinds[type(value)], value)
        more.append(entry(f"llama.rope.{key.replace('__', '.')}", kinds[type(value)], raw))
    return read_config(metadata(tmp_path, *more)).get("rope_scaling")


def test_rope_scaling(tmp_path):
    assert ropes(tmp_path) is None
    assert ropes(tmp_path, scaling__type="none") is None
    assert ropes(tmp_path, scaling__type="linear", scaling__factor=4.0) == {"rope_type": "linear", "factor": 4.0}
    assert ropes(tmp_path, scale_linear=2.0) == {"rope_type": "linear", "factor": 2.0}
    yarn = ropes(tmp_path, scaling__type="yarn", scaling__factor=4.0, scaling__original_context_length=1024)
    assert yarn == {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    with pytest.raises(ModelFileError, match=r"llama.rope.scaling.type is 'spiral'"):
        ropes(tmp_path, scaling__type="spiral")


def test_factors_per_frequency_are_those_of_llama_3(tmp_path):
    factors = [1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0]
    data = b"".join(number("f32", value) for value in factors)
    found = read_config(metadata(tmp_path, tensors=[tensor("rope_freqs.weight", (8,), 0, 2560)], data=data))
    assert found["rope_scaling"] == {
        "rope_type": "longrope", "long_factor": factors, "short_factor": factors, "attention_factor": 1.0,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip


def test_a_scaled_llama_gives_the_logits_of_transformers(tmp_path):
    """The converter keeps llama 3's scaling as factors per frequency alone."""
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 64
    source = checkpoints.tiny_llama(tmp_path / "source", **TINY, rope_parameters={"rope_theta": 10_000.0, **scaling})
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](AutoConfig.from_pretrained(source), "cpu")
    plain = 10_000.0 ** -(torch.arange(0, 64, 2) / 64)

    def factors(writer: Any) -> None:
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())

    meant = write_gguf(tmp_path / "file" / "m.gguf", source, "llama", extra=factors)
    wanted = checkpoints.logits_of_transformers(source, meant, tmp_path)
    assert checkpoints.worst(checkpoints.logits_of(tmp_path / "file" / "m.gguf"), wanted) < 1e-5


REFUSED = {
    "an unknown architecture": ({"architecture": "mamba"}, (), "general.architecture is 'mamba'; known are llama, qwen2"),
    "an unknown tensor": (
        {"tensors": [tensor("blk.0.attn_x.weight", (1,), 0, 2560)], "data": b"\0" * 4}, (), "'blk.0.attn_x.weight' is not one of",
    ),
    "an end of text": (
        {}, (entry("tokenizer.ggml.eos_token_id", "str", text("2")),), "tokenizer.ggml.eos_token_id is '2'; a whole number",
    ),
    "heads that differ": ({}, (entry("llama.attention.value_length", "u32", number("u32", 8)),), "llama.attention.value_length differs"),
    "a text of a number": ({}, (entry("llama.rope.scaling.factor", "str", text("4")),), "llama.rope.scaling.factor is '4'; a number"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_metadata_that_cannot_be_meant_is_named(what, tmp_path):
    keys, more, message = REFUSED[what]
    with pytest.raises(ModelFileError) as caught:
        read_config(metadata(tmp_path, *more, **keys))
    assert message in str(caught.value)


def test_a_missing_key_is_named(tmp_path):
    path = write(tmp_path / "m.gguf", build([entry("general.architecture", "str", text("llama"))], []))
    with pytest.raises(ModelFileError, match=r"llama.block_count is missing; a whole number"):
        read_config(GgufModel(path))


@pytest.mark.parametrize(("name", "damage"), [
    ("a count that overflows", lambda raw: raw[:8] + b"\xff" * 8 + raw[16:]),
    ("truncated", lambda raw: raw[: len(raw) // 2]),
    ("rows of no whole block", lambda raw: raw.replace(b"\2\0\0\0\0\1\0\0", b"\2\0\0\0\1\1\0\0", 1)),
    ("no GGUF", lambda raw: b"PK\3\4" + raw[4:]),
])  # fmt: skip
def test_hostile_files_end_the_command_with_status_4(name, damage, model, tmp_path):
    _, file, _ = model
    path = write(tmp_path / "m.gguf", damage(file.read_bytes()))
    began = time.monotonic()
    found = plan(str(path))
    assert found.returncode == 4, name
    assert "m.gguf" in found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    assert time.monotonic() - began < 10


def test_weights_of_another_shape_than_the_config_are_named(model, tmp_path):
    _, file, _ = model
    changes = {"hidden_size": 512, "head_dim": 64}
    with pytest.raises(EngineError, match=r"asks for|needs|is uint8"):
        checkpoints.logits_of(file, hf_overrides=changes)
