"""Prompts of every form to token ids: bounded before they are tokenized, tokenized off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.errors import RequestError
from engine.plugin.contracts.text import Tokenizer, TokenizerPool
from engine.render.params import Limits, check_token_ids, too_long
from engine.render.specials import Piece, SpecialTexts
from engine.tracing import piece as timed

Prompt = str | list[int]
MAX_PROMPTS = 4096
#: Texts up to this many characters are tokenized at once; a thread would cost more.
SHORT_TEXT = 256


def parse_prompts(value: Any, limits: Limits, *, param: str = "prompt") -> list[Prompt]:
    """A text, a list of texts, token ids or a list of lists of token ids, as a list of prompts. Raises RequestError."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise RequestError(f"{param} must be a text, a list of texts, token ids, or a list of lists of token ids.", param=param)
    if not value:
        raise RequestError(f"{param} cannot be an empty list.", param=param)
    if _is_ids(value):
        return [_ids(value, limits, param)]
    if len(value) > MAX_PROMPTS:
        raise RequestError(f"{param} cannot hold {len(value)} prompts; allowed: at most {MAX_PROMPTS}.", param=param)
    prompts: list[Prompt] = []
    for index, item in enumerate(value):
        if isinstance(item, str) and all(isinstance(other, str) for other in value):
            prompts.append(item)
        elif isinstance(item, list) and all(isinstance(other, list) for other in value):
            if not item or not _is_ids(item):
                raise RequestError(f"{param}[{index}] must be a list of token ids that is not empty.", param=param)
            prompts.append(_ids(item, limits, param))
        else:
            raise RequestError(f"{param}[{index}] must be of the kind of the other entries: all texts or all token ids.", param=param)
    return prompts


class PromptEncoder:
    """Turns prompts into token ids, on its own threads or by a tokenizer pool."""

    def __init__(self, tokenizer: Tokenizer | None, limits: Limits, pool: TokenizerPool | None = None) -> None:
        """``tokenizer`` None: texts are refused (--skip-tokenizer-init)."""
        self.tokenizer = tokenizer
        self.limits = limits
        self._pool = pool
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenize")
        self._longest = max(1, _longest_piece(tokenizer)) if tokenizer is not None else 1
        special = tokenizer.special_ids() if tokenizer is not None else frozenset()
        self.specials = SpecialTexts(tokenizer.token_text(token) for token in special) if tokenizer is not None else SpecialTexts(())

    async def encode(
        self, prompt: Prompt, *, add_special_tokens: bool = True, truncate: int | None = None, param: str = "prompt"
    ) -> list[int]:
        """Token ids of one prompt. ``truncate``: keep the last so many. Raises RequestError for an empty or over-long one."""
        if isinstance(prompt, str):
            ids = await self.encode_text(prompt, add_special_tokens=add_special_tokens, bounded=truncate is None, param=param)
            if not ids:
                ids = self._beginning(param)
        elif prompt:
            ids = prompt
        else:
            raise RequestError(f"{param} cannot be an empty list of token ids.", param=param)
        return self.fit(ids, truncate, param)

    async def encode_pieces(
        self, pieces: Sequence[Piece], *, add_special_tokens: bool = False, truncate: int | None = None, param: str = "messages"
    ) -> list[int]:
        """Token ids of rendered text; ``add_special_tokens`` concerns its beginning."""
        ids: list[int] = []
        for index, piece in enumerate(pieces):
            ids += await self.encode_text(
                piece.text,
                add_special_tokens=add_special_tokens and index == 0,
                allow_special=piece.special,
                bounded=truncate is None,
                param=param,
            )
        return self.fit(ids or self._beginning(param), truncate, param)

    async def encode_text(
        self, text: str, *, add_special_tokens: bool, allow_special: bool = True, bounded: bool = True, param: str = "prompt"
    ) -> list[int]:
        """Token ids of a text; ``bounded``: one that must be longer than the context is refused before it is tokenized."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise RequestError(f"{param} must be token ids: this server runs without a tokenizer (--skip-tokenizer-init).", param=param)
        at_least = len(text) // self._longest
        if bounded and at_least > self.limits.max_model_len:
            raise too_long(at_least, None, self.limits.max_model_len, param, at_least=True)
        pooled = self._pool is not None and len(text) > SHORT_TEXT
        with timed("tokenize", "tokenizer_pool" if pooled else "tokenizer"):
            if len(text) <= SHORT_TEXT:
                return tokenizer.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)
            if self._pool is not None:
                return await self._pool.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._threads, lambda: tokenizer.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)
            )

    def fit(self, ids: list[int], truncate: int | None, param: str) -> list[int]:
        """``ids``, truncated as asked; refused where they leave no room or the model lacks one of them."""
        if truncate is not None:
            ids = ids[-truncate:]
        if len(ids) > self.limits.max_model_len:
            raise too_long(len(ids), None, self.limits.max_model_len, param)
        check_token_ids(param, ids, self.limits)
        return ids

    def close(self) -> None:
        """End the threads and the pool."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            self._pool.close()

    def _beginning(self, param: str) -> list[int]:
        bos = self.tokenizer.bos_token_id if self.tokenizer is not None else None
        if bos is None:
            raise RequestError(f"{param} cannot be empty: this model has no token that begins a text.", param=param)
        return [bos]


def _is_ids(value: list[Any]) -> bool:
    return all(type(item) is int for item in value)


def _ids(value: list[int], limits: Limits, param: str) -> list[int]:
    if len(value) <= limits.max_model_len:
        check_token_ids(param, value, limits)
    return value


def _longest_piece(tokenizer: Tokenizer) -> int:
    """Characters of the longest entry of the vocabulary: a text of c characters has at least c divided by it tokens."""
    return max((len(tokenizer.token_text(token)) for token in range(tokenizer.size())), default=1)
