"""A vocabulary of the 256 bytes, an end token, and markers that are special tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.plugin import Tokenizer
from engine.plugin.vocabulary import byte_characters


class Letters(Tokenizer):
    """Ids 0 to 255 are bytes, 256 is the end, then the markers."""

    END = 256

    def __init__(self, markers: Sequence[str]) -> None:
        self.pieces = [*sorted(byte_characters(), key=byte_characters().__getitem__), "<eos>", *markers]
        self._pattern = re.compile("(" + "|".join(map(re.escape, sorted(markers, key=len, reverse=True))) + ")") if markers else None

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        if self._pattern is None or not allow_special:
            return list(text.encode())
        found: list[int] = []
        for place, piece in enumerate(self._pattern.split(text)):
            found += [self.pieces.index(piece, self.END)] if place % 2 else piece.encode()
        return found

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        parts = [bytes([i]) if i < self.END else b"" if skip_special_tokens else self.pieces[i].encode() for i in token_ids]
        return b"".join(parts).decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        return self.pieces[token_id]

    def size(self) -> int:
        return len(self.pieces)

    def special_ids(self) -> frozenset[int]:
        return frozenset(range(self.END, len(self.pieces)))

    def token_id(self, text: str) -> int | None:
        return self.pieces.index(text) if text in self.pieces else None

    @property
    def eos_token_id(self) -> int | None:
        return self.END

    @property
    def bos_token_id(self) -> int | None:
        return None

    def chat_template(self) -> None:
        return None
