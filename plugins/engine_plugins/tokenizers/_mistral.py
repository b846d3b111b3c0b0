"""A mistral-common tokenizer: its vocabulary spelled as guided decoding expects it, its chat encoding as it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from mistral_common.exceptions import MistralCommonException
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy, TokenizerVersion
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from engine.errors import ModelFileError, RequestError
from engine.plugin import Tokenizer

from ._mistral_chat import chat_request, refused

_LIMIT = 200_000_000


class MistralCommonTokenizer(Tokenizer):
    """Special tokens come from the chat encoding alone: a text that spells one is text, whatever ``allow_special`` says."""

    def __init__(self, file: Path) -> None:
        self._whole = _load(file)
        self._tokenizer = self._whole.instruct_tokenizer.tokenizer
        self._special = frozenset(int(token) for token in self._tokenizer.special_ids)
        # sentencepiece's processor and tiktoken's encoder are safe to share; mistral-common's own caches are not promised to be
        self._lock = threading.Lock()

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        return list(self._tokenizer.encode(text, bos=add_special_tokens, eos=False))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        size = self.size()
        known = (token for token in token_ids if 0 <= token < size)
        text = []
        for special, run in groupby(known, lambda token: token in self._special):
            if not special:
                text.append(self._tokenizer.decode(list(run), SpecialTokenPolicy.IGNORE))
            elif not skip_special_tokens:
                text.extend(self.token_text(token) for token in run)
        return "".join(text)

    def token_text(self, token_id: int) -> str:
        return self._pieces[token_id] if 0 <= token_id < len(self._pieces) else ""

    def size(self) -> int:
        return int(self._tokenizer.n_words)

    def special_ids(self) -> frozenset[int]:
        return self._special

    def token_id(self, text: str) -> int | None:
        return self._ids.get(text)

    @property
    def eos_token_id(self) -> int | None:
        return int(self._tokenizer.eos_id)

    @property
    def bos_token_id(self) -> int | None:
        return int(self._tokenizer.bos_id)

    def chat_template(self) -> str | dict[str, str] | None:
        """None: see :meth:`render_chat`."""
        return None

    def special_tokens(self) -> dict[str, str]:
        return {"bos_token": self.token_text(self._tokenizer.bos_id), "eos_token": self.token_text(self._tokenizer.eos_id)}

    def render_chat(self, messages: list[dict[str, Any]], options: dict[str, Any]) -> list[int] | None:
        """mistral-common's encoding. A final assistant message is what the answer continues. Raises RequestError."""
        if options.get("tools") and self._tokenizer.version == TokenizerVersion.v1:
            raise RequestError("tools: the first version of Mistral's chat format has none.", param="tools", fix="leave tools out")
        request = chat_request(messages, options)
        try:
            with self._lock:
                return list(self._whole.encode_chat_completion(request).tokens)
        except (MistralCommonException, ValueError) as error:
            raise refused(error) from error

    @cached_property
    def _pieces(self) -> list[str]:
        if not isinstance(self._tokenizer, Tekkenizer):
            return [self._tokenizer.id_to_piece(token) for token in range(self.size())]
        spelled = _byte_alphabet()
        pieces = []
        for token in range(self.size()):
            if token in self._special:
                pieces.append(self._tokenizer.id_to_piece(token))
            else:
                pieces.append("".join(spelled[byte] for byte in self._tokenizer.id_to_byte_piece(token)))
        return pieces

    @cached_property
    def _ids(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for token, piece in enumerate(self._pieces):
            found.setdefault(piece, token)
        return found


def _load(file: Path) -> Any:
    if not file.is_file() or not 0 < file.stat().st_size <= _LIMIT:
        raise ModelFileError(f"{file} is not a regular file of 1 to {_LIMIT} bytes.", fix="download it again")
    try:
        return MistralTokenizer.from_file(file)
    except (MistralCommonException, ArithmeticError, AssertionError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        # the library checks files with asserts, and whatever its JSON and protobuf readers raise passes through
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, json.JSONDecodeError):
            reason = f"not valid JSON: {reason}"
        raise ModelFileError(f"{file}: mistral-common cannot read it: {reason:.300}.", fix="download it again") from error


def _byte_alphabet() -> list[str]:
    """The character by which byte-level vocabularies (GPT-2's and those after it) spell each byte."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
