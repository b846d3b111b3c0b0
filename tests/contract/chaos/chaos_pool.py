"""A tokenizer pool that fails at texts with {{FAULT}} in them."""

from __future__ import annotations

import re

from chaos_text import misbehave

from engine.plugin import TokenizerPool, hookimpl

ENGINE_API = 1


class Pool(TokenizerPool):
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    async def encode(self, text, *, add_special_tokens, allow_special):
        found = re.search(r"\{\{(.+?)\}\}", text)
        return misbehave(found[1] if found else "", self.tokenizer.encode(text, add_special_tokens=add_special_tokens))


@hookimpl
def engine_create_tokenizer_pool(tokenizer):
    return Pool(tokenizer)
