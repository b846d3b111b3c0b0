"""A step in the making."""

from __future__ import annotations

from engine.plugin.step import NewSequence, Step, Work
from engine.scheduler.sequence import Sequence


class StepPlan:
    """Who computes how many tokens, what is left of the budget, and which pages move; everything can be dropped again.

    ``partial`` and ``long_partial``: prompts (long prompts) that this step leaves unfinished.
    """

    __slots__ = (
        "admitted", "counts", "drafts", "long_partial", "partial", "preempted", "prompts", "swap_in", "swap_out",
        "tokens_left",
    )  # fmt: skip

    def __init__(self, budget: int) -> None:
        self.tokens_left = budget
        self.counts: dict[Sequence, int] = {}
        self.drafts: dict[Sequence, list[int]] = {}
        self.admitted: set[Sequence] = set()
        self.preempted: dict[Sequence, None] = {}
        self.swap_out: list[tuple[int, int]] = []
        self.swap_in: list[tuple[int, int]] = []
        self.partial = 0
        self.long_partial = 0
        self.prompts = False

    def take(self, sequence: Sequence, count: int, draft: list[int] | None = None) -> None:
        """``sequence`` computes ``count`` more tokens, the ``draft`` among them."""
        self.counts[sequence] = self.counts.get(sequence, 0) + count
        self.tokens_left -= count
        if draft:
            self.drafts[sequence] = draft

    def limit(self, tokens: int | None) -> None:
        """Take at most so many tokens in all, if that is given."""
        if tokens is not None:
            self.tokens_left = min(self.tokens_left, max(0, tokens - sum(self.counts.values())))

    def drop(self, sequence: Sequence) -> None:
        """``sequence`` computes nothing in this step after all."""
        self.tokens_left += self.counts.pop(sequence, 0)
        self.drafts.pop(sequence, None)

    def empty(self) -> bool:
        """Whether there is nothing to tell the workers."""
        return not (self.counts or self.preempted)

    def step(self, index: int, ended: list[int]) -> Step:
        """The frozen step; from now on the workers count as knowing what it tells them."""
        new = [_introduce(sequence) for sequence in self.counts if sequence.told == 0]
        return Step(
            index=index,
            work=[_work(sequence, count, self.drafts.get(sequence)) for sequence, count in self.counts.items()],
            new=new,
            ended=ended,
            preempted=[sequence.number for sequence in self.preempted],
            swap_out=self.swap_out,
            swap_in=self.swap_in,
        )


def _introduce(sequence: Sequence) -> NewSequence:
    request = sequence.request
    sequence.told = len(sequence.tokens)
    return NewSequence(
        seq=sequence.number,
        token_ids=list(sequence.tokens),
        num_prompt=sequence.num_prompt,
        params=request.params,
        eos_token_ids=request.eos_token_ids,
        adapter=request.adapter,
        multimodal=request.multimodal,
        pooling=request.pooling,
    )


def _work(sequence: Sequence, count: int, draft: list[int] | None) -> Work:
    tokens, table = sequence.tokens, sequence.table
    ahead = sequence.ahead
    append, blocks = tokens[sequence.told : -1 if ahead else None], table.pages[table.sent :]
    sequence.told = len(tokens)
    table.sent = len(table.pages)
    if draft is None:
        draft = []
    sample = sequence.computed + count - len(draft) == len(tokens)
    return Work(
        seq=sequence.number,
        start=sequence.computed,
        count=count,
        append=append,
        draft=draft,
        blocks=blocks,
        sample=sample,
        ahead=ahead,
        last=sample and len(tokens) + 1 >= sequence.limit,
    )
