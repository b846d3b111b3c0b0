"""PyTorch files without running what they name, and invented weights."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ModelFileError
from engine.plugin import Checkpoint
from engine_plugins.loaders import dummy, pt


def checkpoint(place: Path) -> Checkpoint:
    return Checkpoint(model=str(place), path=str(place), config_path=str(place), tokenizer_path=str(place))


def loader(place: Path):
    return pt.engine_create_loader(checkpoint(place))


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.uint16]


def sample() -> OrderedDict[str, torch.Tensor]:
    tensors = OrderedDict((str(dtype), torch.arange(12).reshape(3, 4).to(dtype)) for dtype in DTYPES)
    tensors["parameter"] = torch.nn.Parameter(torch.ones(2))
    base = torch.arange(10.0)
    tensors["view"] = base[2:8].view(2, 3).t()
    return tensors


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts(tmp_path, name, zipped):
    expected = sample()
    if not zipped:
        del expected["torch.uint16"], expected["torch.float8_e4m3fn"]  # the old format has no names for them
    torch.save(expected, tmp_path / name, _use_new_zipfile_serialization=zipped)
    made = loader(tmp_path)
    for _ in range(2):
        found = dict(made.tensors())
        assert list(found) == list(expected)
        assert all(torch.equal(found[key].float(), expected[key].detach().float()) for key in expected)
        assert all(found[key].dtype == expected[key].dtype and not found[key].requires_grad for key in expected)
    described = {info.name: (f"torch.{info.dtype}", info.shape, info.nbytes) for info in made.describe()}
    assert described == {key: (str(t.dtype), tuple(t.shape), t.nbytes) for key, t in expected.items()}


class _Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch ran-by-the-pickle",)


def test_malicious_pickles_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1), "b": _Evil()}, file)
    for read in (lambda: list(loader(tmp_path).describe()), lambda: list(loader(tmp_path).tensors())):
        with pytest.raises(ModelFileError, match=r"wants to run posix\.system") as caught:
            read()
        assert str(file) in str(caught.value)
    file.write_bytes(pickle.dumps({"a": _Evil()}))
    with pytest.raises(ModelFileError, match="cannot be read as weights"):
        list(loader(tmp_path).tensors())
    assert not (tmp_path / "ran-by-the-pickle").exists()


def rewrite(file: Path, change) -> None:
    """Write the archive anew with ``change(name, content)`` for each member; None leaves it out."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            changed = change(name, content)
            if changed is not None:
                archive.writestr(name, changed)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (
            lambda name, content: content[:4] if "/data/" in name else content,
            "'a': its storage needs 400 bytes, the file has 4",
        ),
        (lambda name, content: None if "/data/" in name else content, "needs 400 bytes, the file has 0"),
        (lambda name, content: None if name.endswith("data.pkl") else content, "has no data.pkl"),
        (lambda name, content: content[:20] if name.endswith("data.pkl") else content, "damaged pickle"),
        (lambda name, content: pickle.dumps([1]) if name.endswith("data.pkl") else content, "holds a list"),
        (lambda name, content: pickle.dumps({"a": 1}) if name.endswith("data.pkl") else content, "holds 'a': int"),
    ],
)
def test_damaged_archives(tmp_path, change, shown):
    file = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(100)}, file)
    rewrite(file, change)
    with pytest.raises(ModelFileError, match=shown):
        list(loader(tmp_path).tensors())


def test_a_truncated_archive(tmp_path):
    file = tmp_path / "model.pt"
    torch.save({"a": torch.zeros(1000)}, file)
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ModelFileError, match=r"model\.pt"):
        list(loader(tmp_path).tensors())


def test_a_compressed_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(10_000_000))
    with pytest.raises(ModelFileError, match="is compressed"):
        list(loader(tmp_path).describe())


def test_index_of_bin_shards_and_duplicates(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"a": torch.ones(1)}, tmp_path / "pytorch_model-2.bin")
    with pytest.raises(ModelFileError, match="'a' is in two files"):
        list(loader(tmp_path).tensors())
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-2.bin"}}')
    assert next(loader(tmp_path).tensors())[1].item() == 1


def test_dummy_fills_by_size_and_dtype_alone(tmp_path):
    made = dummy.engine_create_loader(checkpoint(tmp_path))
    assert list(made.tensors()) == [] and not made.complete() and made.nbytes() == 0
    first, second, third = torch.zeros(8, 8), torch.ones(64), torch.ones(63)
    assert made.invent("a", first) and made.invent("b", second) and made.invent("c", third)
    assert torch.equal(first.view(-1), second)
    assert first.abs().max() <= 1e-3 and first.std() > 3e-4
    for dtype, bound in ((torch.bfloat16, 1.01e-3), (torch.float8_e4m3fn, 2**-9)):  # fp8's smallest number
        small = torch.zeros(64, dtype=dtype)
        assert made.invent("d", small)
        assert small.float().abs().max() <= bound and small.float().isfinite().all()
    whole = torch.ones(4, dtype=torch.int32)
    assert made.invent("e", whole) and not whole.any()


def test_dummy_describes_the_headers_that_are_there(tmp_path):
    assert list(dummy.engine_create_loader(checkpoint(tmp_path)).describe()) == []
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    assert [info.nbytes for info in dummy.engine_create_loader(checkpoint(tmp_path)).describe()] == [12]
