"""The folder that is written: beside its final place, which it takes when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import ConfigError

#: Left free on the disk beside what is written.
_SPARE = 16 << 20


def check_place(out: Path, need: int) -> None:
    """Refuse a place that exists with content, that cannot be written, or with less than ``need`` bytes of room."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"--out {out} is {'a link' if out.is_symlink() else 'a file'}.", fix="--out with a new directory")
    if out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty.", fix="--out with a new directory")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"--out {out}: {parent} cannot be written to.", fix="--out with a directory of your own")
    free = shutil.disk_usage(parent).free
    if free < need + _SPARE:
        raise ConfigError(f"--out {out}: the result takes about {need} bytes, but {free} are free there.", fix="--out on another disk")


@contextmanager
def written(out: Path) -> Iterator[Path]:
    """A hidden folder beside ``out`` that becomes ``out`` at the end; whatever ends the writing before that removes it.

    A disk that is full ends as :class:`ConfigError`.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden = out.with_name(f".{out.name}.unfinished-{os.getpid()}")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    try:
        yield hidden
        # A directory takes the place of an empty one.
        hidden.rename(out)
    except OSError as error:
        if error.filename and str(hidden) not in str(error.filename):
            raise
        free = shutil.disk_usage(out.parent).free
        raise ConfigError(f"--out {out}: {error.strerror or error}; {free} bytes are free there.", fix="--out on another disk") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
