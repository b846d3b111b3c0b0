"""A tool parser that does what the first tool's description says: where and how to fail."""

from __future__ import annotations

from chaos_text import misbehave

from engine.plugin import Delta, ParserState, ToolParser, hookimpl

ENGINE_API = 1


class State(ParserState):
    def __init__(self, where, fault):
        self.where, self.fault = where, fault

    def feed(self, text, token_ids):
        return misbehave(self.fault if self.where == "feed" else "", Delta(text))

    def finish(self):
        return misbehave(self.fault if self.where == "finish" else "", Delta())


class Parser(ToolParser):
    def start(self, tools):
        where, _, fault = tools[0]["function"]["description"].partition(" ")
        return misbehave(fault if where == "start" else "", State(where, fault))


@hookimpl
def engine_create_tool_parser():
    return Parser()
