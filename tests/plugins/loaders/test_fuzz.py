"""Random damage: whatever happens to a file, a loader answers with its own error or with tensors, and never with a crash."""

from __future__ import annotations

import json
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import ModelFileError
from engine.plugin import Checkpoint
from engine_plugins.loaders import npcache, pt, safetensors
from engine_plugins.loaders._files import weight_files
from engine_plugins.loaders._header import read_header
from engine_plugins.loaders._npy import read_npy_header
from engine_plugins.loaders._pickled import read_tensors

TENSORS = {"a.weight": torch.arange(24.0).reshape(4, 6), "b.bias": torch.ones(3, dtype=torch.float16), "c": torch.zeros(0)}


def damage(content: bytes, rng: random.Random, front: int) -> bytes:
    """One to four changes: a byte, a cut, a repeated or a removed piece; mostly in the first ``front`` bytes."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(front, len(data)) if rng.random() < 0.8 else len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[max(at, 1) :]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 9)]
            case 3:
                del data[at : at + rng.randrange(1, 9)]
        data = data or bytearray(b"x")
    return bytes(data)


def read(create: Callable[[Checkpoint], object], place: Path) -> None:
    checkpoint = Checkpoint(model="m", path=str(place), config_path=str(place), tokenizer_path=str(place))
    loader = create(checkpoint)
    for info in loader.describe():  # type: ignore[attr-defined]
        assert info.nbytes >= 0
    for _, tensor in loader.tensors():  # type: ignore[attr-defined]
        tensor.float().sum()


@pytest.mark.parametrize("seed", range(6))
def test_safetensors(tmp_path, seed):
    file = tmp_path / "model.safetensors"
    save_file(TENSORS, file)
    whole, rng, refused = file.read_bytes(), random.Random(seed), 0
    header = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(100):
        file.write_bytes(damage(whole, rng, header))
        try:
            read(safetensors.engine_create_loader, tmp_path)
        except ModelFileError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 80


@pytest.mark.parametrize("seed", range(6))
def test_torch_files(tmp_path, seed):
    file = tmp_path / "model.pt"
    torch.save(TENSORS, file)
    whole, rng, refused = file.read_bytes(), random.Random(seed), 0
    for _ in range(60):
        file.write_bytes(damage(whole, rng, 700))
        try:
            read(pt.engine_create_loader, tmp_path)
        except ModelFileError as error:
            refused += 1
            assert str(file) in str(error)
    assert refused > 10


#: Seconds that one header may take, and MiB that the process may grow by over all of them.
SECONDS, GROWTH = 2, 64


@contextmanager
def in_time() -> Iterator[None]:
    """A parser that hangs is interrupted by a signal."""

    def late(*_: object) -> None:
        raise TimeoutError(f"a header took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def safetensors_header(place: Path) -> tuple[Path, Callable[[], object]]:
    file = place / "model.safetensors"
    save_file(TENSORS, file)
    return file, lambda: read_header(file)


def torch_archive(place: Path) -> tuple[Path, Callable[[], object]]:
    file = place / "model.pt"
    torch.save(TENSORS, file)
    return file, lambda: list(read_tensors(file))


def array_header(place: Path) -> tuple[Path, Callable[[], object]]:
    torch.save(TENSORS, place / "model.bin")
    dict(create(npcache, place).tensors())
    return place / "np" / "a.weight", lambda: read_npy_header(place / "np" / "a.weight")


def array_list(place: Path) -> tuple[Path, Callable[[], object]]:
    array_header(place)
    return place / "np" / "weight_names.json", lambda: list(create(npcache, place).describe())


def index(place: Path) -> tuple[Path, Callable[[], object]]:
    for shard in ("model-1.safetensors", "model-2.safetensors"):
        save_file({"a": torch.zeros(1)}, place / shard)
    file = place / "model.safetensors.index.json"
    file.write_text(json.dumps({"metadata": {"total_size": 4}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    return file, lambda: weight_files(Checkpoint("m", str(place), str(place), str(place)), ["*.safetensors"])


def create(module, place: Path):
    return module.engine_create_loader(Checkpoint("m", str(place), str(place), str(place)))


PARSERS = [safetensors_header, torch_archive, array_header, array_list, index]


def mutate(make: Callable[[Path], tuple[Path, Callable[[], object]]], place: Path, count: int) -> int:
    """Damage the parser's file ``count`` times; returns how many were refused. All else than its own error fails the test."""
    file, parse = make(place)
    whole, rng, refused = file.read_bytes(), random.Random(11), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        file.write_bytes(damage(whole, rng, 700))
        with in_time():
            try:
                parse()
            except ModelFileError as error:
                refused += 1
                assert str(place) in str(error) and error.status == 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH * 1024
    return refused


@pytest.mark.parametrize("make", PARSERS)
def test_damaged_headers(tmp_path, make):
    assert mutate(make, tmp_path, 1000) > 300


@pytest.mark.slow
@pytest.mark.parametrize("make", PARSERS)
def test_ten_thousand_damaged_headers(tmp_path, make):
    assert mutate(make, tmp_path, 10_000) > 3000
