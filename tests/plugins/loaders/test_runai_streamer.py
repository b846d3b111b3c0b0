"""The Run:ai streamer: local files and an object store give the same tensors as the safetensors loader."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoint import locate
from engine.errors import ConfigError, ModelFileError
from engine.plugin import Checkpoint
from engine.plugin.host import PluginHost
from engine.plugin.kinds import LOADER
from tests.plugins.loaders.s3_server import serving

pytest.importorskip("runai_model_streamer")

TENSORS = {
    "a": torch.arange(24.0).view(4, 6), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.arange(7, dtype=torch.uint8),
    "d": torch.ones(2, 2).to(torch.float8_e4m3fn),
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("RUNAI_STREAMER_CONCURRENCY", "RUNAI_STREAMER_MEMORY_LIMIT", "RUNAI_STREAMER_S3_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def create(place, options=None, model=None):
    path = str(place)
    checkpoint = Checkpoint(model or path, path, path, path)
    return PluginHost().create(LOADER, "runai_streamer", checkpoint=checkpoint, info=None, options=options or {}).plugin


def write(place):
    place.mkdir(parents=True, exist_ok=True)
    names = list(TENSORS)
    save_file({name: TENSORS[name] for name in names[:2]}, place / "model-1.safetensors")
    save_file({name: TENSORS[name] for name in names[2:]}, place / "model-2.safetensors")
    (place / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')


def check(loader):
    found = dict(loader.tensors())
    assert found.keys() == TENSORS.keys()
    assert all(found[name].dtype == t.dtype and torch.equal(found[name].float(), t.float()) for name, t in TENSORS.items())
    described = {info.name: (info.dtype, info.shape, info.nbytes) for info in loader.describe()}
    assert described == {name: (str(t.dtype)[6:], tuple(t.shape), t.nbytes) for name, t in TENSORS.items()}


def test_local_files_and_options(tmp_path):
    write(tmp_path)
    check(create(tmp_path, {"concurrency": 2, "memory_limit": 0}))
    assert (os.environ["RUNAI_STREAMER_CONCURRENCY"], os.environ["RUNAI_STREAMER_MEMORY_LIMIT"]) == ("2", "0")


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"memory_limit": -2}, {"concurrency": "four"}, {"threads": 4}])
def test_options_that_cannot_be_meant(tmp_path, options):
    write(tmp_path)
    with pytest.raises(ConfigError, match=next(iter(options))):
        create(tmp_path, options)


def test_damaged_files_are_found_before_streaming(tmp_path):
    write(tmp_path)
    file = tmp_path / "model-2.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ModelFileError, match=r"model-2\.safetensors: the file is truncated"):
        list(create(tmp_path).tensors())


def test_an_object_store(tmp_path, monkeypatch):
    pytest.importorskip("runai_model_streamer_s3")
    write(tmp_path / "bucket" / "models" / "one")
    for name, value in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_DEFAULT_REGION": "us-east-1",
                        "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0", "AWS_EC2_METADATA_DISABLED": "true"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    model, folder = "s3://bucket/models/one", str(tmp_path / "cache")
    with serving(tmp_path) as (url, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        place = locate(model, download_dir=folder)
        assert sorted(os.listdir(place.path)) == [".config.json.etag", "config.json"] and place.model == model
        fetched = sum(line.startswith("GET /bucket/models/one/config.json") for line in asked)
        locate(model, download_dir=folder)
        assert sum(line.startswith("GET /bucket/models/one/config.json") for line in asked) == fetched, "fetched once"
        auto = PluginHost().create(LOADER, "auto", checkpoint=place, info=None, options={})
        assert auto.choice.name == "runai_streamer"
        check(auto.plugin)
        with pytest.raises(ModelFileError, match="nothing under that prefix"):
            locate("s3://bucket/models/none", download_dir=folder)
    with pytest.raises(ModelFileError, match="the object store does not give it"):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        locate(model, download_dir=folder)


def test_a_rank_asks_no_other(tmp_path, monkeypatch):
    """Ranks that load in turns would wait for each other for ever."""
    write(tmp_path)
    answers = {"is_initialized": True, "get_world_size": 2, "get_rank": 1}
    for name, value in answers.items():
        monkeypatch.setattr(torch.distributed, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.distributed, "new_group", lambda **_: pytest.fail("it waits for the other ranks"))
    loader = create(tmp_path)
    loader.serve_rank(1, 2)
    check(loader)
