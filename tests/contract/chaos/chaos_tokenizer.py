"""The demo tokenizer, but texts with [[FAULT]] in them and the ids 7, 7, 7 make it fail."""

from __future__ import annotations

import re

from chaos_text import misbehave

from engine.plugin import Tokenizer, hookimpl
from engine.plugin.host import PluginHost
from engine.plugin.kinds import TOKENIZER

ENGINE_API = 1


class Chaos(Tokenizer):
    def __init__(self, inner):
        self.inner = inner
        for name in ("token_text", "size", "special_ids", "token_id", "chat_template", "special_tokens"):
            setattr(self, name, getattr(inner, name))

    def encode(self, text, *, add_special_tokens=True, allow_special=True):
        ids = self.inner.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)
        found = re.search(r"\[\[(.+?)\]\]", text)
        fault = found[1] if found else ""
        wrong = {"returns ids of another vocabulary": [10**9], "returns negative ids": [-4], "returns texts": ["a"]}
        return wrong.get(fault) or misbehave(fault, ids)

    def decode(self, token_ids, *, skip_special_tokens=True):
        text = self.inner.decode(token_ids, skip_special_tokens=skip_special_tokens)
        return misbehave("raises" if list(token_ids) == [7, 7, 7] else "", text)

    token_text = size = special_ids = token_id = chat_template = None
    eos_token_id = property(lambda self: self.inner.eos_token_id)
    bos_token_id = property(lambda self: self.inner.bos_token_id)


@hookimpl
def engine_create_tokenizer(checkpoint):
    return Chaos(PluginHost().create(TOKENIZER, "auto", checkpoint=checkpoint, name=None).plugin)
