"""The scheduler's limits from the flags and the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.config import SchedulerConfig
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs

DEFAULT_TOKENS = 2048
DEFAULT_SEQS = 256


def scheduler_config(args: EngineArgs, max_model_len: int, mixed_tokens: int = 0) -> SchedulerConfig:
    """Defaults: 256 sequences and 2048 tokens a step, the whole model length without chunked prefill; ``mixed_tokens`` is the device's.

    Raises :class:`ConfigError` where the flags leave a sequence that could never run.
    """
    chunked = args.enable_chunked_prefill is not False
    seqs = args.max_num_seqs or min(DEFAULT_SEQS, args.max_num_batched_tokens or DEFAULT_SEQS)
    tokens = args.max_num_batched_tokens or max(DEFAULT_TOKENS, seqs, 0 if chunked else max_model_len)
    if not chunked and tokens < max_model_len:
        raise ConfigError(
            f"--max-num-batched-tokens {tokens} is smaller than the model length {max_model_len}, and chunked prefill is off.",
            fix=f"--max-num-batched-tokens {max_model_len}",
        )
    threshold = args.long_prefill_token_threshold
    if args.max_num_partial_prefills > 1:
        if threshold > max_model_len:
            raise ConfigError(
                f"--long-prefill-token-threshold {threshold} is more than the model length {max_model_len}.",
                fix=f"--long-prefill-token-threshold {max_model_len}",
            )
        threshold = threshold or int(max_model_len * 0.04)
    return SchedulerConfig(
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
        chunked_prefill=chunked,
        max_num_partial_prefills=args.max_num_partial_prefills,
        max_long_partial_prefills=args.max_long_partial_prefills,
        long_prefill_token_threshold=threshold,
        delay_factor=args.scheduler_delay_factor,
        lookahead_slots=args.num_lookahead_slots,
        mixed_tokens=mixed_tokens if args.max_num_batched_tokens is None and chunked else 0,
    )
