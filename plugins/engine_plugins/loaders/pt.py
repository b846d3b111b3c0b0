"""PyTorch's .bin and .pt files, memory-mapped, with the weights-only unpickler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo, hookimpl

from ._files import TORCH, listing, weight_files
from ._pickled import DAMAGE, is_zip, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class TorchLoader(Loader):
    """``*.bin`` where there are any, else ``*.pt``.

    Files of before torch 1.6 (no zip) are read whole, even to describe them.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._files = weight_files(checkpoint, TORCH)
        if not self._files:
            raise ModelFileError(
                f"{checkpoint.path} has no .bin or .pt file; there is {listing(checkpoint.directory)}.",
                fix="--load-format auto",
            )

    def describe(self) -> Iterator[TensorInfo]:
        for file in self._files:
            if is_zip(file):
                yield from read_tensors(file)
            else:
                for name, tensor in _load(file, mapped=False).items():
                    dtype = str(tensor.dtype).removeprefix("torch.")
                    yield TensorInfo(name, dtype, tuple(tensor.shape), tensor.nbytes, str(file))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        homes: dict[str, Path] = {}
        for file in self._files:
            if mapped := is_zip(file):
                # the checks that name the tensor, before torch maps the file
                list(read_tensors(file))
            for name, tensor in _load(file, mapped=mapped).items():
                if name in homes:
                    raise ModelFileError(f"tensor {name!r} is in two files: {homes[name]} and {file}.")
                homes[name] = file
                yield name, tensor.detach()


def _load(file: Path, *, mapped: bool) -> dict[str, Tensor]:
    """The state dict, without running anything that the file names."""
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except DAMAGE as error:
        reason = str(error).strip().splitlines()
        raise ModelFileError(
            f"{file} cannot be read as weights: {reason[0] if reason else type(error).__name__}.",
            fix="use the model's .safetensors files",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelFileError(
            f"{file} holds no flat dict from name to tensor.", fix="use the model's .safetensors files"
        )
    return state


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Loader:
    return TorchLoader(checkpoint)
