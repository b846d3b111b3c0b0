"""What a step's result means for one sequence."""

from __future__ import annotations

from engine.messages import Output
from engine.plugin.request import FinishReason
from engine.plugin.step import SequenceResult, TokenLogprobs, Work
from engine.scheduler.sequence import Sequence
from engine.scheduler.stop import ending


def settle(sequence: Sequence, work: Work, result: SequenceResult) -> Output | None:
    """Advance ``sequence`` by what was computed and sampled; returns what its request gets, if anything."""
    if result.error is not None:
        return _output(sequence, finish_reason=FinishReason.ERROR, error=result.error)
    pooling = sequence.request.pooling is not None
    if work.sample and not pooling and not result.token_ids:
        error = "The worker returned no token for a sequence that was to be sampled."
        return _output(sequence, finish_reason=FinishReason.ERROR, error=error)
    counted = sequence.resolve()
    scored = _fresh_prompt_logprobs(sequence, work, result)
    if not work.sample or pooling:
        if not counted:
            sequence.computed = work.start + work.count
        if work.sample:
            return _pooled(sequence, result)
        # The first output tells when the sequence began, also where the prompt takes more steps.
        return _output(sequence, prompt_logprobs=scored) if scored or not (sequence.answered or pooling) else None
    end = ending(sequence, result.token_ids)
    tokens = result.token_ids[: end.taken]
    # KV is right for the real tokens and for the drafts that were accepted; the last accepted token is not computed
    # yet.
    if not counted:
        sequence.computed = len(sequence.tokens) + _agreeing(work.draft, tokens)
    sequence.tokens.extend(tokens)
    sequence.draft = result.proposed
    logprobs = None if result.logprobs is None else result.logprobs[: end.taken]
    return _output(
        sequence,
        token_ids=tokens,
        logprobs=logprobs,
        prompt_logprobs=scored,
        finish_reason=end.reason,
        stop_reason=end.token,
    )


def _agreeing(draft: list[int], tokens: list[int]) -> int:
    count = 0
    for proposed, token in zip(draft, tokens, strict=False):
        if proposed != token:
            break
        count += 1
    return count


def _pooled(sequence: Sequence, result: SequenceResult) -> Output:
    if result.pooled is None:
        error = "The worker returned no pooled vector for a pooling request."
        return _output(sequence, finish_reason=FinishReason.ERROR, error=error)
    return _output(sequence, pooled=result.pooled, finish_reason=FinishReason.STOP)


def _fresh_prompt_logprobs(sequence: Sequence, work: Work, result: SequenceResult) -> list[TokenLogprobs] | None:
    """Those that the request has not got: after a preemption by recompute the first positions come again."""
    if result.prompt_logprobs is None:
        return None
    fresh = result.prompt_logprobs[max(0, sequence.scored - max(work.start, 1)) :]
    sequence.scored += len(fresh)
    return fresh or None


def _output(
    sequence: Sequence,
    *,
    token_ids: list[int] | None = None,
    logprobs: list[TokenLogprobs] | None = None,
    prompt_logprobs: list[TokenLogprobs] | None = None,
    finish_reason: FinishReason | None = None,
    stop_reason: int | None = None,
    error: str | None = None,
    pooled: bytes | None = None,
) -> Output:
    first, sequence.answered = not sequence.answered, True
    return Output(
        id=sequence.request.id,
        token_ids=token_ids or [],
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        finish_reason=finish_reason,
        stop_reason=stop_reason,
        cached_tokens=(sequence.cached or 0) if first else 0,
        queued=sequence.queued if first else 0.0,
        started=sequence.started if first else 0.0,
        error=error,
        pooled=pooled,
    )
