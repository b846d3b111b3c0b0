"""Fetches the small files of a model that is in an object store (``s3://``); its weights are streamed by a loader."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import MissingDependency, ModelFileError

_WANTED = ("*.json", "*.jinja", "*.txt", "*.model", "*.model.v*", "*.tiktoken")
_SKIPPED = ("*.safetensors.index.json",)
#: Configuration and vocabulary files are at most this large.
_LIMIT = 500_000_000


def fetch(uri: str, flag: str, folder: str | None, *, code: bool) -> Path:
    """The directory with the model's configuration and tokenizer, fetched where the store's are not those that are there.

    Under ``folder`` (--download-dir), else the user's cache. ``code``: Python files too. AWS_ENDPOINT_URL and the AWS
    credentials' variables hold. Raises :class:`ModelFileError`.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise ModelFileError(f"{flag} {uri}: the name of the bucket is missing.", fix="s3://BUCKET/PREFIX")
    store, failures = _client(uri, flag)
    home = Path(folder).expanduser() if folder else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "engine"
    place = home / f"s3-{hashlib.sha256(uri.rstrip('/').encode()).hexdigest()[:16]}"
    patterns = (*_WANTED, "*.py") if code else _WANTED
    try:
        found = list(_objects(store, bucket, prefix.rstrip("/")))
        for name, key, size, tag in found:
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns) and not any(fnmatch.fnmatch(name, p) for p in _SKIPPED):
                _keep(place, name, size, tag, partial(store.download_file, bucket, key))
    except failures as error:
        raise ModelFileError(
            f"{flag} {uri}: the object store does not give it: {' '.join(str(error).split()):.300}.",
            fix="check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from error
    if not found:
        raise ModelFileError(f"{flag} {uri}: there is nothing under that prefix.", fix="s3://BUCKET/PREFIX of a model")
    return place


def _client(uri: str, flag: str) -> tuple[Any, tuple[type[Exception], ...]]:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise MissingDependency(
            f"{flag} {uri}: object stores need boto3, which is not installed.", fix="pip install 'engine[runai_streamer]'"
        ) from error
    return boto3.client("s3"), (BotoCoreError, ClientError)


def _objects(store: Any, bucket: str, prefix: str) -> Iterator[tuple[str, str, int, str]]:
    """(name, key, bytes, entity tag) of the objects directly under a prefix."""
    start = f"{prefix}/" if prefix else ""
    for page in store.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, Delimiter="/"):
        for item in page.get("Contents", ()):
            name = str(item["Key"]).removeprefix(start)
            if name and "/" not in name and name not in (".", ".."):
                yield name, item["Key"], int(item["Size"]), str(item["ETag"]).strip('"')


def _keep(place: Path, name: str, size: int, tag: str, download: Callable[[str], None]) -> None:
    """The object as a file; its entity tag beside it tells whether it is the store's present one."""
    if size > _LIMIT:
        raise ModelFileError(f"{name}: {size} bytes; at most {_LIMIT} are fetched of a configuration file.")
    target, note = place / name, place / f".{name}.etag"
    if target.is_file() and note.is_file() and note.read_text() == tag and target.stat().st_size == size:
        return
    place.mkdir(parents=True, exist_ok=True)
    unfinished = place / f".{name}.{os.getpid()}.part"
    download(str(unfinished))
    if unfinished.stat().st_size != size:
        raise ModelFileError(f"{name}: {unfinished.stat().st_size} bytes came, {size} were expected.", fix="start again")
    unfinished.replace(target)
    note.write_text(tag)
