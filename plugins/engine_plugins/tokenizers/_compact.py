"""A large byte-pair tokenizer.json read part by part: the library's own reading leaves holes of 18 MiB between what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import tokenizers

#: Files from here on (bytes) are worth it.
_LARGE = 1 << 20
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")


class _Model(msgspec.Struct, forbid_unknown_fields=True):
    """What the file says of a byte-pair model; merges are pairs, or two texts with a space between them."""

    type: str
    vocab: dict[str, int]
    merges: list[tuple[str, str] | str]
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _Added(msgspec.Struct, forbid_unknown_fields=True):
    """A token beside the model's."""

    id: int
    content: str
    special: bool
    lstrip: bool
    rstrip: bool
    single_word: bool
    normalized: bool


def read(file: Path) -> tokenizers.Tokenizer | None:
    """What the library makes of the file; None where it is small or of another form, or where its parts together would say something else
    than the file does: then the library has to read it."""
    from tokenizers import Tokenizer as LibraryTokenizer

    if file.stat().st_size < _LARGE:
        return None
    try:
        parts = msgspec.json.decode(file.read_bytes(), type=dict[str, msgspec.Raw])
        added = msgspec.json.decode(parts.get("added_tokens", b"[]"), type=list[_Added])
        model = _model(parts.pop("model", msgspec.Raw(b"{}")))
        parts |= {"added_tokens": msgspec.Raw(b"[]"), "model": msgspec.Raw(b'{"type":"BPE","vocab":{},"merges":[]}')}
        tokenizer = LibraryTokenizer.from_str(msgspec.json.encode(parts).decode())
    except Exception:  # noqa: BLE001 - the library throws nothing more precise, and says what is wrong when it reads the file itself
        return None
    if model is None:
        return None
    tokenizer.model = model
    return tokenizer if _completed(tokenizer, added) else None


def _model(written: msgspec.Raw) -> Any:
    """The library's model; None where the file has one of another kind."""
    from tokenizers.models import BPE

    model = msgspec.json.decode(written, type=_Model)
    if model.type != "BPE":
        return None
    merges: Any = [tuple(merge.split(" ")) if isinstance(merge, str) else merge for merge in model.merges]
    options = {field: value for field in _Model.__struct_fields__[3:] if (value := getattr(model, field)) is not None}
    return BPE(vocab=model.vocab, merges=merges, **options)


def _completed(tokenizer: tokenizers.Tokenizer, added: list[_Added]) -> bool:
    """Give it the added tokens; whether they have the file's ids."""
    from tokenizers import AddedToken

    tokens = {token.id: AddedToken(token.content, **{flag: getattr(token, flag) for flag in _FLAGS}) for token in added}
    tokenizer.add_tokens([tokens[token_id] for token_id in sorted(tokens)])
    return len(tokens) == len(added) and tokenizer.get_added_tokens_decoder() == tokens
