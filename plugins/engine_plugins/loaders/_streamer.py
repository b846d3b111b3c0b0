"""The Run:ai streamer's tensors, with the engine's own checks of the headers before anything is streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runai_model_streamer as streamer

from engine.errors import ConfigError, ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo

from ._files import SAFETENSORS, listing, weight_files
from ._header import parse_header, read_header

if TYPE_CHECKING:
    from torch import Tensor

    from .runai_streamer import Options

_VARIABLES = {"concurrency": "RUNAI_STREAMER_CONCURRENCY", "memory_limit": "RUNAI_STREAMER_MEMORY_LIMIT"}
_LEAST = {"concurrency": 1, "memory_limit": -1}


class StreamerLoader(Loader):
    """The streamer takes its settings from the environment alone, so the options are exported there, as its own users do."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        _export(options)
        self._remote = checkpoint.model if checkpoint.model.startswith("s3://") else None
        if self._remote is None:
            self._files = [str(file) for file in weight_files(checkpoint, SAFETENSORS)]
        else:
            self._files = sorted(_asked(self._remote, lambda: streamer.list_safetensors(str(self._remote))))
        if not self._files:
            there = "nothing of that kind" if self._remote else listing(checkpoint.directory)
            raise ModelFileError(f"{self._remote or checkpoint.path} has no .safetensors file; there is {there}.", fix="--load-format auto")
        self._infos: list[TensorInfo] | None = None
        self._rank, self._ranks = 0, 1

    def serve_rank(self, rank: int, ranks: int) -> None:
        self._rank, self._ranks = rank, ranks

    def describe(self) -> list[TensorInfo]:
        if self._infos is None:
            homes: dict[str, str] = {}
            infos = [info for file in self._files for info in (_remote_header(file) if self._remote else read_header(Path(file)))]
            for info in infos:
                if info.name in homes:
                    raise ModelFileError(f"tensor {info.name!r} is in two files: {homes[info.name]} and {info.file}.")
                homes[info.name] = info.file
            self._infos = infos
        return self._infos

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """In the order in which they arrive; each owns its memory."""
        expected = {info.name: info for info in self.describe()}
        try:
            with streamer.SafetensorsStreamer() as session:
                # It would ask all ranks who is on this machine, and wait for those whose turn to load has not come.
                known = session.file_streamer.params
                known.num_processes_on_node, known.my_global_rank = self._ranks, self._rank
                known.groups_by_ranks = [list(range(self._ranks))]
                session.stream_files(self._files)
                for name, tensor in session.get_tensors():
                    _check(expected.get(name), name, tensor)
                    yield name, tensor
        except (ValueError, RuntimeError, OSError) as error:
            if isinstance(error, ModelFileError):
                raise
            where = self._remote or Path(self._files[0]).parent
            raise ModelFileError(f"{where}: the streamer stopped: {' '.join(str(error).split()):.300}.", fix="--load-format safetensors") \
                from error


def _export(options: Options) -> None:
    for name, variable in _VARIABLES.items():
        value = getattr(options, name)
        if value is None:
            continue
        if value < _LEAST[name]:
            raise ConfigError(
                f"--model-loader-extra-config {name} {value}: must be at least {_LEAST[name]}.", fix=f'{{"{name}": {max(1, _LEAST[name])}}}'
            )
        os.environ[variable] = str(value)
    if "AWS_ENDPOINT_URL" in os.environ:
        os.environ.setdefault("RUNAI_STREAMER_S3_ENDPOINT", os.environ["AWS_ENDPOINT_URL"])


def _check(info: TensorInfo | None, name: str, tensor: Tensor) -> None:
    if info is None or info.shape != tuple(tensor.shape):
        wanted = "nothing of that name" if info is None else list(info.shape)
        raise ModelFileError(f"Tensor {name!r} arrived with shape {list(tensor.shape)}; its file's header says {wanted}.")


def _asked(place: str, ask: Any) -> Any:
    """What the object store answers. Raises :class:`ModelFileError` where it refuses or is not there."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return ask()
    except (BotoCoreError, ClientError) as error:
        raise ModelFileError(
            f"{place}: the object store does not give it: {' '.join(str(error).split()):.300}.",
            fix="check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from error


def _remote_header(uri: str) -> list[TensorInfo]:
    """The header of one object, by two ranged reads."""
    import boto3

    bucket, _, key = uri.removeprefix("s3://").partition("/")

    def ask() -> list[TensorInfo]:
        store: Any = boto3.client("s3")
        size = int(store.head_object(Bucket=bucket, Key=key)["ContentLength"])
        done = 0

        def read(count: int) -> bytes:
            nonlocal done
            if count == 0:
                return b""
            part = store.get_object(Bucket=bucket, Key=key, Range=f"bytes={done}-{done + count - 1}")
            done += count
            return bytes(part["Body"].read())

        return parse_header(uri, size, read)

    return _asked(uri, ask)  # type: ignore[no-any-return]
