"""A reasoning parser that does what the prompt says between << and >>: where and how to fail."""

from __future__ import annotations

import re

from chaos_text import misbehave

from engine.plugin import Delta, ParserState, ReasoningParser, hookimpl

ENGINE_API = 1


class State(ParserState):
    def __init__(self, where, fault):
        self.where, self.fault, self.fed = where, fault, 0

    def feed(self, text, token_ids):
        self.fed += 1
        return misbehave(self.fault if self.where == "feed" and self.fed > 2 else "", Delta(text))

    def finish(self):
        return misbehave(self.fault if self.where == "finish" else "", Delta())

    def thinking(self):
        return misbehave(self.fault if self.where == "thinking" else "", False)


class Parser(ReasoningParser):
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def start(self, prompt_token_ids):
        found = re.search(r"<<(\w+) (.+?)>>", self.tokenizer.decode(prompt_token_ids))
        where, fault = found.groups() if found else ("", "")
        return misbehave(fault if where == "start" else "", State(where, fault))


@hookimpl
def engine_create_reasoning_parser(tokenizer):
    return Parser(tokenizer)
