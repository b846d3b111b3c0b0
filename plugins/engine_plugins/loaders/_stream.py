"""Reads a tensorizer stream through the tensorizer library."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorizer
from tensorizer import stream_io
from tensorizer.serialization import CryptographyError, HashMismatchError

from engine.errors import ConfigError, ModelFileError
from engine.plugin import Checkpoint, Loader, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

    from .tensorizer import Options

MARKER = "vllm_tensorized_marker"
_ENVIRONMENT = {
    "s3_access_key_id": "S3_ACCESS_KEY_ID", "s3_secret_access_key": "S3_SECRET_ACCESS_KEY", "s3_endpoint": "S3_ENDPOINT_URL",
}  # fmt: skip
_FAILURES = (
    OSError, ValueError, TypeError, LookupError, RuntimeError, OverflowError, MemoryError, AssertionError, AttributeError, struct.error,
    HashMismatchError, CryptographyError,
)  # fmt: skip
_LIMIT = 65_536


class StreamLoader(Loader):
    """One stream per rank where the URI has a place for the rank. A relative path counts from the model's directory too."""

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        self._checkpoint, self._options = checkpoint, options
        self._rank, self._ranks = 0, 1
        self._entries: dict[str, Any] | None = None

    def serve_rank(self, rank: int, ranks: int) -> None:
        if ranks > 1 and "%" not in self._options.tensorizer_uri:
            raise ConfigError(
                f"tensorizer_uri {self._options.tensorizer_uri}: --tensor-parallel-size {ranks} needs a place for the rank in it.",
                fix='"tensorizer_uri": "model-rank-%04d.tensors"',
            )
        self._rank, self._ranks, self._entries = rank, ranks, None

    def own_state(self) -> bool:
        """Where vllm_tensorized contradicts the stream's marker, the start ends."""
        marked, said = MARKER in self._read_entries(), self._options.vllm_tensorized
        if said is not None and said != marked:
            what = "has" if marked else "lacks"
            raise ModelFileError(
                f"{self._uri()} {what} the marker of an engine's own state, but vllm_tensorized is {str(said).lower()}.",
                fix=f'"vllm_tensorized": {str(marked).lower()}',
            )
        return marked

    def describe(self) -> Iterator[TensorInfo]:
        """From the stream's index."""
        for name, entry in self._read_entries().items():
            if name != MARKER:
                yield TensorInfo(name, _dtype(entry.dtype), tuple(entry.shape), entry.deserialized_length, self._uri())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """In the stream's order; where num_readers is given, all at once by so many threads."""
        uri, readers = self._uri(), self._options.num_readers
        try:
            with self._open(lazy=readers is None) as stream:
                if readers is None:
                    found = ((name, tensor) for _, _, name, tensor in stream.read_tensors())
                else:
                    found = ((str(name), stream[name]) for name in stream.keys())  # noqa: SIM118 - tensorizer's mapping
                for name, tensor in found:
                    if str(name) != MARKER:
                        yield str(name), tensor.detach()
        except _FAILURES as error:
            raise _unreadable(uri, error) from error

    def _read_entries(self) -> dict[str, Any]:
        if self._entries is None:
            try:
                with self._open(lazy=True) as stream:
                    self._entries = {str(name): entry for name, entry in stream._metadata.items()}
            except _FAILURES as error:
                raise _unreadable(self._uri(), error) from error
        return self._entries

    def _open(self, *, lazy: bool) -> Any:
        options = self._options
        settings = {name: getattr(options, name) or os.environ.get(variable) for name, variable in _ENVIRONMENT.items()}
        endpoint = settings["s3_endpoint"]
        plain = bool(endpoint) and str(endpoint).startswith("http://")
        file = stream_io.open_stream(self._uri(), "rb", force_http=plain or None, **settings)
        return tensorizer.TensorDeserializer(
            file, device="cpu", lazy_load=lazy, verify_hash=options.verify_hash, encryption=self._key(),
            num_readers=1 if options.num_readers is None else options.num_readers,
        )  # fmt: skip

    def _key(self) -> Any:
        path = self._options.encryption_keyfile
        if path is None:
            return None
        file = Path(path).expanduser()
        if not file.is_file() or file.stat().st_size > _LIMIT:
            raise ConfigError(f"encryption_keyfile {path}: no regular file of at most {_LIMIT} bytes.", fix="check the path")
        return tensorizer.DecryptionParams.from_key(file.read_bytes())

    def _uri(self) -> str:
        uri = self._options.tensorizer_uri
        if ("%" in uri and "://" not in uri) or self._ranks > 1:
            try:
                uri = uri % self._rank
            except (TypeError, ValueError) as error:
                raise ConfigError(f"tensorizer_uri {uri}: one pattern for the rank was expected.", fix='"model-%04d.tensors"') from error
        beside = self._checkpoint.directory / uri
        return str(beside) if "://" not in uri and not Path(uri).exists() and beside.exists() else uri


def _dtype(stored: str) -> str:
    """torch's name of a stream's dtype: NumPy's description, and after a NUL torch's own where NumPy has no such type."""
    import numpy as np

    plain, _, own = str(stored).partition("\0")
    return own.removeprefix("torch.") if own else np.dtype(plain).name


def _unreadable(uri: str, error: Exception) -> Exception:
    if isinstance(error, ModelFileError | ConfigError):
        return error
    reason = "not valid JSON" if isinstance(error, json.JSONDecodeError) else " ".join(str(error).split())
    return ModelFileError(
        f"{uri} cannot be read as a tensorizer stream: {type(error).__name__}: {reason:.300}.", fix="write the stream again"
    )
