"""A tokenizer.json as the keys ``tokenizer.ggml.…`` of a GGUF file: the inverse of ``vocabulary``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.plugin import ModelInfo
from engine_plugins.tokenizers._settings import read_json, read_settings

from .encode import Entry
from .splits import SPLITS

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding", "sep_token": "seperator"}
#: Names that are taken first where several mean the same split.
_USUAL = ("qwen2", "llama-bpe", "gpt-2", "tekken", "gpt-4o", "deepseek-v3")
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: The score of a piece that no merge makes.
_NEVER = -1e6


def vocabulary_entries(place: Path, info: ModelInfo) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """The keys, and what they cannot say. Nothing but a note where there is no vocabulary of a kind that GGUF has."""
    file = place / "tokenizer.json" if place.is_dir() else place
    content = read_json(file) if file.name == "tokenizer.json" else {}
    model = content.get("model") or {}
    if model.get("type", "BPE" if "merges" in model else None) != "BPE":
        found = model.get("type") or "no tokenizer.json"
        why = f"{found}; GGUF has byte-level and SentencePiece-like ones"
        return {}, (f"The file holds no vocabulary ({why}): other programs cannot read text.",)
    settings = read_settings(file.parent)
    pieces, kinds = _pieces(content, model, info.vocab_size)
    ids = {piece: index for index, piece in enumerate(pieces)}
    steps = _steps(content.get("pre_tokenizer"))
    byte_level = any(step.get("type") == "ByteLevel" for step in steps)
    notes: tuple[str, ...] = ()
    entries: dict[str, Entry]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", [])]
    if byte_level:
        pre = _split_name(content, model, steps)
        if pre is None:
            notes = ("GGUF has no name for how this vocabulary cuts words: engine reads tokenizer.json beside the file, "
                     "others take the default split and get other tokens.",)  # fmt: skip
        entries = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre or "default", "tokenizer.ggml.merges": merges}
    else:
        entries = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.scores": _scores(pieces, merges)}
        entries["tokenizer.ggml.add_space_prefix"] = _space_first(content, steps)
    entries |= {"tokenizer.ggml.tokens": pieces, "tokenizer.ggml.token_type": kinds}
    for role, name in _ROLES.items():
        if settings.named.get(role) in ids:
            entries[f"tokenizer.ggml.{name}_token_id"] = ids[settings.named[role]]
    entries |= _ends(info, entries) | _around(file, entries)
    if isinstance(settings.chat_template, str):
        entries["tokenizer.chat_template"] = settings.chat_template
    elif settings.chat_template:
        for name, text in settings.chat_template.items():
            entries["tokenizer.chat_template" + ("" if name == "default" else f".{name}")] = text
    return entries, notes


def _pieces(content: dict[str, Any], model: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Pieces by id with their kinds; ids of the embedding that nothing has are filled up."""
    added = {token["id"]: token for token in content.get("added_tokens", [])}
    by_id: dict[int, str] = {index: piece for piece, index in model["vocab"].items()} | {i: t["content"] for i, t in added.items()}
    pieces, kinds = [], []
    for index in range(size):
        piece = by_id.get(index)
        pieces.append(f"[PAD{index}]" if piece is None else piece)
        if piece is None:
            kinds.append(_UNUSED)
        elif piece == model.get("unk_token"):
            kinds.append(_UNKNOWN)
        elif index in added:
            kinds.append(_CONTROL if added[index]["special"] else _USER)
        else:
            kinds.append(_BYTE if model.get("byte_fallback") and len(piece) == 6 and piece.startswith("<0x") else _NORMAL)
    return pieces, kinds


def _steps(pre: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not pre:
        return []
    return list(pre["pretokenizers"]) if pre.get("type") == "Sequence" else [pre]


def _split_name(content: dict[str, Any], model: dict[str, Any], steps: list[dict[str, Any]]) -> str | None:
    """``tokenizer.ggml.pre`` of the same expressions; None where no name means them."""
    patterns = [step["pattern"].get("Regex") for step in steps if step.get("type") == "Split"]
    if any(step.get("type") == "ByteLevel" and step.get("use_regex", True) for step in steps):
        patterns.append(_GPT2)
    digits = [step for step in steps if step.get("type") == "Digits"]
    if digits:
        patterns.insert(0, r"\p{N}")
    composed = (content.get("normalizer") or {}).get("type") == "NFC"
    whole = bool(model.get("ignore_merges"))
    found = [
        name for name, split in SPLITS.items() if list(split.patterns) == patterns and split.whole_words == whole and split.nfc == composed
    ]
    return next((name for name in _USUAL if name in found), found[0] if found else None)


def _scores(pieces: list[str], merges: list[str]) -> list[float]:
    """The earlier a merge makes a piece, the higher its score."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        ranks.setdefault(left + right, rank)
    return [-float(ranks[piece]) if piece in ranks else _NEVER for piece in pieces]


def _space_first(content: dict[str, Any], steps: list[dict[str, Any]]) -> bool:
    """Whether a space is put before every text."""
    normalizer = content.get("normalizer") or {}
    parts = normalizer.get("normalizers", [normalizer])
    metaspace = any(step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never" for step in steps)
    return metaspace or any(part.get("type") == "Prepend" for part in parts)


def _ends(info: ModelInfo, entries: dict[str, Entry]) -> dict[str, Entry]:
    """Further ids that end an output."""
    known = entries.get("tokenizer.ggml.eos_token_id")
    others = [index for index in info.eos_token_ids if index != known]
    found: dict[str, Entry] = {}
    if others and known is None:
        found["tokenizer.ggml.eos_token_id"] = others.pop(0)
    for role, index in zip(("eot", "eom"), others, strict=False):
        found[f"tokenizer.ggml.{role}_token_id"] = index
    return found


def _around(file: Path, entries: dict[str, Entry]) -> dict[str, Entry]:
    """Whether the vocabulary's own file puts BOS and EOS around a text."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(file)).encode("").ids
    first, last = entries.get("tokenizer.ggml.bos_token_id"), entries.get("tokenizer.ggml.eos_token_id")
    return {
        "tokenizer.ggml.add_bos_token": bool(ids) and ids[0] == first,
        "tokenizer.ggml.add_eos_token": bool(ids) and ids[-1] == last and (len(ids) > 1 or first != last),
    }  # fmt: skip
