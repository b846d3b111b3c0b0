"""How a step's tokens are shared among prompts (``--max-num-partial-prefills`` and its relatives)."""

from __future__ import annotations

from engine.config import SchedulerConfig
from engine.errors import ConfigError
from engine.scheduler.plan import StepPlan

#: With several partial prefills and no threshold given, prompts over this share of the context count as long (the
#: flag's definition).
LONG_SHARE = 0.04


class PrefillShares:
    """Bounds the prompts that are unfinished at a time: all by ``max_num_partial_prefills``, long ones by another limit.

    ``threshold`` is the number of tokens over which a prompt is long, None where that makes no difference.
    """

    def __init__(self, config: SchedulerConfig, max_model_len: int) -> None:
        if not config.chunked_prefill and config.max_num_batched_tokens < max_model_len:
            raise ConfigError(
                f"max_num_batched_tokens ({config.max_num_batched_tokens}) is smaller than max_model_len "
                f"({max_model_len}), which without chunked prefill means that long prompts can never run.",
                fix=f"--max-num-batched-tokens {max_model_len} or --enable-chunked-prefill",
            )
        self._whole = not config.chunked_prefill
        self._partial = config.max_num_partial_prefills
        self._long = config.max_long_partial_prefills
        self.threshold: int | None = None
        if self._partial > 1 and not self._whole:
            self.threshold = config.long_prefill_token_threshold or int(max_model_len * LONG_SHARE)

    def long_allowed(self, plan: StepPlan) -> bool:
        """Whether one more long prompt may start."""
        return self.threshold is None or plan.long_partial < self._long

    def chunk(self, plan: StepPlan, remaining: int, others: int) -> int:
        """Tokens for a prompt that lacks ``remaining``, while ``others`` prompts could run as well; 0: none now."""
        if self._whole:
            return remaining if remaining <= plan.tokens_left else 0
        slots = max(1, min(self._partial - plan.partial, 1 + others))
        return min(remaining, -(-plan.tokens_left // slots))

    def may_start(self, plan: StepPlan, remaining: int, count: int) -> bool:
        """Whether a prompt that computes ``count`` of its ``remaining`` tokens in its first step may do so."""
        return count > 0 and (count == remaining or plan.partial < self._partial)

    def note(self, plan: StepPlan, remaining: int, count: int) -> None:
        """A prompt with ``remaining`` tokens computes ``count`` of them in this step."""
        plan.prompts = True
        if count < remaining:
            plan.partial += 1
            plan.long_partial += self.threshold is not None and remaining > self.threshold

    def top_up(self, plan: StepPlan) -> None:
        """What is left at the end goes to unfinished prompts."""
        if self._whole:
            return
        for sequence, count in plan.counts.items():
            extra = min(plan.tokens_left, sequence.remaining - count)
            if extra > 0:
                plan.take(sequence, extra)
