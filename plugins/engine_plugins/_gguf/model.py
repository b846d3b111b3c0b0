"""A model in GGUF: one file or the shards of a split one, with its architecture and the names of its tensors."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.errors import ModelFileError

from .cursor import Values, refuse
from .families import FAMILIES, MISTRAL, MIXTRAL, ROPE_TENSORS, Family
from .header import Header, TensorEntry, Value, read_header

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_MOST_SHARDS = 1000


class Placed(NamedTuple):
    """A tensor with its place in the checkpoint: ``name`` without ``.weight`` or ``.bias``, which is ``kind``."""

    name: str
    kind: str
    entry: TensorEntry


class Named(NamedTuple):
    """A tensor under its checkpoint name; ``expert``: its number in a stacked tensor, None of any other."""

    name: str
    placed: Placed
    expert: int | None = None


class GgufModel:
    """Metadata (the first shard's) and tensors of all shards. Raises :class:`ModelFileError` for what cannot be meant."""

    def __init__(self, path: Path) -> None:
        headers = [read_header(file) for file in shard_files(path)]
        self.path = headers[0].path
        self.metadata: dict[str, Value] = headers[0].metadata
        self.tensors: dict[str, TensorEntry] = {}
        for header in headers:
            for entry in header.tensors.values():
                self._add(entry)
        self._check_split(headers)

    def _add(self, entry: TensorEntry) -> None:
        if entry.name in self.tensors:
            refuse(entry.path, f"the tensor {entry.name!r} is in {self.tensors[entry.name].path.name} too")
        self.tensors[entry.name] = entry

    def _check_split(self, headers: list[Header]) -> None:
        count = self.integer("split.count", 1)
        if count > 1 and len(headers) != count:
            refuse(self.path, f"split.count is {count}, but {len(headers)} files belong to the model by their names")
        expected = self.integer("split.tensors.count", len(self.tensors))
        if count > 1 and expected != len(self.tensors):
            refuse(self.path, f"split.tensors.count is {expected}, but the shards hold {len(self.tensors)} tensors")

    def text(self, key: str, default: str | None = None) -> str:
        """A string of the metadata."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            refuse(self.path, f"{key} is {_shown(value)}; a text was expected")
        return value

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = 2**40) -> int:
        """A whole number of the metadata."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            refuse(self.path, f"{key} is {_shown(value)}; a whole number from {low} to {high} was expected")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value of the metadata."""
        value = self.metadata.get(key, default)
        if not isinstance(value, bool):
            refuse(self.path, f"{key} is {_shown(value)}; true or false was expected")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number of the metadata."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            refuse(self.path, f"{key} is {_shown(value)}; a number was expected")
        return float(value)

    @property
    def architecture(self) -> str:
        """``general.architecture``."""
        return self.text("general.architecture")

    def family(self) -> Family:
        """What the engine knows of the architecture."""
        name = self.architecture
        if name not in FAMILIES:
            raise ModelFileError(
                f"{self.path}: general.architecture is {name!r}; known are {', '.join(FAMILIES)}.",
                fix="the model's safetensors checkpoint",
            )
        if name == "llama" and self.integer("llama.expert_count", 0) > 0:
            return MIXTRAL
        if name == "llama" and "llama.attention.sliding_window" in self.metadata:
            return MISTRAL
        return FAMILIES[name]

    def head_counts(self) -> tuple[int, int]:
        """Attention heads, and KV heads."""
        heads = self.integer(f"{self.architecture}.attention.head_count", low=1, high=65_536)
        return heads, self.integer(f"{self.architecture}.attention.head_count_kv", heads, low=1, high=heads)

    def placed(self) -> Iterator[Placed]:
        """Every weight with its place in the checkpoint, in the order of the bytes. Refuses unknown tensors."""
        family = self.family()
        names = {f"{own}.{kind}": (place, kind) for own, place in family.ends.items() for kind in ("weight", "bias")}
        for entry in self.tensors.values():
            if entry.name in ROPE_TENSORS or entry.name.endswith(".attn_rot_embd.weight"):
                continue
            if entry.name in names:
                yield Placed(*names[entry.name], entry)
            else:
                yield self._in_block(family, entry)

    def _in_block(self, family: Family, entry: TensorEntry) -> Placed:
        match = re.fullmatch(r"blk\.(\d+)\.([a-z0-9_]+?)(?:\.(\d+))?\.(weight|bias)", entry.name)
        place = family.block.get(match[2]) if match else None
        if match and match[3] is not None:
            # files of before April 2024 have one tensor per expert
            place = family.block.get(f"{match[2]}_exps", "").replace("*", match[3]) or None
        if match is None or place is None:
            refuse(entry.path, f"the tensor {entry.name!r} is not one of the architecture {self.architecture!r}")
        return Placed(f"{family.prefix}.{match[1]}.{place}", match[4], entry)

    def floats(self, name: str) -> list[float]:
        """A small float32 tensor's numbers."""
        entry = self.tensors[name]
        if entry.type.name != "F32" or entry.nbytes > 1 << 20:
            refuse(entry.path, f"tensor {name!r} is {entry.type.name} of {entry.nbytes} bytes; at most 1 MiB of F32 was expected")
        with entry.path.open("rb") as file:
            file.seek(entry.offset)
            return list(struct.unpack(f"<{entry.nbytes // 4}f", file.read(entry.nbytes)))


def shard_files(path: Path) -> list[Path]:
    """The file, or all shards of the split model that it belongs to. Raises for a shard that is missing, naming it."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count <= _MOST_SHARDS:
        refuse(path, f"the file's name counts shard {int(match['number'])} of {count}; at most {_MOST_SHARDS} are read")
    shards = [path.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    for shard in shards:
        if not shard.exists():
            raise ModelFileError(f"{shard} is missing; the model is split into {count} files.", fix="download the missing file")
    return shards


def _shown(value: Value | None) -> str:
    if isinstance(value, Values):
        return f"an array of {value.count}"
    return "missing" if value is None else f"{value!r:.100}"
