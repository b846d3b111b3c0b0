"""The scheduler–worker waist: a frozen Step goes down, a frozen StepResult comes back. No torch here."""

from __future__ import annotations

import msgspec

from engine.plugin.request import MultimodalItem, PoolingParams, SamplingParams

#: The error of a row whose constraints (ids, words, grammars, minimum length) exclude each other: the request's fault, not the engine's.
NOTHING_ALLOWED = "every token is forbidden by the request's constraints"


class NewSequence(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence that the workers have not seen: its whole known token list and how to sample from it.

    ``seq`` is the engine's number for it, never reused while the engine lives. ``token_ids[:num_prompt]`` is the prompt.
    """

    seq: int
    token_ids: list[int]
    num_prompt: int
    params: SamplingParams
    eos_token_ids: tuple[int, ...] = ()
    adapter: str | None = None
    multimodal: tuple[MultimodalItem, ...] = ()
    pooling: PoolingParams | None = None


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one sequence does in a step: compute the tokens at positions [start, start + count).

    ``append``: output tokens committed since the worker last heard of the sequence; they extend its token list.
    ``draft``: proposed tokens after those, part of ``count``; the worker verifies them (all logits from the last real token on).
    ``blocks``: block ids appended to the sequence's block table (after a preemption: the whole new table).
    ``sample``: the tokens reach the sequence's end, so the last position's logits are sampled (one token, plus accepted drafts).
    ``ahead``: the last real token is the one that the step before samples for this sequence. The scheduler did not know it yet; the
    worker adds its own.
    ``last``: what is sampled here is the sequence's last token, as its length says.
    """

    seq: int
    start: int
    count: int
    append: list[int] = []
    draft: list[int] = []
    blocks: list[int] = []
    sample: bool = True
    ahead: bool = False
    last: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One engine step. Workers apply, in this order: ended, preempted, swap_out, swap_in, copies, new, work.

    Block moves are (source, destination) pairs of page numbers; ``swap_out`` is device → host, ``swap_in`` host → device.
    ``preempted`` sequences lose their block table (their tokens stay known); ``ended`` ones are forgotten.
    ``connector``: opaque data of the KV connector for this step.
    """

    index: int
    work: list[Work] = []
    new: list[NewSequence] = []
    ended: list[int] = []
    preempted: list[int] = []
    swap_out: list[tuple[int, int]] = []
    swap_in: list[tuple[int, int]] = []
    copies: list[tuple[int, int]] = []
    connector: bytes | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(work.count for work in self.work)


class TokenLogprobs(msgspec.Struct, frozen=True):
    """Natural-log probabilities at one position: the token there, its rank (1 = most likely) and the top alternatives, best first."""

    token_id: int
    logprob: float
    rank: int
    top_ids: list[int]
    top_logprobs: list[float]


class SequenceResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a step gave one sequence.

    ``token_ids``: accepted drafts and the sampled token, in order; empty for an unfinished prefill.
    ``logprobs``: one per token id, if asked. ``prompt_logprobs``: one per prompt position p in [max(start,1), start+count) of this step
    (the probability of token p given those before it), if asked. ``pooled``: float32 little-endian bytes, for pooling requests.
    ``error``: this sequence failed (non-finite logits, a processor that raised); it ends, others go on.
    ``proposed``: draft tokens for the next step.
    """

    seq: int
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    pooled: bytes | None = None
    error: str | None = None
    proposed: list[int] = []


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the Step of the same index; ``results`` in the order of ``Step.work``. ``seconds``: time in the worker;
    ``forward``: time of the model's forward pass in that, measured with --collect-detailed-traces model only."""

    index: int
    results: list[SequenceResult] = []
    seconds: float = 0.0
    forward: float = 0.0
