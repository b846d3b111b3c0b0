"""The NumPy cache of torch files: the same tensors, mapped; made once, made anew when the files change."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import ModelFileError
from engine.plugin import Checkpoint
from engine_plugins.loaders import npcache
from engine_plugins.loaders._npy import read_npy_header

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.uint8, torch.bool]


def loader(place: Path, spare: Path | None = None):
    home = str(place)
    return npcache.engine_create_loader(Checkpoint(home, home, home, home, download_dir=None if spare is None else str(spare)))


def tensors() -> dict[str, torch.Tensor]:
    made = {f"layer.{str(dtype)[6:]}": torch.arange(12).reshape(3, 4).to(dtype) for dtype in DTYPES}
    return made | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "turned": torch.arange(6.0).view(2, 3).t()}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(wanted) and all(
        found[k].dtype == wanted[k].dtype and torch.equal(found[k].float(), wanted[k].float()) for k in wanted
    )


def test_round_trip(tmp_path):
    torch.save(tensors(), tmp_path / "pytorch_model.bin")
    made = loader(tmp_path)
    described = {info.name: (info.dtype, info.shape, info.nbytes) for info in made.describe()}
    assert not (tmp_path / "np").exists(), "a plan writes nothing"
    for _ in range(2):
        assert same(dict(made.tensors()), tensors())
    assert {info.name: (info.dtype, info.shape, info.nbytes) for info in made.describe()} == described
    assert json.loads((tmp_path / "np" / "weight_names.json").read_text()) == list(tensors())
    assert json.loads((tmp_path / "np" / "dtypes.json").read_text())["layer.bfloat16"] == "bfloat16"
    assert np.load(tmp_path / "np" / "layer.bfloat16").dtype == np.uint16
    np.testing.assert_array_equal(np.load(tmp_path / "np" / "layer.float32"), tensors()["layer.float32"].numpy())


def test_the_cache_alone_is_read_later(tmp_path, monkeypatch):
    torch.save(tensors(), tmp_path / "model.pt")
    dict(loader(tmp_path).tensors())
    monkeypatch.setattr(torch, "load", None)
    assert same(dict(loader(tmp_path).tensors()), tensors())


def test_it_is_made_anew_when_the_files_change(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(2)}, file)
    dict(loader(tmp_path).tensors())
    torch.save({"a": torch.ones(2), "b": torch.ones(1)}, file)
    os.utime(file, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert same(dict(loader(tmp_path).tensors()), {"a": torch.ones(2), "b": torch.ones(1)})


def test_a_cache_of_another_program_counts(tmp_path):
    """Without our note of the source files the list of names is enough, as other engines write it."""
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "np").mkdir()
    with (tmp_path / "np" / "a").open("wb") as file:
        np.save(file, np.full((2, 3), 7, dtype=np.float32, order="F"))
    (tmp_path / "np" / "weight_names.json").write_text('["a"]')
    assert same(dict(loader(tmp_path).tensors()), {"a": torch.full((2, 3), 7.0)})


def test_a_directory_that_cannot_be_written(tmp_path, monkeypatch):
    place, spare = tmp_path / "model", tmp_path / "spare"
    place.mkdir()
    torch.save(tensors(), place / "pytorch_model.bin")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != place)
    assert same(dict(loader(place, spare).tensors()), tensors())
    assert not (place / "np").exists() and list(spare.glob("np-*/np/weight_names.json"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ModelFileError, match="cache cannot be written") as caught:
        dict(loader(place, blocked).tensors())
    assert "--download-dir" in str(caught.value.fix)


@pytest.mark.parametrize("name", ["../evil", "a/b", "weight_names.json", "x" * 300, ""])
def test_names_that_are_no_files(tmp_path, name):
    torch.save({name: torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match="cannot be a file of the cache"):
        dict(loader(tmp_path).tensors())
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("file", "content", "shown"),
    [
        ("a", b"", "does not begin as a .npy"),
        ("a", b"\x93NUMPY\x01\x00\xff\xff{}", "header says it is 65535 bytes"),
        ("weight_names.json", b'["../../x"]', "cannot be a file of the cache"),
        ("weight_names.json", b'{"a": 1}', "a list of tensor names was expected"),
        ("weight_names.json", b'["a", "a"]', "twice"),
        ("weight_names.json", b"[" * 100_000, "cannot be read"),
        ("weight_names.json", b'["missing"]', "is missing"),
        ("dtypes.json", b'{"a": "float8_e4m3fn"}', "but its array holds float32"),
        ("dtypes.json", b'{"a": "os"}', "an object from tensor to one of"),
    ],
)
def test_damaged_caches(tmp_path, file, content, shown):
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    dict(loader(tmp_path).tensors())
    (tmp_path / "np" / file).write_bytes(content)
    for read in (lambda: list(loader(tmp_path).describe()), lambda: list(loader(tmp_path).tensors())):
        with pytest.raises(ModelFileError, match=shown) as caught:
            read()
        assert str(tmp_path / "np") in str(caught.value) or "cache" in str(caught.value)


def test_objects_in_arrays_are_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError, match=r"the elements are '\|O'"):
        read_npy_header(tmp_path / "a.npy")


def test_headers_of_numpy_itself(tmp_path):
    for dtype in ("f8", "f4", "f2", "i8", "u1", "?"):
        for order in "CF":
            array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
            np.save(tmp_path / "a.npy", array)
            header = read_npy_header(tmp_path / "a.npy")
            assert (header.dtype, header.shape) == (str(array.dtype), array.shape)
            assert (header.nbytes, header.fortran) == (array.nbytes, order == "F")


def test_random_damage(tmp_path):
    file, rng, refused = tmp_path / "a.npy", random.Random(5), 0
    np.save(file, np.arange(100.0))
    whole = file.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(128)] = rng.randrange(256)
        file.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            read_npy_header(file)
        except ModelFileError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 200
