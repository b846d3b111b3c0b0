"""What a request must meet to enter the scheduler at all."""

from __future__ import annotations

from engine.errors import RequestError
from engine.kvcache.cache import KVCache
from engine.plugin.contracts.scheduling import SchedulingPolicy
from engine.plugin.request import Request
from engine.scheduler.sequence import Sequence


class Entrance:
    """Refuses what could never run: too long for the model or the cache, or against the policy."""

    def __init__(self, cache: KVCache[Sequence], policy: SchedulingPolicy, max_model_len: int) -> None:
        self._cache = cache
        self._policy = policy
        self._max_model_len = max_model_len

    def limit(self, request: Request) -> int:
        """The length, prompt and output together, at which the request ends."""
        prompt = len(request.prompt_token_ids) - request.delivered
        if request.pooling is not None:
            return prompt
        wanted = request.params.max_tokens
        return self._max_model_len if wanted is None else min(self._max_model_len, prompt + wanted)

    def check(self, request: Request) -> None:
        """Raise :class:`RequestError` with the field at fault."""
        prompt, limit = len(request.prompt_token_ids), self.limit(request)
        if prompt == 0:
            raise RequestError("The prompt has no tokens.", param="prompt", code="empty_prompt")
        if prompt > self._max_model_len or (prompt == self._max_model_len and self._wants_tokens(request)):
            raise RequestError(
                f"This model's maximum context length is {self._max_model_len} tokens, but the prompt has {prompt}"
                + (", which leaves no room for an answer." if prompt == self._max_model_len else "."),
                param="prompt",
                code="context_length_exceeded",
            )
        capacity = self._cache.pool.size * self._cache.block_size
        longest = max(prompt, limit - 1)
        if longest > capacity:
            raise RequestError(
                f"The KV cache holds {capacity} tokens, but this request may need {longest} "
                f"(a prompt of {prompt} tokens and an answer up to a length of {limit}).",
                param="prompt" if prompt > capacity else "max_tokens",
                code="context_length_exceeded",
                fix="a smaller max_tokens" if prompt <= capacity else None,
            )
        reason = self._policy.check(request.priority)
        if reason is not None:
            raise RequestError(reason, param="priority", code="priority_not_supported")

    @staticmethod
    def _wants_tokens(request: Request) -> bool:
        return request.pooling is None and request.params.max_tokens != 0
