"""Plugins of the front end behind a guard: what they raise, or return that their contract forbids, fails the request and names them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from engine.errors import EngineError, RequestError
from engine.plugin.alarm import PluginTimeout, limited
from engine.plugin.api import Choice
from engine.plugin.contracts.scheduling import RequestView, SchedulingPolicy
from engine.plugin.contracts.text import Delta, ParserState, ReasoningParser, Thinking, Tokenizer, TokenizerPool, ToolParser
from engine.plugin.faults import Faults, attributed, described
from engine.plugin.request import GuideSpec

log = logging.getLogger("engine.plugins")


class GuardedState(ParserState):
    """One request's parser."""

    def __init__(self, faults: Faults, choice: Choice, state: ParserState) -> None:
        self._faults, self._choice, self._state = faults, choice, state

    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        """See the contract."""
        return self._checked(self._faults.call(self._choice, self._state.feed, text, token_ids))

    def finish(self) -> Delta:
        """See the contract."""
        return self._checked(self._faults.call(self._choice, self._state.finish))

    def reasoning_ended(self) -> bool:
        """See the contract."""
        return bool(self._faults.call(self._choice, self._state.reasoning_ended))

    def keep_breaks(self) -> None:
        """See the contract."""
        self._faults.call(self._choice, self._state.keep_breaks)

    def thinking(self) -> bool:
        """See the contract."""
        return bool(self._faults.call(self._choice, self._state.thinking))

    def _checked(self, delta: Delta) -> Delta:
        if type(delta) is not Delta or type(delta.content) is not str or type(delta.reasoning) is not str:
            raise self._faults.record(self._choice, f"it returned a {type(delta).__name__} that is no Delta of texts.")
        return delta


def _guarded_state(faults: Faults, choice: Choice, state: ParserState) -> GuardedState:
    if not isinstance(state, ParserState):
        raise faults.record(choice, f"start() returned a {type(state).__name__} instead of a ParserState.")
    return GuardedState(faults, choice, state)


class GuardedReasoning(ReasoningParser):
    """A reasoning parser."""

    def __init__(self, faults: Faults, choice: Choice, parser: ReasoningParser) -> None:
        self._faults, self._choice, self._parser = faults, choice, parser

    def markers(self) -> tuple[str, ...]:
        """See the contract."""
        return self._parser.markers()

    def thinking(self, prompt_token_ids: Sequence[int]) -> Thinking | None:
        """See the contract."""
        self._faults.check(self._choice)
        return self._faults.call(self._choice, self._parser.thinking, prompt_token_ids)

    def start(self, prompt_token_ids: Sequence[int]) -> ParserState:
        """See the contract. Raises RequestError while the parser is in quarantine."""
        self._faults.check(self._choice)
        return _guarded_state(self._faults, self._choice, self._faults.call(self._choice, self._parser.start, prompt_token_ids))


