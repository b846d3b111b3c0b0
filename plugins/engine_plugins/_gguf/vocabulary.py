"""The vocabulary in a GGUF file's metadata: pieces with their kinds, merges or scores, special tokens, chat templates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.errors import ModelFileError

from .cursor import Values, refuse
from .model import GgufModel
from .splits import SPLITS, Split

#: Kinds of pieces (tokenizer.ggml.token_type).
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6
_MODELS = ("llama", "gpt2")
#: The roles of special tokens, as chat templates name them.
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token", "seperator": "sep_token"}


@dataclass(frozen=True)
class Vocabulary:
    """``model``: ``gpt2`` merges byte-level words in the order of ``merges``; ``llama`` merges by the pieces' scores.

    ``named``: texts of special tokens by role. ``first``/``last``: tokens that are put around every text.
    """

    model: str
    pieces: list[str]
    kinds: list[int]
    merges: list[tuple[str, str]]
    split: Split
    named: dict[str, str]
    first: str | None
    last: str | None
    space_first: bool
    chat_template: str | dict[str, str] | None
    trims: bool

    def ids(self) -> dict[str, int]:
        """Ids by piece; of pieces that are there twice the first."""
        found: dict[str, int] = {}
        for index, piece in enumerate(self.pieces):
            found.setdefault(piece, index)
        return found

    def added(self) -> Iterator[tuple[str, bool]]:
        """Pieces that are found in a text as they stand, and whether they are special."""
        for piece, kind in zip(self.pieces, self.kinds, strict=True):
            if piece and kind in (CONTROL, USER_DEFINED, UNKNOWN):
                yield piece, kind != USER_DEFINED


def read_vocabulary(model: GgufModel) -> Vocabulary:
    """Raises :class:`engine.errors.ModelFileError` naming file and key."""
    if "tokenizer.ggml.model" not in model.metadata:
        raise ModelFileError(
            f"{model.path} holds no vocabulary: tokenizer.ggml.model is missing.",
            fix="--tokenizer DIR, a directory that holds the model's tokenizer.json, or --skip-tokenizer-init",
        )
    kind = model.text("tokenizer.ggml.model")
    if kind not in _MODELS:
        raise ModelFileError(
            f"{model.path}: tokenizer.ggml.model is {kind!r}; known are {', '.join(_MODELS)}.",
            fix="--tokenizer DIR, a directory that holds the model's tokenizer.json",
        )
    pieces = _list(model, "tokens", str)
    kinds = _list(model, "token_type", int, len(pieces)) if "tokenizer.ggml.token_type" in model.metadata else [1] * len(pieces)
    rows = model.tensors.get("token_embd.weight")
    if rows is not None and len(pieces) > rows.shape[0]:
        refuse(model.path, f"tokenizer.ggml.tokens has {len(pieces)} entries, but the embedding 'token_embd.weight' {rows.shape[0]} rows")
    split = _split(model) if kind == "gpt2" else Split((), begins=True)
    named = _named(model, pieces)
    begins = model.flag("tokenizer.ggml.add_bos_token", default=split.begins)
    ends = model.flag("tokenizer.ggml.add_eos_token", default=False)
    return Vocabulary(
        model=kind, pieces=pieces, kinds=kinds, merges=_merges(model) if kind == "gpt2" else _merges_by_score(model, pieces, kinds),
        split=split, named=named, first=named.get("bos_token") if begins else None, last=named.get("eos_token") if ends else None,
        space_first=model.flag("tokenizer.ggml.add_space_prefix", default=True), chat_template=_templates(model),
        trims=kind == "llama" and model.architecture == "phi3",
    )  # fmt: skip


def _list(model: GgufModel, name: str, kind: type, count: int | None = None) -> list[Any]:
    """An array of the tokenizer's, each entry of that type."""
    key = f"tokenizer.ggml.{name}"
    values = model.metadata.get(key)
    entries = values.read() if isinstance(values, Values) else []
    if not entries or not all(type(entry) is kind for entry in entries):
        refuse(model.path, f"{key} is missing, or no array of {kind.__name__}")
    if count is not None and len(entries) != count:
        refuse(model.path, f"{key} has {len(entries)} entries; {count} were expected, one for each of tokenizer.ggml.tokens")
    return entries


def _split(model: GgufModel) -> Split:
    name = model.text("tokenizer.ggml.pre", "default")
    if name not in SPLITS:
        raise ModelFileError(
            f"{model.path}: tokenizer.ggml.pre is {name!r}; known are {', '.join(sorted(SPLITS))}.",
            fix="--tokenizer DIR, a directory that holds the model's tokenizer.json",
        )
    return SPLITS[name]


def _named(model: GgufModel, pieces: list[str]) -> dict[str, str]:
    """Texts of special tokens by role."""
    # vocabularies without the keys have the ids of the first Llama's, or of GPT-2
    defaults = {"bos": 1, "eos": 2} if model.text("tokenizer.ggml.model") == "llama" else {}
    found = {}
    for role, name in _ROLES.items():
        key = f"tokenizer.ggml.{role}_token_id"
        if key in model.metadata or role in defaults:
            found[name] = pieces[model.integer(key, defaults.get(role), high=len(pieces) - 1)]
    return found


def _merges(model: GgufModel) -> list[tuple[str, str]]:
    found = []
    for index, merge in enumerate(_list(model, "merges", str)):
        place = merge.find(" ", 1)
        left, right = merge[:place], merge[place + 1 :]
        if place < 1 or not right:
            refuse(model.path, f"entry {index} of tokenizer.ggml.merges is {merge!r:.100}; two pieces with a space between were expected")
        found.append((left, right))
    return found


def _merges_by_score(model: GgufModel, pieces: list[str], kinds: list[int]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two others, the piece of the best score first, as SentencePiece merges them."""
    scores = _list(model, "scores", float, len(pieces))
    plain = {piece: index for index, (piece, kind) in enumerate(zip(pieces, kinds, strict=True)) if kind not in (CONTROL, BYTE, UNKNOWN)}
    ways: list[tuple[float, int, str, str]] = []
    for piece, index in plain.items():
        for place in range(1, len(piece)):
            left, right = piece[:place], piece[place:]
            if left in plain and right in plain:
                ways.append((-scores[index], index, left, right))
    ways.sort(key=lambda way: way[:2])
    return [(left, right) for _, _, left, right in ways]


def _templates(model: GgufModel) -> str | dict[str, str] | None:
    """The chat template, and those under further names."""
    prefix = "tokenizer.chat_template"
    found = {key.removeprefix(f"{prefix}."): model.text(key) for key in model.metadata if key.startswith(f"{prefix}.")}
    if prefix not in model.metadata:
        return found or None
    return {"default": model.text(prefix), **found} if found else model.text(prefix)
