"""Any tokenizer that transformers can read, behind one lock, because its objects keep state between calls."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.plugin import Tokenizer


class TransformersTokenizer(Tokenizer):
    """transformers' AutoTokenizer with ``use_fast=False``, from local files only."""

    def __init__(self, place: Path, *, trust_remote_code: bool) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(place), use_fast=False, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except ImportError:
            raise
        except Exception as error:
            # which exception transformers raises depends on the file that it stumbles over
            reason = " ".join(str(error).split())
            raise ModelFileError(
                f"{place}: transformers cannot read a tokenizer there ({type(error).__name__}: {reason:.300}).",
                fix="--tokenizer DIR, a directory that holds tokenizer.json",
            ) from error
        self._lock = threading.Lock()
        if set(self._vocabulary) <= set(self._tokenizer.get_added_vocab()):
            # where there is no vocabulary at all, transformers makes a tokenizer that knows no text
            raise ModelFileError(
                f"{place} holds no tokenizer: no tokenizer.json, tokenizer.model or vocabulary file.",
                fix="--tokenizer DIR, a directory that holds one, or --skip-tokenizer-init",
            )

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        with self._lock:
            ids: list[int] = self._tokenizer(
                text,
                add_special_tokens=add_special_tokens,
                split_special_tokens=not allow_special,
                truncation=False,
                verbose=False,
            )["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        size = self.size()
        with self._lock:
            text: str = self._tokenizer.decode(
                [token for token in token_ids if 0 <= token < size],
                skip_special_tokens=skip_special_tokens,
                clean_up_tokenization_spaces=False,
            )
        return text

    def token_text(self, token_id: int) -> str:
        if not 0 <= token_id < self.size():
            return ""
        with self._lock:
            return self._tokenizer.convert_ids_to_tokens(token_id) or ""

    def size(self) -> int:
        return self._size

    @cached_property
    def _size(self) -> int:
        return max(self._vocabulary.values(), default=-1) + 1

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        with self._lock:
            return dict(self._tokenizer.get_vocab())

    def special_ids(self) -> frozenset[int]:
        return frozenset(self._tokenizer.all_special_ids)

    def token_id(self, text: str) -> int | None:
        return self._vocabulary.get(text)

    @property
    def eos_token_id(self) -> int | None:
        found: int | None = self._tokenizer.eos_token_id
        return found

    @property
    def bos_token_id(self) -> int | None:
        found: int | None = self._tokenizer.bos_token_id
        return found

    def chat_template(self) -> str | dict[str, str] | None:
        found: str | dict[str, str] | None = self._tokenizer.chat_template
        return found

    def special_tokens(self) -> dict[str, str]:
        return {
            role: str(token)
            for role, token in self._tokenizer.special_tokens_map.items()
            if not isinstance(token, list)
        }
