"""Which files of a checkpoint hold its weights."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from engine.errors import ModelFileError
from engine.plugin import Checkpoint

SAFETENSORS = ("*.safetensors",)
TORCH = ("*.bin", "*.pt")
#: What training leaves beside the weights, and adapters, which are not the model.
_SKIPPED = frozenset({"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"})
_INDEXES = {".safetensors": "model.safetensors.index.json", ".bin": "pytorch_model.bin.index.json"}
_INDEX_LIMIT = 100_000_000


def weight_files(checkpoint: Checkpoint, patterns: Sequence[str]) -> list[Path]:
    """The regular files that hold the weights: those of the first pattern that matches any, sorted by name.

    An index file (``model.safetensors.index.json``) beside them is decisive: only the shards that it names are read,
    and all of them must be there. Empty where no pattern matches. Raises :class:`ModelFileError`.
    """
    place = checkpoint.directory
    if not place.is_dir():
        matches = [pattern for pattern in patterns if place.match(pattern)]
        return [regular(place)] if matches else []
    for pattern in patterns:
        index = place / _INDEXES.get(pattern.lstrip("*"), "no-index")
        if index.exists():
            return [regular(place / shard) for shard in _shards(index)]
        found = sorted(file for file in place.glob(pattern) if _counts(file.name))
        # the original publisher's files, which repeat the converted ones beside them
        own = [file for file in found if not file.name.startswith("consolidated")]
        if found:
            return [regular(file) for file in own or found]
    return []


def indexed_files(place: Path, pattern: str, index: str) -> list[Path]:
    """The files of ``pattern``, or exactly the shards that the index file of that name lists where there is one."""
    if not place.is_dir():
        return []
    if (place / index).exists():
        return [regular(place / shard) for shard in _shards(place / index)]
    return [regular(file) for file in sorted(place.glob(pattern))]


def regular(path: Path) -> Path:
    """The path itself, where it (or what it links to) is a regular file that exists."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror or error}.", fix="download the model again") from error
    if not stat.S_ISREG(mode):
        raise ModelFileError(
            f"{path} is not a regular file ({_what(mode)}).", fix="put the weights there as plain files"
        )
    return path


def listing(place: Path) -> str:
    """The names in a directory, for messages: at most ten."""
    names = sorted(os.listdir(place)) if place.is_dir() else [place.name]
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "") if names else "nothing"


def _counts(name: str) -> bool:
    return name not in _SKIPPED and not name.startswith(("adapter_", "."))


def _shards(index: Path) -> list[str]:
    """The shard names of an index file, checked to stay inside its directory."""
    if regular(index).stat().st_size > _INDEX_LIMIT:
        raise ModelFileError(f"{index} is larger than {_INDEX_LIMIT} bytes.", fix="download the model again")
    try:
        content = json.loads(index.read_bytes())
        weight_map = content["weight_map"]
        shards = {shard for name, shard in weight_map.items() if isinstance(name, str)}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"{index} is no index: a JSON object with a 'weight_map' from tensor to file was expected "
            f"({type(error).__name__}: {error}).",
            fix="download the model again",
        ) from error
    for shard in shards:
        parts = PurePosixPath(shard).parts if isinstance(shard, str) else ("..",)
        if not parts or ".." in parts or shard.startswith("/") or "\\" in shard or "\0" in shard:
            raise ModelFileError(f"{index} names the file {shard!r}, which is outside the model's directory.")
        if not (index.parent / shard).exists():
            held = sum(1 for file in weight_map.values() if file == shard)
            raise ModelFileError(
                f"{index.parent / shard} is missing; {index.name} expects {held} tensors in it.",
                fix="download the missing file",
            )
    return sorted(shards)


def _what(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
