"""From sampled rows to what each work item gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.plugin.step import SequenceResult, TokenLogprobs, Work

if TYPE_CHECKING:
    from engine.worker.inputs import StepInputs
    from engine.worker.sampler import Sampled


def collect(
    work: list[Work], inputs: StepInputs, sampled: Sampled, prompts: dict[int, list[TokenLogprobs]]
) -> list[SequenceResult]:
    """One result per work item, in order. Drafts count while each equals the token sampled in its place."""
    results = []
    tokens = sampled.tokens.tolist()
    row = 0
    for i, (item, sequence) in enumerate(zip(work, inputs.sequences, strict=True)):
        if sequence.refused is not None:
            results.append(SequenceResult(seq=item.seq, error=sequence.refused))
            sequence.sampled = 0
            row += 1 + len(item.draft) if item.sample else 0
            continue
        accepted: list[int] = []
        logprobs: list[TokenLogprobs] | None = [] if item.sample and sequence.params.logprobs is not None else None
        error = None
        if item.sample:
            for place in range(len(item.draft) + 1):
                error = sampled.errors.get(row + place)
                if error is not None:
                    break
                accepted.append(tokens[row + place])
                if logprobs is not None:
                    logprobs.append(sampled.logprobs[row + place])
                if place < len(item.draft) and item.draft[place] != accepted[-1]:
                    break
            row += len(item.draft) + 1
            sequence.sampled = accepted[-1] if accepted else 0
        results.append(
            SequenceResult(
                seq=item.seq, token_ids=accepted, logprobs=logprobs, prompt_logprobs=prompts.get(i), error=error
            )
        )
    return results
