"""Threads of the front end: tokenizers written in Rust or C++ encode outside Python's lock."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from engine.plugin import Tokenizer, TokenizerPool, hookimpl

ENGINE_API = 1


class ThreadPool(TokenizerPool):
    """One tokenizer, shared: tokenizers may be used from several threads by their contract."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix="tokenizer-pool")

    async def encode(self, text: str, *, add_special_tokens: bool, allow_special: bool) -> list[int]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, lambda: self._tokenizer.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


@hookimpl
def engine_create_tokenizer_pool(tokenizer: Tokenizer, size: int) -> TokenizerPool:
    return ThreadPool(tokenizer, size)
