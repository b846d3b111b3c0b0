"""Ways to damage a checkpoint: each takes a copy of the bundled model's directory and spoils it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]
NORM, GATE, UP = "model.norm.weight", "model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"


def config(**changes: Any) -> Damage:
    """config.json with those values; ``...`` removes a key."""

    def spoil(place: Path) -> None:
        path = place / "config.json"
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return spoil


def text(name: str, content: str) -> Damage:
    """A file with that content."""

    def spoil(place: Path) -> None:
        (place / name).write_text(content)

    return spoil


def gone(*names: str) -> Damage:
    """Those files are missing."""

    def spoil(place: Path) -> None:
        for name in names:
            (place / name).unlink()

    return spoil


def pipe(name: str) -> Damage:
    """A named pipe in place of the file."""

    def spoil(place: Path) -> None:
        (place / name).unlink()
        os.mkfifo(place / name)

    return spoil


def folder(name: str) -> Damage:
    """A directory in place of the file."""

    def spoil(place: Path) -> None:
        (place / name).unlink()
        (place / name).mkdir()

    return spoil


def link_to_nowhere(place: Path) -> None:
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to("/nowhere/model.safetensors")


def truncated(place: Path) -> None:
    path = place / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)


def header(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    """A safetensors header changed by ``edit``; a text that it returns becomes the header."""

    def spoil(place: Path) -> None:
        path = place / "model.safetensors"
        content = path.read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        values = json.loads(content[8 : 8 + size])
        found = edit(values)
        written = (found if isinstance(found, str) else json.dumps(values)).encode()
        path.write_bytes(struct.pack("<Q", len(written)) + written + content[8 + size :])

    return spoil


def tensor(name: str, **changes: Any) -> Damage:
    """One entry of the header with those values."""
    return header(lambda values: values[name].update(changes))


def same_place(values: dict[str, Any]) -> None:
    values[UP]["data_offsets"] = values[GATE]["data_offsets"]


def twice(values: dict[str, Any]) -> str:
    return json.dumps(values)[:-1] + f', "{NORM}": {json.dumps(values[NORM])}}}'


def header_size(size: int, file_size: int | None = None) -> Damage:
    """A header that says it is that long, in a file that long (mostly holes)."""

    def spoil(place: Path) -> None:
        with (place / "model.safetensors").open("r+b") as file:
            file.write(struct.pack("<Q", size))
            if file_size is not None:
                file.truncate(file_size)

    return spoil


def index(shard: str) -> Damage:
    return text("model.safetensors.index.json", json.dumps({"weight_map": {NORM: shard}}))


def tokenizer(edit: Callable[[dict[str, Any]], Any]) -> Damage:
    def spoil(place: Path) -> None:
        path = place / "tokenizer.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return spoil


def own_code(place: Path) -> None:
    """Code of the checkpoint's own, which would leave a trace."""
    config(auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})(place)
    (place / "own.py").write_text(f"open({str(place / 'ran')!r}, 'w')")


def harmful_pickle(place: Path) -> None:
    """A torch file whose unpickling would leave a trace."""
    import torch

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(place / "ran"), "w")

    (place / "model.safetensors").unlink()
    torch.save({NORM: Harm()}, place / "pytorch_model.bin")
