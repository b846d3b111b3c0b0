"""What each token id adds to the output, as bytes: the form in which guided-decoding backends want a vocabulary."""

from __future__ import annotations

import re

from engine.errors import ConfigError
from engine.plugin.contracts.text import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """``tokens``: one entry per column of the logits; empty where a grammar must never allow the token (special tokens, gaps, padding).

    ``end``: the id that stands for the end of the output.
    """

    def __init__(self, tokens: list[bytes], end: int) -> None:
        self.tokens = tokens
        self.end = end

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: int) -> Vocabulary:
        """The vocabulary of a tokenizer for logits of width ``size``. Raises ConfigError where the tokenizer has no end token."""
        end = tokenizer.eos_token_id
        if end is None or not 0 <= end < size:
            raise ConfigError("guided decoding needs a tokenizer that names its end token.", fix="eos_token in tokenizer_config.json")
        special = tokenizer.special_ids()
        texts = ["" if i in special else tokenizer.token_text(i) for i in range(min(size, tokenizer.size()))]
        convert = _byte_level if _is_byte_level(texts) else _pieces
        tokens = [convert(text) for text in texts]
        tokens[end : end + 1] = [b""]
        tokens += [b""] * (size - len(tokens))
        return cls(tokens, end)


def byte_characters() -> dict[str, int]:
    """The characters by which byte-level vocabularies spell the 256 bytes."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + place): byte for place, byte in enumerate(hidden)}


_CHARACTERS = byte_characters()


def _is_byte_level(texts: list[str]) -> bool:
    """Byte-level vocabularies spell a space as Ġ and have every byte; others spell it ▁, or as it is."""
    whole = set(texts)
    return "Ġ" in whole and sum(character in whole for character in _CHARACTERS) > 200


def _byte_level(text: str) -> bytes:
    try:
        return bytes(map(_CHARACTERS.__getitem__, text))
    except KeyError:
        # Added tokens are spelled as they are, so a character outside the alphabet means plain text.
        return text.encode("utf-8", "surrogatepass")


def _pieces(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    if byte is not None:
        return bytes((int(byte[1], 16),))
    return text.replace("▁", " ").encode("utf-8", "surrogatepass")
