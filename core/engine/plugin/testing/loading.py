"""Suites of plugins that read checkpoints: loaders and config formats."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine.errors import ModelFileError
from engine.plugin.contracts.loading import ConfigFormat, Loader
from engine.plugin.facts import Checkpoint
from engine.plugin.testing.base import PluginContract, requires


def checkpoint_at(place: Path) -> Checkpoint:
    """Everything of a checkpoint in one place."""
    return Checkpoint(model=str(place), path=str(place), config_path=str(place), tokenizer_path=str(place))


class LoaderContract(PluginContract):
    """Override ``place`` with a checkpoint in your format that holds ``reference``'s tensors.

    Capabilities: ``headers`` (``describe`` tells every tensor; the formats that cannot know before reading do not claim it),
    ``whole`` (every tensor of the checkpoint is yielded as it is in the file; loaders that invent or convert tensors do not claim it).
    """

    kind_name = "loader"
    capabilities = frozenset({"headers", "whole"})
    supports: ClassVar[frozenset[str]] = frozenset({"headers", "whole"})

    @pytest.fixture
    def place(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
        """A checkpoint of the plugin's format, as the user would name it; tests may damage it."""
        return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))

    @pytest.fixture
    def reference(self) -> dict[str, Any]:
        """The tensors that the checkpoint holds, by name."""
        from engine.plugin.testing.checkpoint import tiny_tensors

        return dict(tiny_tensors())

    @pytest.fixture
    def hook_args(self, place: Path) -> dict[str, Any]:
        return {"checkpoint": checkpoint_at(place), "info": None, "options": dict(self.options)}

    @requires("whole")
    def test_it_yields_each_tensor_once_and_exactly(self, plugin: Loader, reference: dict[str, Any]) -> None:
        import torch

        seen: dict[str, Any] = {}
        for name, tensor in plugin.tensors():
            assert name not in seen, f"{name} came twice"
            seen[name] = tensor.clone()
        assert sorted(seen) == sorted(reference)
        for name, tensor in seen.items():
            assert tensor.dtype == reference[name].dtype, name
            assert torch.equal(tensor, reference[name]), f"{name} differs from the checkpoint"

    @requires("whole")
    def test_a_second_pass_starts_again(self, plugin: Loader) -> None:
        assert sorted(name for name, _ in plugin.tensors()) == sorted(name for name, _ in plugin.tensors())

    def test_tensors_come_lazily(self, plugin: Loader) -> None:
        tensors = plugin.tensors()
        assert isinstance(tensors, Iterator), f"tensors() returned a {type(tensors).__name__}: yield them one at a time"

    @requires("headers")
    def test_headers_tell_what_will_come(self, plugin: Loader, reference: dict[str, Any]) -> None:
        told = {info.name: (info.dtype, tuple(info.shape), info.nbytes) for info in plugin.describe()}
        held = {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape), t.nbytes) for name, t in reference.items()}
        assert told == held
        assert plugin.nbytes() == sum(tensor.nbytes for tensor in reference.values())

    @requires("whole")
    def test_missing_files_are_named(self, place: Path, create: Callable[[], Loader]) -> None:
        for file in _files(place):
            file.unlink()
        with pytest.raises(ModelFileError, match=place.name) as failed:
            _read(create())
        assert failed.value.fix, f"no remedy is offered beside: {failed.value}"

    @requires("whole")
    def test_a_cut_file_is_refused_by_name(self, place: Path, create: Callable[[], Loader]) -> None:
        weights = max(_files(place), key=lambda file: file.stat().st_size)
        with weights.open("r+b") as file:
            file.truncate(weights.stat().st_size // 2)
        with pytest.raises(ModelFileError, match=weights.name):
            _read(create())


class ConfigFormatContract(PluginContract):
    """Override ``place`` with a model's directory in your format; ``expected`` are keys of config.json that it must say,
    ``config_files`` patterns of the files that it reads."""

    kind_name = "config_format"
    config_files: ClassVar[tuple[str, ...]] = ("*.json",)
    expected: ClassVar[dict[str, Any]] = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2}

    @pytest.fixture
    def place(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
        """A directory with the configuration; tests may damage it."""
        return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))

    @pytest.fixture
    def hook_args(self, place: Path) -> dict[str, Any]:
        return {"checkpoint": checkpoint_at(place)}

    def test_it_reads_the_configuration(self, plugin: ConfigFormat) -> None:
        config = plugin.read()
        assert {key: config.get(key) for key in self.expected} == self.expected

    def test_it_reads_the_same_twice(self, plugin: ConfigFormat) -> None:
        assert plugin.read() == plugin.read()

    def test_generation_defaults_are_an_object(self, plugin: ConfigFormat) -> None:
        assert isinstance(plugin.generation(), dict)

    def test_a_missing_file_is_named(self, place: Path, create: Callable[[], ConfigFormat]) -> None:
        for file in _files(place):
            file.unlink()
        with pytest.raises(ModelFileError, match=place.name):
            create().read()

    def test_a_damaged_file_is_refused_by_name(self, place: Path, create: Callable[[], ConfigFormat]) -> None:
        damaged = [file for pattern in self.config_files for file in place.glob(pattern)]
        for file in damaged:
            file.write_text('{"architectures": [')
        with pytest.raises(ModelFileError) as failed:
            create().read()
        assert any(file.name in str(failed.value) for file in damaged), str(failed.value)


def _files(place: Path) -> list[Path]:
    return [file for file in place.rglob("*") if file.is_file()] if place.is_dir() else [place]


def _read(loader: Loader) -> None:
    list(loader.describe())
    for _ in loader.tensors():
        pass
