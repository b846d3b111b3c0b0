"""One choice of an answer: its text, log-probabilities, end and token count, made from the engine's outputs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.assemble.detokenizer import Detokenizer
from engine.assemble.stops import StopStrings
from engine.messages import Output
from engine.plugin.contracts.text import Tokenizer
from engine.plugin.request import FinishReason, SamplingParams
from engine.plugin.step import TokenLogprobs


class ChoiceDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What is new of a choice. ``stop_reason``: the stop string or stop token id; ``ended_early``: the engine has not ended it itself."""

    text: str = ""
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] = []
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    ended_early: bool = False


class Choice:
    """The state of one choice. Feed it every output of its request; tokens after a stop string do not count."""

    def __init__(self, tokenizer: Tokenizer | None, params: SamplingParams, prompt: Sequence[int] = ()) -> None:
        self._detokenizer = Detokenizer(tokenizer, skip_special_tokens=params.skip_special_tokens, context=prompt)
        self._stops = StopStrings(params.stop, include=params.include_stop_str_in_output)
        self._min_tokens = params.min_tokens
        self._hidden_stop = not params.include_stop_str_in_output
        self.text_length = 0
        self.tokens = 0
        self.cached_tokens = 0
        self.cumulative_logprob = 0.0
        self.finish_reason: str | None = None
        self.prompt_logprobs: list[TokenLogprobs] = []

    def feed(self, output: Output) -> ChoiceDelta:
        """What this output adds."""
        self.cached_tokens = self.cached_tokens or output.cached_tokens
        self.prompt_logprobs += output.prompt_logprobs or ()
        if self.finish_reason is not None:
            return ChoiceDelta()
        texts: list[str] = []
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
            texts.append(match.text)
            if match.stop is not None:
                return self._ended(texts, ids, logprobs, "stop", match.stop, early=output.finish_reason is None)
        if output.finish_reason is None:
            return self._delta(ChoiceDelta(text="".join(texts), token_ids=ids, logprobs=logprobs))
        return self._flushed(texts, ids, logprobs, output)

    def _ends_by_token(self, output: Output, token: int) -> bool:
        """Whether the token is the one that ended the output: it is no text."""
        return self._hidden_stop and output.finish_reason is FinishReason.STOP

    def _flushed(self, texts: list[str], ids: list[int], logprobs: list[TokenLogprobs], output: Output) -> ChoiceDelta:
        match = self._stops.push(self._detokenizer.finish(), check=self.tokens > self._min_tokens)
        texts.append(match.text)
        if match.stop is not None:
            return self._ended(texts, ids, logprobs, "stop", match.stop)
        texts.append(self._stops.finish())
        reason = output.finish_reason.value if output.finish_reason is not None else None
        return self._ended(texts, ids, logprobs, reason, output.stop_reason)

    def _ended(
        self,
        texts: list[str],
        ids: list[int],
        logprobs: list[TokenLogprobs],
        reason: str | None,
        stop: str | int | None,
        *,
        early: bool = False,
    ) -> ChoiceDelta:
        self.finish_reason = reason
        delta = ChoiceDelta(
            text="".join(texts), token_ids=ids, logprobs=logprobs, finish_reason=reason, stop_reason=stop, ended_early=early
        )
        return self._delta(delta)

    def _delta(self, delta: ChoiceDelta) -> ChoiceDelta:
        self.text_length += len(delta.text)
        return delta


def rank_choices(choices: list[Choice], count: int) -> list[int]:
    """Indices of the ``count`` choices with the highest cumulative log-probability, best first."""
    order = sorted(range(len(choices)), key=lambda index: (-choices[index].cumulative_logprob, index))
    return order[:count]
