"""CoreWeave tensorizer streams, local, http(s):// or s3://, under checkpoint names or as the engine's own state."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConfigError
from engine.plugin import Checkpoint, Loader, hookimpl

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``tensorizer_uri``: with a printf pattern such as ``%04d`` for the rank where there are several. ``vllm_tensorized``: whether the
    stream is an engine's own state (unset: its marker says). ``encryption_keyfile``: a file with the key's bytes. S3 settings
    default to S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY and S3_ENDPOINT_URL."""

    tensorizer_uri: str = ""
    vllm_tensorized: bool | None = None
    verify_hash: bool = False
    num_readers: int | None = None
    encryption_keyfile: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = None
    s3_endpoint: str | None = None


@hookimpl
def engine_create_loader(checkpoint: Checkpoint, options: Options | None) -> Loader:
    if options is None or not options.tensorizer_uri:
        raise ConfigError(
            "--load-format tensorizer needs the stream's place.",
            fix='--model-loader-extra-config \'{"tensorizer_uri": "model.tensors"}\'',
        )
    if options.num_readers is not None and options.num_readers < 1:
        raise ConfigError(f"--model-loader-extra-config num_readers {options.num_readers}: must be at least 1.", fix='{"num_readers": 1}')
    from ._stream import StreamLoader

    return StreamLoader(checkpoint, options)
