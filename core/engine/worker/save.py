"""Writes a model's state as every rank holds it after loading, for the load formats sharded_state and tensorizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.config import EngineConfig
from engine.errors import ConfigError, MissingDependency
from engine.layers.model import NativeModel
from engine.layers.state import KeptWeight, export_state
from engine.plugin.contracts.model import ModelContext, Parallel
from engine.worker.build import architecture_of, attention_of, create_quantizer, load_weights, open_device, torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

#: Copied beside the weights: what describes the model and its vocabulary.
_SIDE_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.model.v*", "*.tiktoken", "*.py")
_INDEXES = ".index.json"


class OneRank(Parallel):
    """A rank that only loads: there is nobody to compute with."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def all_reduce(self, x: Tensor) -> Tensor:
        """Not meant to run."""
        raise RuntimeError("this network was built to be saved, not to run")

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """Not meant to run."""
        raise RuntimeError("this network was built to be saved, not to run")


def save(config: EngineConfig, out: Path, form: str, file_bytes: int, told: Callable[[str], None]) -> None:
    """Write every rank's state into ``out`` as ``form`` (sharded_state or tensorizer), with the model's small files.

    ``file_bytes``: the largest safetensors file; ``told``: receives a line per file. Raises :class:`ConfigError` and what loading raises.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ConfigError(f"--out {out} is not empty.", fix="--out with a new directory")
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror or error}.", fix="--out with a new directory") from error
    for rank in range(config.parallel.tensor_parallel):
        with torch.inference_mode():
            tensors = export_state(_loaded(config, rank))
            if form == "tensorizer":
                _write_stream(tensors, out / f"model-rank-{rank:04d}.tensors", told)
            else:
                _write_files(tensors, out, rank, file_bytes, told)
    for file in side_files(config):
        shutil.copyfile(file, out / file.name)


def _loaded(config: EngineConfig, rank: int) -> NativeModel:
    """One rank's network with its weights as the checkpoint's format packs them, before any device's own order."""
    device = open_device(config, 0)
    model = config.model
    context = ModelContext(
        info=model.info, config=model.config, dtype=torch_dtype(model.dtype, "--dtype"), device=torch.device("cpu"),
        parallel=OneRank(rank, config.parallel.tensor_parallel), attention=attention_of(device, config), kernel=KeptWeight,
        quantizer=create_quantizer(config), checkpoint_path=model.checkpoint.path, max_model_len=model.max_model_len,
    )  # fmt: skip
    built = architecture_of(config).build(context)
    if not isinstance(built, NativeModel):
        raise ConfigError("The state of transformers' classes cannot be saved.", fix="--model-impl vllm")
    load_weights(built, config, rank, None)
    device.close()
    return built


def _write_files(tensors: Iterator[tuple[str, Tensor]], out: Path, rank: int, limit: int, told: Callable[[str], None]) -> None:
    """``model-rank-R-part-P.safetensors`` of at most ``limit`` bytes each (one tensor at least)."""
    from safetensors.torch import save_file

    held: dict[str, Tensor] = {}
    part = 0

    def flush() -> None:
        nonlocal part
        file = out / f"model-rank-{rank}-part-{part}.safetensors"
        save_file(held, file, metadata={"format": "pt"})
        told(f"{file.name}: {len(held)} tensors, {file.stat().st_size} bytes")
        held.clear()
        part += 1

    for name, tensor in _apart(tensors):
        if held and sum(each.nbytes for each in held.values()) + tensor.nbytes > limit:
            flush()
        held[name] = tensor
    if held or not part:
        flush()


def _write_stream(tensors: Iterator[tuple[str, Tensor]], file: Path, told: Callable[[str], None]) -> None:
    try:
        from tensorizer import TensorSerializer
    except ImportError as error:
        raise MissingDependency("--format tensorizer needs tensorizer, which is not installed.", fix="pip install 'engine[tensorizer]'") \
            from error
    serializer = TensorSerializer(str(file))
    serializer.write_state_dict({**dict(_apart(tensors)), "vllm_tensorized_marker": torch.zeros(1)})
    serializer.close()
    told(f"{file.name}: {file.stat().st_size} bytes")


def _apart(tensors: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Contiguous tensors; one that shares its memory with another is copied, since a file holds each name's own bytes."""
    seen: set[int] = set()
    for name, tensor in tensors:
        plain: Any = tensor.detach().contiguous()
        place = plain.untyped_storage().data_ptr()
        yield name, plain.clone() if place in seen or plain.untyped_storage().nbytes() != plain.nbytes else plain
        seen.add(place)


def side_files(config: EngineConfig) -> list[Path]:
    """The small files that describe a model and its vocabulary, wherever they are read from."""
    found: dict[str, Path] = {}
    checkpoint = config.model.checkpoint
    for place in (checkpoint.path, checkpoint.config_path, checkpoint.tokenizer_path):
        for pattern in _SIDE_FILES:
            for file in sorted(Path(place).glob(pattern)):
                if file.is_file() and not file.name.endswith(_INDEXES):
                    found[file.name] = file
    return list(found.values())
