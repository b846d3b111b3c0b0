"""Tensorizer streams: written by the tensorizer library, read under checkpoint names or as the engine's own state."""

from __future__ import annotations

import pytest
import torch

from engine.cli import main
from engine.errors import ConfigError, ModelFileError
from engine.plugin import Checkpoint
from engine.plugin.host import PluginHost
from engine.plugin.kinds import LOADER
from tests.plugins.loaders.s3_server import serving
from tests.quant.checkpoints import logits_of, tensors_of, tiny_llama

tensorizer = pytest.importorskip("tensorizer")

TENSORS = {
    "a.weight": torch.arange(24.0).view(4, 6), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.arange(7, dtype=torch.uint8),
    "d": torch.ones(2, 2).to(torch.float8_e4m3fn),
}  # fmt: skip


def write(file, tensors=TENSORS, **settings):
    file.parent.mkdir(parents=True, exist_ok=True)
    serializer = tensorizer.TensorSerializer(str(file), **settings)
    serializer.write_state_dict(tensors)
    serializer.close()
    return file


def create(place, **options):
    path = str(place)
    return PluginHost().create(LOADER, "tensorizer", checkpoint=Checkpoint(path, path, path, path), info=None, options=options).plugin


def check(loader):
    found = dict(loader.tensors())
    assert found.keys() == TENSORS.keys()
    assert all(found[name].dtype == t.dtype and torch.equal(found[name].float(), t.float()) for name, t in TENSORS.items())
    described = {info.name: (info.dtype, info.shape, info.nbytes) for info in loader.describe()}
    assert described == {name: (str(t.dtype)[6:], tuple(t.shape), t.nbytes) for name, t in TENSORS.items()}


def test_local_streams(tmp_path):
    file = write(tmp_path / "model.tensors")
    check(create(tmp_path, tensorizer_uri=str(file)))
    check(create(tmp_path, tensorizer_uri="model.tensors", verify_hash=True))
    check(create(tmp_path, tensorizer_uri=f"{file}", num_readers=2))


def test_a_hash_that_does_not_fit(tmp_path):
    file = write(tmp_path / "model.tensors")
    data = bytearray(file.read_bytes())
    place = data.rindex(TENSORS["a.weight"].numpy().tobytes()[4:])
    data[place] ^= 255
    file.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"model\.tensors cannot be read.*HashMismatchError"):
        list(create(tmp_path, tensorizer_uri=str(file), verify_hash=True).tensors())


def test_encryption(tmp_path):
    key = tmp_path / "key"
    params = tensorizer.EncryptionParams.random()
    key.write_bytes(params.key)
    file = write(tmp_path / "model.tensors", encryption=params)
    check(create(tmp_path, tensorizer_uri=str(file), encryption_keyfile=str(key)))
    key.write_bytes(bytes(32))
    with pytest.raises(ModelFileError, match="cannot be read"):
        list(create(tmp_path, tensorizer_uri=str(file), encryption_keyfile=str(key)).tensors())
    with pytest.raises(ModelFileError, match="cannot be read"):
        list(create(tmp_path, tensorizer_uri=str(file)).tensors())
    with pytest.raises(ConfigError, match="encryption_keyfile"):
        list(create(tmp_path, tensorizer_uri=str(file), encryption_keyfile=str(tmp_path / "none")).tensors())


def test_http_and_an_object_store(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write(tmp_path / "bucket" / "model.tensors")
    with serving(tmp_path) as (url, asked):
        check(create(tmp_path, tensorizer_uri=f"{url}/bucket/model.tensors"))
        keys = {"s3_access_key_id": "id", "s3_secret_access_key": "secret", "s3_endpoint": url}
        check(create(tmp_path, tensorizer_uri="s3://bucket/model.tensors", **keys))
        monkeypatch.setenv("S3_ENDPOINT_URL", url)
        monkeypatch.setenv("S3_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "secret")
        check(create(tmp_path, tensorizer_uri="s3://bucket/model.tensors"))
        with pytest.raises(ModelFileError, match=r"none\.tensors cannot be read"):
            list(create(tmp_path, tensorizer_uri=f"{url}/bucket/none.tensors").describe())
    assert any("/bucket/model.tensors" in line for line in asked)


@pytest.mark.parametrize(
    ("options", "shown"),
    [({}, "needs the stream's place"), ({"tensorizer_uri": ""}, "needs the stream's place"), ({"uri": "x"}, "no option 'uri'"),
     ({"tensorizer_uri": "x", "num_readers": 0}, "num_readers 0"), ({"tensorizer_uri": 3}, "tensorizer_uri")],
)  # fmt: skip
def test_options_that_cannot_be_meant(tmp_path, options, shown):
    with pytest.raises(ConfigError, match=shown):
        create(tmp_path, **options)


def test_damaged_streams(tmp_path):
    whole = write(tmp_path / "model.tensors").read_bytes()
    for name, content in {"empty": b"", "text": b"no stream at all" * 99, "cut": whole[:300], "short": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=name):
            list(create(tmp_path, tensorizer_uri=str(tmp_path / name)).tensors())
            list(create(tmp_path, tensorizer_uri=str(tmp_path / name)).describe())


def test_a_checkpoint_s_names(tmp_path):
    source = tiny_llama(tmp_path / "in")
    file = write(tmp_path / "model.tensors", tensors_of(source))
    options = {"tensorizer_uri": str(file)}
    found = logits_of(source, load_format="tensorizer", model_loader_extra_config=options)
    for mine, theirs in zip(found, logits_of(source), strict=True):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(ModelFileError, match="lacks the marker"):
        logits_of(source, load_format="tensorizer", model_loader_extra_config=options | {"vllm_tensorized": True})


def test_the_engine_s_own_state_on_two_ranks(tmp_path):
    source = tiny_llama(tmp_path / "in")
    out = tmp_path / "out"
    flags = ["--skip-tokenizer-init", "--dtype", "float32", "--device", "cpu", "-tp", "2"]
    assert main(["save-sharded", str(source), "--out", str(out), "--format", "tensorizer", *flags]) == 0
    options = {"tensorizer_uri": str(out / "model-rank-%04d.tensors")}
    found = logits_of(out, ranks=2, load_format="tensorizer", model_loader_extra_config=options)
    for mine, theirs in zip(found, logits_of(source, ranks=2), strict=True):
        torch.testing.assert_close(mine, theirs)
    options = {"tensorizer_uri": str(out / "model-rank-0000.tensors")}
    with pytest.raises(ConfigError, match="needs a place for the rank"):
        logits_of(out, ranks=2, load_format="tensorizer", model_loader_extra_config=options)
