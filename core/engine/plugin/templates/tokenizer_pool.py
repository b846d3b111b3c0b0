"""Encodes texts on threads of a pool named example."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engine.plugin import Tokenizer, TokenizerPool, hookimpl

ENGINE_API = 1


class ExamplePool(TokenizerPool):
    """As many threads as --tokenizer-pool-size says."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self.tokenizer = tokenizer
        self.threads = ThreadPoolExecutor(size, "example-tokenizer")

    async def encode(self, text: str, *, add_special_tokens: bool, allow_special: bool) -> list[int]:
        job = partial(self.tokenizer.encode, text, add_special_tokens=add_special_tokens, allow_special=allow_special)
        return await asyncio.get_running_loop().run_in_executor(self.threads, job)

    def close(self) -> None:
        self.threads.shutdown()


@hookimpl
def engine_create_tokenizer_pool(tokenizer: Tokenizer, size: int) -> TokenizerPool:
    return ExamplePool(tokenizer, size)
