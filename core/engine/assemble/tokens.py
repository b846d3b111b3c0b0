"""How single tokens are shown in log-probabilities: their text and bytes."""

from __future__ import annotations

import re

from engine.plugin.contracts.text import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SPACE = "\u2581"


class TokenTexts:
    """Texts and bytes of single tokens of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._special = tokenizer.special_ids() if tokenizer is not None else frozenset()
        self._size = tokenizer.size() if tokenizer is not None else 0
        self._known: dict[int, str] = {}
        self._byte_of = {character: byte for byte, character in enumerate(_byte_level_alphabet())}

    def text(self, token: int, *, as_id: bool = False) -> str:
        """The token's own text, with its leading space; U+FFFD where it is no character alone. ``as_id``: ``token_id:N``."""
        if as_id or self._tokenizer is None:
            return f"token_id:{token}"
        if token not in self._known:
            self._known[token] = self._text(self._tokenizer, token)
        return self._known[token]

    def bytes(self, token: int) -> list[int]:
        """The token's bytes; those of a token that is no character alone come from its spelling in the vocabulary."""
        if self._tokenizer is None or not 0 <= token < self._size:
            return []
        text = self.text(token)
        if "\ufffd" in text:
            piece = self._tokenizer.token_text(token)
            match = _BYTE.fullmatch(piece)
            if match:
                return [int(match[1], 16)]
            if all(character in self._byte_of for character in piece):
                return [self._byte_of[character] for character in piece]
        return list(text.encode("utf-8", "replace"))

    def _text(self, tokenizer: Tokenizer, token: int) -> str:
        if not 0 <= token < self._size:
            return ""
        piece = tokenizer.token_text(token)
        if token in self._special:
            return piece
        text = tokenizer.decode([token], skip_special_tokens=False)
        # Decoders of sentencepiece vocabularies drop the space before a text's first word.
        if piece.startswith(SPACE) and not text.startswith(" "):
            return " " + text
        return text


def _byte_level_alphabet() -> list[str]:
    """The character that byte-level vocabularies write for each byte: itself where printable, else one after U+0100 in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
