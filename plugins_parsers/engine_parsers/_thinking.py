"""Thinking between two tags, then the answer: what most reasoning parsers are."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin import ParserState, ReasoningParser, Thinking, Tokenizer
from engine_parsers._machine import Machine
from engine_parsers._markers import Markers


class TagPair(Machine):
    """``state`` open: the output begins inside the thinking, whether or not it repeats the start tag; possible: it thinks where it begins
    with a start tag; closed: it is all answer. ``trim``: line breaks beside the tags are markup."""

    def __init__(self, starts: Sequence[str], ends: Sequence[str], *, state: str, trim: bool) -> None:
        super().__init__()
        self._starts = Markers(starts)
        self._start_tags = tuple(starts)
        self._ends = Markers(ends)
        self._open = state == "open"
        self._trim = trim
        self._keeps = not trim
        self._breaks: list[str] = []
        self._thinking = self._open
        self.mode = self._answer if state == "closed" else self._begin
        self._ended = state == "closed"

    def reasoning_ended(self) -> bool:
        """See the contract."""
        return self._ended

    def thinking(self) -> bool:
        """See the contract."""
        return self._thinking

    def keep_breaks(self) -> None:
        """See the contract."""
        self._keeps = True

    def _begin(self) -> bool:
        """Before the first character that counts."""
        self._breaks.append(self.blank())
        if self.at == len(self.text) and not self.final:
            return False
        marker = self._starts.at(self.text, self.at)
        rest = self.text[self.at :]
        if marker is None and rest and not self.final and any(tag.startswith(rest) for tag in self._start_tags):
            return False
        if marker is not None:
            self._breaks = []
            self.at += len(marker)
            self._thinking = True
            self.mode = self._lead if self._trim else self._think
        elif self._open:
            if self._trim:
                self._breaks = []
            self.think("".join(self._breaks))
            self._breaks = []
            self.mode = self._think
        else:
            self.say("".join(self._breaks))
            self._ended = True
            self.mode = self._answer
        return True

    def _lead(self) -> bool:
        """Line breaks before the first thought."""
        self._drop_breaks()
        if self.at == len(self.text):
            return False
        self.mode = self._think
        return True

    def _think(self) -> bool:
        text, marker = self.until(self._ends)
        if not self._trim:
            self.think(text)
        else:
            self._think_trimmed(text)
        if marker is None:
            if self.final:
                self.think("".join(self._breaks))
                self._breaks = []
            return False
        self._breaks = []
        self._thinking = False
        self._ended = True
        self.mode = self._answer if self._keeps else self._follow
        return True

    def _think_trimmed(self, text: str) -> None:
        """Line breaks at the end wait for what follows."""
        kept = text.rstrip("\n")
        if kept:
            self.think("".join(self._breaks) + kept)
            self._breaks = []
        if len(kept) < len(text):
            self._breaks.append(text[len(kept) :])

    def _follow(self) -> bool:
        """Line breaks before the answer."""
        self._drop_breaks()
        if self.at == len(self.text):
            return False
        self.mode = self._answer
        return True

    def _answer(self) -> bool:
        self.say(self.rest())
        return False

    def _drop_breaks(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == "\n":
            self.at += 1


class TagPairParser(ReasoningParser):
    """Thinking between tags. ``always``: a model that thinks without saying so; its output is thinking until an end tag comes."""

    def __init__(
        self, tokenizer: Tokenizer, starts: Sequence[str], ends: Sequence[str], *, always: bool = False, trim: bool = True
    ) -> None:
        """The first of ``starts`` and ``ends`` are the ones that the chat template writes."""
        self._tokenizer = tokenizer
        self._starts = tuple(starts)
        self._ends = tuple(ends)
        self._always = always
        self._trim = trim
        self._start_id = tokenizer.token_id(starts[0])
        self._end_id = tokenizer.token_id(ends[0])
        self._special = tokenizer.special_ids() - {self._start_id, self._end_id}

    def markers(self) -> tuple[str, ...]:
        """The tags."""
        return (*self._starts, *self._ends)

    def start(self, prompt_token_ids: Sequence[int]) -> ParserState:
        """The prompt says whether the template has opened or closed the thinking."""
        return TagPair(self._starts, self._ends, state=self._state(prompt_token_ids), trim=self._trim)

    def thinking(self, prompt_token_ids: Sequence[int]) -> Thinking:
        """See the contract."""
        start = () if self._start_id is None else (self._start_id,)
        end = () if self._end_id is None else (self._end_id,)
        return Thinking(self._state(prompt_token_ids), start, end, forced=end)

    def _state(self, prompt: Sequence[int]) -> str:
        """From the latest tag of the turn that the prompt ends with; tags in earlier turns and in users' texts do not count."""
        unsaid = "open" if self._always else "possible"
        if self._start_id is None or self._end_id is None:
            tail = self._tokenizer.decode(list(prompt[-32:]), skip_special_tokens=True).rstrip()
            if tail.endswith(self._ends):
                return "closed"
            return "open" if tail.endswith(self._starts) else unsaid
        for token in reversed(prompt):
            if token == self._start_id:
                return "open"
            if token == self._end_id:
                return "closed"
            if token in self._special:
                break
        return unsaid
