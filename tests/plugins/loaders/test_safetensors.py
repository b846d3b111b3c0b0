"""The safetensors loader: every tensor once and exact, and each kind of damage named before anything is mapped."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Use
from engine_plugins.loaders import auto, safetensors
from tests.data import shared


def checkpoint(place: Path) -> Checkpoint:
    return Checkpoint(model=str(place), path=str(place), config_path=str(place), tokenizer_path=str(place))


def loader(place: Path):
    return safetensors.engine_create_loader(checkpoint(place))


def write(file: Path, header: object, data: bytes = b"", *, length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def entry(begin: int, end: int, dtype: object = "F32", shape: object = (1,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


def sample(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"{seed}.{dtype}": torch.randn(3, 5, generator=generator).to(dtype) for dtype in DTYPES}
    return tensors | {f"{seed}.empty": torch.empty(0, 4), f"{seed}.scalar": torch.tensor(2.5)}


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and left.view(-1).view(torch.uint8).equal(right.view(-1).view(torch.uint8))
    )


def test_every_tensor_once_and_exact(tmp_path):
    expected = sample(1) | sample(2)
    save_file(sample(1), tmp_path / "model-00001.safetensors", metadata={"format": "pt"})
    save_file(sample(2), tmp_path / "model-00002.safetensors")
    made = loader(tmp_path)
    for _ in range(2):
        found = list(made.tensors())
        assert sorted(name for name, _ in found) == sorted(expected)
        assert all(same(tensor, expected[name]) for name, tensor in found)
    for info in made.describe():
        tensor = expected[info.name]
        assert (f"torch.{info.dtype}", info.shape, info.nbytes) == (
            str(tensor.dtype),
            tuple(tensor.shape),
            tensor.nbytes,
        )
    assert made.nbytes() == sum(tensor.nbytes for tensor in expected.values())
    made.close()
    made.close()


def test_the_real_model():
    place = shared("stories260k")
    expected = load_file(place / "model.safetensors")
    found = dict(loader(place).tensors())
    assert found.keys() == expected.keys()
    assert all(same(found[name], expected[name]) for name in expected)


def test_a_single_file_is_a_checkpoint(tmp_path):
    save_file(sample(), tmp_path / "one.safetensors")
    assert len(list(loader(tmp_path / "one.safetensors").tensors())) == len(sample())


def test_describing_needs_no_torch(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    code = (
        "import sys\nfrom engine.plugin import Checkpoint\nfrom engine_plugins.loaders import safetensors as s\n"
        f"c = Checkpoint({str(tmp_path)!r}, {str(tmp_path)!r}, '', '')\n"
        "assert [i.name for i in s.engine_create_loader(c).describe()] == ['a']\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_index_decides(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert [name for name, _ in loader(tmp_path).tensors()] == ["a"]


def test_consolidated_copies_and_adapters_are_left_out(tmp_path):
    for name, tensor in (("model", "a"), ("consolidated.00", "layers.0"), ("adapter_model", "lora")):
        save_file({tensor: torch.zeros(2)}, tmp_path / f"{name}.safetensors")
    assert [name for name, _ in loader(tmp_path).tensors()] == ["a"]
    (tmp_path / "model.safetensors").unlink()
    assert [name for name, _ in loader(tmp_path).tensors()] == ["layers.0"]


INDEXES = [
    (
        {"weight_map": {"a": "gone.safetensors", "b": "gone.safetensors"}},
        "gone.safetensors is missing; .* expects 2 tensors",
    ),
    ({"weight_map": {"a": "../outside.safetensors"}}, "'../outside.safetensors', which is outside"),
    ({"weight_map": {"a": "/etc/passwd"}}, "outside"),
    ({"weight_map": {"a": 7}}, "outside"),
    ({"weight_map": ["a"]}, "is no index"),
    ({}, "is no index"),
    ([], "is no index"),
]


@pytest.mark.parametrize(("index", "shown"), INDEXES)
def test_bad_indexes(tmp_path, index, shown):
    directory = tmp_path / "model"
    directory.mkdir()
    for place in (directory / "model.safetensors", tmp_path / "outside.safetensors"):
        save_file({"a": torch.zeros(1)}, place)
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=shown) as caught:
        list(loader(directory).tensors())
    assert caught.value.status == 4


DAMAGE = [
    (b"", "truncated: at least 8 bytes expected, 0 found"),
    (struct.pack("<Q", 900) + b"{}", "the header says it is 900 bytes long, but only 2 follow"),
    (struct.pack("<Q", 2**63) + b"{}", "but only 2 follow"),
    (b"\x02\0\0\0\0\0\0\0[]", "not a JSON object but list"),
    (b"\x02\0\0\0\0\0\0\0{,", "not valid JSON"),
    (b"\x02\0\0\0\0\0\0\0\xff\xff", "not valid JSON"),
]


@pytest.mark.parametrize(("content", "shown"), DAMAGE)
def test_damaged_files(tmp_path, content, shown):
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path, shown)


HEADERS = [
    ({"a": entry(0, 4)}, b"", "truncated: [0-9]+ bytes expected, [0-9]+ found .last tensor: 'a'"),
    ({"a": entry(0, 4)}, bytes(5), "longer than its header says"),
    ({"a": entry(0, 4), "b": entry(2, 6)}, bytes(6), "'b' begins at byte 2 of the data and overlaps .* ends at 4"),
    ({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12), "'b' .* leaves a gap"),
    ({"a": entry(0, 4, "F33")}, bytes(4), "'a' has the dtype 'F33'; known are F64"),
    ({"a": entry(0, 4, 7)}, bytes(4), "'a' has the dtype 7"),
    ({"a": entry(0, 4, "F32", [2])}, bytes(4), r"'a' \(F32 \[2\]\) needs 8 bytes, its data_offsets give 4"),
    ({"a": entry(0, 4, "F32", [-1])}, bytes(4), "not a list of sizes"),
    ({"a": entry(0, 4, "F32", [True])}, bytes(4), "not a list of sizes"),
    ({"a": entry(0, 4, "F32", "1")}, bytes(4), "not a list of sizes"),
    ({"a": entry(4, 0)}, bytes(4), "not .begin, end."),
    ({"a": entry(0, 1, "F4", [3])}, bytes(1), "needs 1 bytes"),
    ({"a": {"dtype": "F32"}}, bytes(4), "dtype, shape and data_offsets expected"),
    ({"a": 3}, bytes(4), "dtype, shape and data_offsets expected"),
    ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
    (b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {}}', bytes(1), "names 'a' twice"),
    (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", b"", "not valid JSON|expected, found"),
]


@pytest.mark.parametrize(("header", "data", "shown"), HEADERS, ids=range(len(HEADERS)))
def test_bad_headers(tmp_path, header, data, shown):
    write(tmp_path / "model.safetensors", header, data)
    refused(tmp_path, shown)


def test_a_giant_header_is_refused_unread(tmp_path):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", 200_000_000))
        opened.truncate(300_000_000)  # sparse: takes no space
    refused(tmp_path, "200000000 bytes long; at most 100000000")


def test_one_name_in_two_files(tmp_path):
    for name in ("a", "b"):
        save_file({"same": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    refused(tmp_path, "'same' is in two files")


def test_directories_pipes_and_dangling_links(tmp_path):
    file = tmp_path / "model.safetensors"
    file.mkdir()
    refused(tmp_path, "is not a regular file .a directory")
    file.rmdir()
    os.mkfifo(file)
    refused(tmp_path, "is not a regular file .a named pipe")
    file.unlink()
    file.symlink_to(tmp_path / "nowhere")
    refused(tmp_path, "No such file")


def test_links_to_regular_files_are_fine(tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "blob")
    (directory / "model.safetensors").symlink_to(tmp_path / "blob")
    assert [name for name, _ in loader(directory).tensors()] == ["a"]


def refused(place: Path, shown: str) -> None:
    with pytest.raises(ModelFileError, match=shown) as caught:
        list(loader(place).tensors())
    assert str(place) in str(caught.value)
    assert caught.value.status == 4


def test_no_safetensors_at_all(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    refused(tmp_path, "has no .safetensors file; there is pytorch_model.bin")


@pytest.mark.parametrize(
    ("files", "name"),
    [(["a.safetensors", "b.bin"], "safetensors"), (["b.bin", "c.pt"], "pt"), (["c.pt", "optimizer.pt"], "pt")],
)
def test_auto_prefers_safetensors(tmp_path, files, name):
    for file in files:
        (tmp_path / file).write_bytes(b"x")
    answer = auto.engine_create_loader(checkpoint(tmp_path))
    assert isinstance(answer, Use)
    assert answer.name == name and "1 file such as" in answer.reason


def test_auto_without_weights(tmp_path):
    (tmp_path / "optimizer.pt").write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"holds no weights .* there is optimizer.pt") as caught:
        auto.engine_create_loader(checkpoint(tmp_path))
    assert "--load-format dummy" in (caught.value.fix or "")


def test_hidden_files_are_no_weights(tmp_path):
    """Other systems leave such beside every file that they copy."""
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "._model.safetensors").write_bytes(b"")
    assert [name for name, _ in loader(tmp_path).tensors()] == ["a"]
