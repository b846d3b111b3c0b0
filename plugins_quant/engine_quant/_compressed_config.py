"""The quantization_config of compressed-tensors: groups of schemes, what they target, what is ignored. Torch-free."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader

from ._names import listed, regex

STRATEGIES = ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")
FORMATS = (
    "dense", "int-quantized", "float-quantized", "naive-quantized", "pack-quantized", "marlin-24", "mixed-precision",
    "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp6-pack-quantized", "mxfp8-quantized",
)  # fmt: skip
_PATH = "quantization_config."


class Numbers(msgspec.Struct, frozen=True):
    """How weights or activations are quantized: bits, kind and what one scale covers.

    ``dynamic``: "local" stands for scales per group that are dynamic under a static one. ``ordered``: columns are in the order of
    their importance (``weight_g_idx``). ``powers``: scales are powers of two, kept as their exponents.
    """

    bits: int
    kind: Literal["int", "float"]
    symmetric: bool
    strategy: str
    group: int
    block: tuple[int, int]
    dynamic: bool
    ordered: bool
    powers: bool


class Scheme(msgspec.Struct, frozen=True):
    """One entry of ``config_groups``."""

    key: str
    targets: tuple[str, ...]
    weights: Numbers | None
    inputs: Numbers | None
    format: str


class Sparsity(msgspec.Struct, frozen=True):
    """2:4 sparse weights beside or under the quantization."""

    format: str
    targets: tuple[str, ...]
    ignore: tuple[str, ...]


class CompressedConfig(msgspec.Struct, frozen=True):
    """All of it. ``cached``: the KV cache is quantized too."""

    schemes: tuple[Scheme, ...]
    ignore: tuple[str, ...]
    cached: bool
    sparsity: Sparsity | None

    def scheme_of(self, name: str) -> Scheme | None:
        """The scheme of a layer or part; None where it is ignored or nothing targets it."""
        if _matches(name, self.ignore):
            return None
        pairs = [(target, scheme) for scheme in self.schemes for target in scheme.targets]
        # The most specific wins: the exact name, then expressions, then the class.
        pairs.sort(key=lambda pair: (_is_class(pair[0]), pair[0].startswith("re:"), pair[0]))
        return next((scheme for target, scheme in pairs if _matches(name, (target,))), None)

    def embedding_scheme(self, name: str) -> Scheme | None:
        """The scheme of a token embedding: its name is listed, or its class."""
        if any(_matches_name(name, target) for target in self.ignore):
            return None
        found = (each for each in self.schemes for target in each.targets if _matches_name(name, target) or target == "Embedding")
        return next(found, None)

    def sparse(self, name: str) -> bool:
        """Whether the layer's weight is kept in a 2:4 compressed form."""
        if self.sparsity is None or self.sparsity.format == "dense":
            return False
        return _matches(name, self.sparsity.targets or ("Linear",)) and not _matches(name, self.sparsity.ignore)


def read_config(config: dict[str, Any]) -> CompressedConfig:
    """Raises :class:`engine.errors.ModelFileError` naming the key that cannot be read."""
    reader = ConfigReader(config, _PATH)
    whole = reader.text("format", "dense", known=FORMATS)
    groups = reader.table("config_groups")
    sparsity = _sparsity(reader)
    if groups is None and sparsity is None:
        raise reader.complaint("config_groups", config.get("config_groups"), "an object with at least one group")
    schemes = [_scheme(key, groups, whole) for key in (groups.values if groups else {})] if groups else []
    transforms = reader.table("transform_config")
    if transforms is not None and transforms.values.get("config_groups"):
        raise ModelFileError(
            f"config.json: {_PATH}transform_config rotates activations at run time, which no method here does.",
            fix="a checkpoint without transforms",
        )
    return CompressedConfig(tuple(schemes), tuple(listed(reader, "ignore")), reader.table("kv_cache_scheme") is not None, sparsity)


def _sparsity(reader: ConfigReader) -> Sparsity | None:
    table = reader.table("sparsity_config")
    if table is None:
        return None
    return Sparsity(
        table.text("format", "dense", known=("dense", "sparse-24-bitmask")), tuple(listed(table, "targets")), tuple(listed(table, "ignore"))
    )


def _scheme(key: str, groups: ConfigReader, whole: str) -> Scheme:
    reader = groups.table(key)
    if reader is None:
        raise groups.complaint(key, groups.values[key], "an object")
    own = reader.text("format", whole, known=FORMATS)
    if own == "mixed-precision":
        raise reader.complaint("format", own, f"the group's own, one of {', '.join(each for each in FORMATS if each != own)}")
    weights = _numbers(reader, "weights")
    inputs = _numbers(reader, "input_activations")
    targets = tuple(listed(reader, "targets"))
    outputs = reader.table("output_activations")
    if outputs is not None and not all(target.endswith(("k_proj", "v_proj", "k_proj$", "v_proj$")) for target in targets):
        raise reader.complaint("output_activations", outputs.values, "null: only the KV cache's projections may round their outputs")
    return Scheme(key, targets, weights, inputs, own)


def _numbers(scheme: ConfigReader, key: str) -> Numbers | None:
    reader = scheme.table(key)
    if reader is None:
        return None
    group = reader.optional_integer("group_size", low=-1)
    default = "tensor" if group is None else "channel" if group == -1 else "group"
    strategy = reader.text("strategy", default, known=STRATEGIES)
    if strategy in ("group", "tensor_group") and (group is None or group < 1):
        raise reader.complaint("group_size", group, f"a positive integer, which strategy {strategy!r} needs")
    block = _block(reader)
    if strategy == "block" and (len(block) != 2 or min(block) < 1):
        found = reader.values.get("block_structure")
        raise reader.complaint("block_structure", found, "two positive integers, which strategy 'block' needs")
    dynamic = reader.values.get("dynamic", False)
    if dynamic not in (True, False, "local"):
        raise reader.complaint("dynamic", dynamic, "true, false or 'local'")
    kind: Literal["int", "float"] = "int" if reader.text("type", "int", known=("int", "float")) == "int" else "float"
    return Numbers(
        bits=reader.integer("num_bits", 8, high=16),
        kind=kind,
        symmetric=reader.flag("symmetric", True),
        strategy=strategy,
        group=group if group is not None and strategy in ("group", "tensor_group") else 0,
        block=(block[0], block[1]) if strategy == "block" else (0, 0),
        dynamic=bool(dynamic),
        ordered=reader.values.get("actorder") in ("group", "dynamic", True),
        powers=reader.values.get("scale_dtype") in ("torch.uint8", "torch.float8_e8m0fnu"),
    )


def _block(reader: ConfigReader) -> tuple[int, ...]:
    """``block_structure``: a list, or in earlier versions a text such as 128x128."""
    found = reader.values.get("block_structure")
    if isinstance(found, str) and re.fullmatch(r"\d{1,8}x\d{1,8}", found):
        return tuple(int(size) for size in found.split("x"))
    return reader.integers("block_structure")


def _matches(name: str, targets: tuple[str, ...]) -> bool:
    return any(_is_class(target) or _matches_name(name, target) for target in targets)


def _matches_name(name: str, target: str) -> bool:
    return regex(target).match(name) is not None if target.startswith("re:") else target == name


def _is_class(target: str) -> bool:
    """Whether a target is the class of linear layers, in the spelling of one library or another."""
    return "." not in target and not target.startswith("re:") and target.endswith(("Linear", "LinearBase"))
