"""What stands between [plan] and [/plan] is thought; a reasoning parser named example."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin import Delta, ParserState, ReasoningParser, hookimpl

ENGINE_API = 1
CONFORMANCE = "example_conformance:TestExample"
OPEN, CLOSE = "[plan]", "[/plan]"


def held_back(text: str, tag: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``tag``."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-size:])), 0)


class PlanState(ParserState):
    """Before the thought, in it, after it; ``waiting`` is text that may turn out to be a tag."""

    def __init__(self) -> None:
        self.waiting = ""
        self.tags = [OPEN, CLOSE]

    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        self.waiting += text
        content = reasoning = ""
        while self.tags and self.tags[0] in self.waiting:
            before, _, self.waiting = self.waiting.partition(self.tags[0])
            content, reasoning = (content, reasoning + before) if self.inside() else (content + before, reasoning)
            self.tags = self.tags[1:]
        keep = held_back(self.waiting, self.tags[0]) if self.tags else 0
        rest, self.waiting = self.waiting[: len(self.waiting) - keep], self.waiting[len(self.waiting) - keep :]
        return Delta(content, reasoning + rest) if self.inside() else Delta(content + rest, reasoning)

    def inside(self) -> bool:
        """Whether the next character is thought."""
        return self.tags == [CLOSE]

    def finish(self) -> Delta:
        rest, self.waiting = self.waiting, ""
        return Delta("", rest) if self.inside() else Delta(rest)

    def reasoning_ended(self) -> bool:
        return not self.tags

    def thinking(self) -> bool:
        return self.inside()


class PlanParser(ReasoningParser):
    """The prompt does not matter: the model opens its plan itself."""

    def start(self, prompt_token_ids: Sequence[int]) -> ParserState:
        return PlanState()


@hookimpl
def engine_create_reasoning_parser() -> ReasoningParser:
    return PlanParser()
