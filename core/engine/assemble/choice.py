"""One choice of an answer: its text, log-probabilities, end and token count, made from the engine's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.assemble.detokenizer import Detokenizer
from engine.assemble.message import MessageParser, join
from engine.assemble.stops import StopStrings
from engine.messages import Output
from engine.plugin.contracts.text import Delta, Tokenizer, ToolCallDelta
from engine.plugin.request import FinishReason, SamplingParams
from engine.plugin.step import TokenLogprobs


class ChoiceDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What is new of a choice. ``text`` is content where parsers split the output. ``stop_reason``: the stop string or stop token id;
    ``ended_early``: the engine has not ended it itself."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] = []
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    ended_early: bool = False


class Choice:
    """The state of one choice. Feed it every output of its request; tokens after a stop string do not count."""

    def __init__(
        self, tokenizer: Tokenizer | None, params: SamplingParams, prompt: Sequence[int] = (), *,
        parser: MessageParser | None = None, shown: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        """``parser`` splits the output; ``shown``: special tokens that it must see."""
        self._detokenizer = Detokenizer(
            tokenizer, skip_special_tokens=params.skip_special_tokens, context=prompt, shown=shown
        )
        self._stops = StopStrings(params.stop, include=params.include_stop_str_in_output)
        self._parser = parser
        self._min_tokens = params.min_tokens
        self._hidden_stop = not params.include_stop_str_in_output
        self._shown = shown
        self.text_length = 0
        self.tokens = 0
        self.cached_tokens = 0
        self.cumulative_logprob = 0.0
        self.finish_reason: str | None = None
        self.prompt_logprobs: list[TokenLogprobs] = []

    @property
    def reasoning_tokens(self) -> int:
        """How many of the tokens were reasoning."""
        return self._parser.reasoning_tokens if self._parser is not None else 0

    @property
    def called(self) -> bool:
        """Whether a tool call was found."""
        return self._parser is not None and self._parser.called

    def feed(self, output: Output) -> ChoiceDelta:
        """What this output adds."""
        self.cached_tokens = self.cached_tokens or output.cached_tokens
        self.prompt_logprobs += output.prompt_logprobs or ()
        if self.finish_reason is not None:
            return ChoiceDelta()
        parts: list[Delta] = []
        ids: list[int] = []
        logprobs: list[TokenLogprobs] = []
        last = len(output.token_ids) - 1
        for index, token in enumerate(output.token_ids):
            ids.append(token)
            if output.logprobs is not None:
                logprobs.append(output.logprobs[index])
                self.cumulative_logprob += output.logprobs[index].logprob
            self.tokens += 1
            if index == last and self._ends_by_token(output, token):
                continue
            match = self._stops.push(self._detokenizer.push((token,)), check=self.tokens > self._min_tokens)
            parts.append(self._split(match.text, token))
            if match.stop is not None:
                return self._ended(parts, ids, logprobs, "stop", match.stop, early=output.finish_reason is None)
        if output.finish_reason is None:
            return self._delta(parts, ids, logprobs)
        return self._flushed(parts, ids, logprobs, output)

    def _ends_by_token(self, output: Output, token: int) -> bool:
        """Whether the token is the one that ended the output: it is no text."""
        return self._hidden_stop and output.finish_reason is FinishReason.STOP and token not in self._shown

    def _split(self, text: str, token: int) -> Delta:
        return Delta(text) if self._parser is None else self._parser.feed(text, token)

    def _flushed(self, parts: list[Delta], ids: list[int], logprobs: list[TokenLogprobs], output: Output) -> ChoiceDelta:
        match = self._stops.push(self._detokenizer.finish(), check=self.tokens > self._min_tokens)
        if match.stop is not None:
            return self._ended(parts, ids, logprobs, "stop", match.stop, text=match.text)
        reason = output.finish_reason.value if output.finish_reason is not None else None
        return self._ended(parts, ids, logprobs, reason, output.stop_reason, text=match.text + self._stops.finish())

    def _ended(
        self,
        parts: list[Delta],
        ids: list[int],
        logprobs: list[TokenLogprobs],
        reason: str | None,
        stop: str | int | None,
        *,
        text: str = "",
        early: bool = False,
    ) -> ChoiceDelta:
        parser = self._parser
        parts.append(Delta(text) if parser is None else parser.finish(text))
        self.finish_reason = reason
        delta = self._delta(parts, ids, logprobs)
        return msgspec.structs.replace(delta, finish_reason=reason, stop_reason=stop, ended_early=early)

    def _delta(self, parts: list[Delta], ids: list[int], logprobs: list[TokenLogprobs]) -> ChoiceDelta:
        whole = join(parts)
        self.text_length += len(whole.content)
        return ChoiceDelta(
            text=whole.content, reasoning=whole.reasoning, tool_calls=whole.tool_calls, token_ids=ids, logprobs=logprobs
        )


def rank_choices(choices: list[Choice], count: int) -> list[int]:
    """Indices of the ``count`` choices with the highest cumulative log-probability, best first."""
    order = sorted(range(len(choices)), key=lambda index: (-choices[index].cumulative_logprob, index))
    return order[:count]
