"""What a worker knows of each sequence: tokens, block table row, sampling parameters; updated from steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.plugin.step import NewSequence, Step, TokenLogprobs, Work

if TYPE_CHECKING:
    from torch import Tensor

    from engine.worker.grammar_state import GrammarState
    from engine.worker.penalties import TokenCounts
    from engine.worker.processors import Processing

#: Below this temperature sampling is greedy: dividing by it would only amplify rounding.
GREEDY_BELOW = 1e-5


class Sequence:
    """One sequence. ``tokens[:length]`` are known, drafts may follow; the first ``num_prompt`` are the prompt.

    ``row`` is its row in the block tables, ``blocks`` how many entries of it are in use. What sampling needs is worked
    out once, here, so that plain requests cost nothing per step: ``greedy``, ``filtered`` (top-k, top-p, min-p),
    ``masked`` (tokens forbidden or biased), ``penalised``, ``guided``; ``simple``: at most guided, no log-probabilities. ``pending`` is the
    log-probability of the first prompt token after the last computed chunk, ``known`` how many tokens it came with,
    ``ends`` the tokens that may end it, ``sampled`` the last token that was sampled here (0 where
    that failed), ``fixed`` holds parameters as tensors,
    ``grammar`` the place in the constraint of a guided one, ``processing`` its logits processors.
    """

    __slots__ = (
        "blocks", "counts", "ends", "eos", "filtered", "fixed", "grammar", "greedy", "guided", "known", "last", "length", "masked",
        "num_prompt", "params", "penalised", "pending", "processing", "refused", "row", "sampled", "seed", "seq", "simple", "tokens",
    )  # fmt: skip

    def __init__(self, new: NewSequence, row: int) -> None:
        p = new.params
        self.seq = new.seq
        self.row = row
        self.blocks = 0
        self.num_prompt = new.num_prompt
        self.length = self.known = len(new.token_ids)
        self.tokens: NDArray[np.int32] = np.empty(max(16, self.length + 64), np.int32)
        self.tokens[: self.length] = new.token_ids
        #: The token at ``length - 1``: reading one from an array costs as much as the rest of a decode's inputs.
        self.last = new.token_ids[-1] if new.token_ids else 0
        self.params = p
        self.eos = new.eos_token_ids
        self.ends = frozenset((*p.stop_token_ids, *(() if p.ignore_eos else new.eos_token_ids)))
        seed = p.seed if p.seed is not None else new.seq
        self.seed = (seed + 2**63) % 2**64 - 2**63
        self.greedy = p.temperature < GREEDY_BELOW
        self.filtered = not self.greedy and (p.top_k > 0 or p.top_p < 1.0 or p.min_p > 0.0)
        self.masked = bool(
            p.logit_bias or p.allowed_token_ids is not None or p.bad_words_ids or p.min_tokens
            or p.logits_processors or p.thinking is not None
        )  # fmt: skip
        self.guided = p.guide is not None
        self.penalised = p.repetition_penalty != 1.0 or p.presence_penalty != 0.0 or p.frequency_penalty != 0.0
        self.simple = not self.masked and not self.penalised and p.logprobs is None
        self.counts: TokenCounts | None = None
        self.fixed: dict[str, Tensor] = {}
        self.grammar: GrammarState | None = None
        self.processing: Processing | None = None
        self.pending: tuple[int, TokenLogprobs] | None = None
        self.sampled: int | None = None
        self.refused = refusal(new)

    def token_at(self, position: int) -> int:
        """The token at that position."""
        return self.last if position == self.length - 1 else int(self.tokens[position])

    def extend(self, token_ids: list[int], draft: list[int]) -> None:
        """Add committed tokens, and put draft tokens after them."""
        end = self.length + len(token_ids)
        if end + len(draft) > self.tokens.size:
            grown = np.empty(2 * (end + len(draft)), np.int32)
            grown[: self.length] = self.tokens[: self.length]
            self.tokens = grown
        if len(token_ids) == 1:
            self.tokens[self.length] = token_ids[0]
        else:
            self.tokens[self.length : end] = token_ids
        if token_ids:
            self.last = token_ids[-1]
        if draft:
            self.tokens[end : end + len(draft)] = draft
        self.length = end


def refusal(new: NewSequence) -> str | None:
    """Why this worker cannot serve the sequence, or None."""
    if new.adapter is not None:
        return f"adapter {new.adapter!r}: this engine does not apply adapters"
    if new.multimodal:
        return f"multimodal input ({new.multimodal[0].modality}): this engine takes text only"
    if new.pooling is not None:
        return f"pooling task {new.pooling.task!r}: this engine generates only"
    return None


class SequenceTable:
    """All sequences that the scheduler has told of and not ended, with their block tables in one array."""

    def __init__(self, block_size: int, max_model_len: int, rows: int) -> None:
        self.block_size = block_size
        self.blocks: NDArray[np.int32] = np.zeros((max(rows, 1), -(-max_model_len // block_size) + 1), np.int32)
        self._free = list(range(self.blocks.shape[0] - 1, -1, -1))
        self._sequences: dict[int, Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, seq: int) -> Sequence:
        return self._sequences[seq]

    def retire(self, step: Step) -> None:
        """Apply the step's ``ended`` and ``preempted``."""
        for seq in step.ended:
            sequence = self._sequences.pop(seq, None)
            if sequence is not None:
                self._free.append(sequence.row)
        for seq in step.preempted:
            if seq in self._sequences:  # One that was preempted before its first step is not known here.
                self._sequences[seq].blocks = 0

    def admit(self, step: Step) -> None:
        """Apply the step's ``new``."""
        for new in step.new:
            if not self._free:
                self._grow(rows=2 * self.blocks.shape[0])
            self._sequences[new.seq] = Sequence(new, self._free.pop())

    def advance(self, work: Work) -> Sequence:
        """Apply what a work item adds to its sequence: committed tokens, drafts, blocks."""
        sequence = self._sequences[work.seq]
        if work.ahead:
            if sequence.sampled is None:
                raise ValueError(f"step goes on from a token of sequence {work.seq} that was not sampled here")
            sequence.extend([*work.append, sequence.sampled], [])
        elif work.append or work.draft:
            sequence.extend(work.append, work.draft)
        end = sequence.blocks + len(work.blocks)
        if work.blocks:
            if end > self.blocks.shape[1]:
                self._grow(columns=2 * end)
            self.blocks[sequence.row, sequence.blocks : end] = work.blocks
            sequence.blocks = end
        last = work.start + work.count
        if last > sequence.length + len(work.draft) or last > end * self.block_size:
            raise ValueError(
                f"step asks for positions up to {last} of sequence {work.seq}, which has {sequence.length} tokens, "
                f"{len(work.draft)} drafts and {end} blocks of {self.block_size}"
            )
        return sequence

    def _grow(self, rows: int = 0, columns: int = 0) -> None:
        old = self.blocks
        self.blocks = np.zeros((max(rows, old.shape[0]), max(columns, old.shape[1])), np.int32)
        self.blocks[: old.shape[0], : old.shape[1]] = old
        self._free.extend(range(self.blocks.shape[0] - 1, old.shape[0] - 1, -1))