class GuardedTools(ToolParser):
    """A tool parser."""

    def __init__(self, faults: Faults, choice: Choice, parser: ToolParser) -> None:
        self._faults, self._choice, self._parser = faults, choice, parser

    def markers(self) -> tuple[str, ...]:
        """See the contract."""
        return self._parser.markers()

    def grammar(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """See the contract."""
        return self._faults.call(self._choice, self._parser.grammar, tools, parallel=parallel)

    def offer(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """See the contract."""
        return self._faults.call(self._choice, self._parser.offer, tools, parallel=parallel)

    def start(self, tools: Sequence[dict[str, Any]]) -> ParserState:
        """See the contract. Raises RequestError while the parser is in quarantine."""
        self._faults.check(self._choice)
        return _guarded_state(self._faults, self._choice, self._faults.call(self._choice, self._parser.start, tools))


class GuardedTokenizer(Tokenizer):
    """A tokenizer. What it says of itself (sizes, names) is asked at the start, without a guard."""

    def __init__(self, faults: Faults, choice: Choice, tokenizer: Tokenizer) -> None:
        self._faults, self._choice, self._tokenizer = faults, choice, tokenizer
        self._size = tokenizer.size()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        """See the contract."""
        with self._faults.guarded(self._choice):
            return checked_ids(self._tokenizer.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special), self._size)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """See the contract."""
        text = self._faults.call(self._choice, self._tokenizer.decode, token_ids, skip_special_tokens=skip_special_tokens)
        if type(text) is not str:
            raise self._faults.record(self._choice, f"decode() returned a {type(text).__name__}.")
        return text

    def render_chat(self, messages: list[dict[str, Any]], options: dict[str, Any]) -> list[int] | None:
        """See the contract."""
        with self._faults.guarded(self._choice):
            ids = self._tokenizer.render_chat(messages, options)
            return None if ids is None else checked_ids(ids, self._size)

    def token_text(self, token_id: int) -> str:
        """See the contract."""
        return self._tokenizer.token_text(token_id)

    def size(self) -> int:
        """See the contract."""
        return self._size

    def special_ids(self) -> frozenset[int]:
        """See the contract."""
        return self._tokenizer.special_ids()

    def token_id(self, text: str) -> int | None:
        """See the contract."""
        return self._tokenizer.token_id(text)

    @property
    def eos_token_id(self) -> int | None:
        """See the contract."""
        return self._tokenizer.eos_token_id

    @property
    def bos_token_id(self) -> int | None:
        """See the contract."""
        return self._tokenizer.bos_token_id

    def chat_template(self) -> str | dict[str, str] | None:
        """See the contract."""
        return self._tokenizer.chat_template()

    def special_tokens(self) -> dict[str, str]:
        """See the contract."""
        return self._tokenizer.special_tokens()


class GuardedPool(TokenizerPool):
    """A tokenizer pool."""

    def __init__(self, faults: Faults, choice: Choice, pool: TokenizerPool, size: int) -> None:
        self._faults, self._choice, self._pool, self._size = faults, choice, pool, size

    async def encode(self, text: str, *, add_special_tokens: bool, allow_special: bool) -> list[int]:
        """See the contract. The pool has a minute."""
        import asyncio

        try:
            work = self._pool.encode(text, add_special_tokens=add_special_tokens, allow_special=allow_special)
            return checked_ids(await asyncio.wait_for(work, 60), self._size)
        except EngineError:
            raise
        except Exception as error:
            raise self._faults.record(self._choice, described(error)) from error

    def close(self) -> None:
        """See the contract."""
        self._pool.close()


class GuardedPolicy(SchedulingPolicy):
    """A scheduling policy in the engine process: a request for which it has no usable key is refused, the queue stays in order."""

    def __init__(self, name: str, policy: SchedulingPolicy) -> None:
        self._name, self._policy = name, policy
        self._first: Any = None

    def key(self, request: RequestView) -> Any:
        """See the contract. Raises RequestError that names the policy."""
        try:
            with limited():
                key = self._policy.key(request)
                first = key if self._first is None else self._first
                if key is None or not (key <= first or first <= key):
                    raise TypeError(f"the key {key!r} cannot be ordered")
        except PluginTimeout:
            raise RequestError(attributed("policy", self._name, "finding a key took too long.")) from None
        except (Exception, SystemExit) as error:
            raise RequestError(attributed("policy", self._name, described(error))) from error
        self._first = first
        return key

    def may_preempt(self, waiting: RequestView, running: RequestView) -> bool:
        """See the contract. One that fails allows nothing."""
        try:
            with limited():
                return bool(self._policy.may_preempt(waiting, running))
        except (Exception, PluginTimeout, SystemExit) as error:  # noqa: BLE001 - memory is then taken from the last in the policy's order
            log.error("scheduling policy %s: may_preempt() failed: %s", self._name, described(error))
            return False

    def check(self, priority: int) -> str | None:
        """See the contract."""
        try:
            with limited():
                return self._policy.check(priority)
        except (Exception, PluginTimeout, SystemExit) as error:
            raise RequestError(attributed("policy", self._name, described(error))) from error


def checked_ids(ids: list[int], size: int) -> list[int]:
    """Token ids as a tokenizer may return them; raises TypeError or ValueError."""
    if type(ids) is not list:
        raise TypeError(f"encode() returned a {type(ids).__name__} instead of a list of ids")
    if ids and not 0 <= min(ids) <= max(ids) < size:
        raise ValueError(f"encode() returned an id outside the vocabulary of {size}")
    return ids
