"""Reads one JSON object from a model's file, and says what is wrong with it otherwise."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError

#: Real configurations take kilobytes; a quantization's module lists can reach megabytes.
LIMIT = 50_000_000


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in ``file``. Raises :class:`ModelFileError` naming the file and the position."""
    try:
        status = file.stat()
    except OSError as error:
        raise ModelFileError(f"{file}: {error.strerror or error}.", fix="download the model again") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{file} is not a regular file.", fix="put the file there as a plain file")
    if status.st_size > LIMIT:
        raise ModelFileError(f"{file} has {status.st_size} bytes; at most {LIMIT} are read.", fix="download it again")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{file} is not valid JSON: {error}.", fix="download it again") from error
    if not isinstance(content, dict):
        raise ModelFileError(
            f"{file} holds a JSON {_name(content)} where an object was expected.", fix="download it again"
        )
    return content


def _name(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names[type(value)]
