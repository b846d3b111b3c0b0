"""A Tokenizer on the ``tokenizers`` library, for tests of the core (which know no plugin)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from engine.plugin import Tokenizer


class FileTokenizer(Tokenizer):
    """Reads a ``tokenizer.json``; ``special`` texts are added as special tokens."""

    def __init__(
        self, path: Path | tokenizers.Tokenizer, *, bos: str | None = None, eos: str | None = None, special=(), template: Any = None
    ):
        self._raw = path if isinstance(path, tokenizers.Tokenizer) else tokenizers.Tokenizer.from_file(str(path))
        self._raw.add_special_tokens([text for text in (*special, bos, eos) if text])
        self._literal = tokenizers.Tokenizer.from_str(self._raw.to_str())
        self._literal.encode_special_tokens = True
        self._bos, self._eos, self._template = bos, eos, template
        added = self._raw.get_added_tokens_decoder()
        self._special = frozenset(token for token, entry in added.items() if entry.special)

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        raw = self._raw if allow_special else self._literal
        return raw.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self._raw.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        return self._raw.id_to_token(token_id) or ""

    def size(self) -> int:
        return self._raw.get_vocab_size()

    def special_ids(self) -> frozenset[int]:
        return self._special

    def token_id(self, text: str) -> int | None:
        return self._raw.token_to_id(text)

    @property
    def eos_token_id(self) -> int | None:
        return self._eos and self.token_id(self._eos)

    @property
    def bos_token_id(self) -> int | None:
        return self._bos and self.token_id(self._bos)

    def chat_template(self) -> Any:
        return self._template

    def special_tokens(self) -> dict[str, str]:
        return {name: text for name, text in (("bos_token", self._bos), ("eos_token", self._eos)) if text}


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokenizer(*special: str, template: Any = None) -> FileTokenizer:
    """A byte-level tokenizer of 256 bytes, a few merges, chat markers and ``special``; needs no data. Bytes are 0-255 in alphabet order."""
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: number for number, piece in enumerate(alphabet)}
    merges = []
    for left, right in (("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"), ("o", "r")):
        vocab[left + right] = len(vocab)
        merges.append((left, right))
    raw = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return FileTokenizer(raw, bos="<s>", eos="</s>", special=("<|im_start|>", "<|im_end|>", *special), template=template or CHATML)
