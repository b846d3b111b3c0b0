"""From logits to tokens: masks, penalties, temperature, filters and the draw, batched over rows in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from engine.plugin.contracts.generation import LogitsProcessor
from engine.plugin.contracts.model import torch_operations
from engine.plugin.contracts.operations import Operations
from engine.plugin.step import NOTHING_ALLOWED, TokenLogprobs
from engine.worker.bits import GrammarMasks, forbid
from engine.worker.draw import draw, thresholds
from engine.worker.inputs import StepInputs
from engine.worker.logprobs import describe_tokens
from engine.worker.lots import Drawing, Lots, drawing_of, parameters
from engine.worker.masks import Masks
from engine.worker.penalties import apply_penalties
from engine.worker.processors import RowError
from engine.worker.sequences import Sequence

if TYPE_CHECKING:
    from torch import Tensor

NOT_FINITE = "the model's logits are not finite"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What to sample: row i belongs to ``sequences[i]`` after ``lengths[i]`` tokens of context (drafts included). ``drawing``: what
    drawing needs, where it is known before and no row is greedy."""

    sequences: list[Sequence]
    lengths: NDArray[np.int64]
    drawing: Drawing | None = None

    def drawn(self) -> Drawing:
        """What drawing all rows needs."""
        return self.drawing if self.drawing is not None else drawing_of(self.sequences, self.lengths)


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """One token per row; ``errors`` by row index, whose tokens mean nothing; ``logprobs`` of the rows that ask for
    them."""

    tokens: NDArray[np.int64]
    errors: dict[int, str]
    logprobs: dict[int, TokenLogprobs]


class Sampler:
    """A row's token depends on its logits, its sequence and its position alone; what is kept between calls saves time only.

    Greedy rows take the largest logit, the lowest id among equals. Other rows draw with the uniform number of (seed,
    position), so the token at a position is the same in whatever step, batch or process it is sampled. Drafts need no
    other rule: sampling every row on its own and accepting drafts while they equal the sampled tokens is rejection
    sampling against a one-point draft distribution (accepted with probability p(draft), otherwise the token follows p
    without the draft), and gives what plain decoding would.
    """

    def __init__(self, masks: Masks, ops: Operations | None = None) -> None:
        self._masks = masks
        self._ops = ops or torch_operations()
        self._lots = Lots()

    def prepare(self, inputs: StepInputs) -> Rows:
        """The rows of a step to sample. Asked for before the forward pass: after it the device's threads are awake, but not for long."""
        lengths = inputs.sample_length
        sequences = [inputs.sequences[owner] for owner in inputs.sample_owner.tolist()]
        drawn = bool(sequences) and not any([sequence.greedy for sequence in sequences])  # noqa: C419 - a list is quicker than a generator
        return Rows(sequences, lengths, self._lots.of(sequences, lengths) if drawn else None)

    @classmethod
    def plain(cls) -> Sampler:
        """A sampler without logits processors."""

        def processor(name: str) -> LogitsProcessor:
            raise LookupError(name)

        return cls(Masks(processor))

    def sample(self, logits: Tensor, rows: Rows, best: tuple[Tensor, Tensor] | None = None) -> Sampled:
        """logits [R, V] as the model gave them; ``best``: the largest of each row and its id, if they are known. Grammars may change
        logits whose best are known; others stay as they are."""
        if best is not None and all(sequence.simple for sequence in rows.sequences):
            guided = any(sequence.guided for sequence in rows.sequences)
            return self._guided(logits, rows) if guided else self._simple(logits, rows, *best)
        raw = logits.float()
        best_value = raw.amax(-1)
        finite = torch.isfinite(best_value)
        scores, errors = self._transform(raw, rows, shared=raw is logits or _wants_logprobs(rows))
        if any(sequence.masked or sequence.penalised or sequence.guided for sequence in rows.sequences):
            best_value = scores.amax(-1)  # also where they were changed in place
        tokens = self._choose(scores, best_value, rows)
        possible = torch.isfinite(best_value)
        packed = torch.stack((tokens, finite.long(), possible.long())).cpu().numpy()
        for i in np.flatnonzero(packed[2] == 0).tolist():
            errors.setdefault(i, NOTHING_ALLOWED)
        for i in np.flatnonzero(packed[1] == 0).tolist():
            errors[i] = NOT_FINITE
        return Sampled(packed[0], errors, self._logprobs(raw, packed[0], rows, errors))

    def _guided(self, logits: Tensor, rows: Rows) -> Sampled:
        """As :meth:`_simple`, after the grammars' masks, which change the logits."""
        masks = self._masks.take_grammars(rows.sequences)
        sampled = self._draw_masked(logits, rows, masks)
        if sampled is None:
            best = self._ops.restrict(logits, masks.rows, masks.bits, masks.steps)
            if best is None:
                if len(masks.rows):
                    forbid(logits, masks.rows, masks.bits)
                best = self._ops.best(logits)
            sampled = self._simple(logits, rows, *best)
        failed = masks.failed()
        if not sampled.errors and not failed:
            self._masks.lead(sampled.tokens)
            return sampled
        return Sampled(sampled.tokens, sampled.errors | masks.empty() | failed, {})

    def _draw_masked(self, logits: Tensor, rows: Rows, masks: GrammarMasks) -> Sampled | None:
        """Masks, the largest and the draw in one; None where a row is greedy, or the device does not do that."""
        if any([sequence.greedy for sequence in rows.sequences]):  # noqa: C419 - a list is quicker than a generator
            return None
        value = torch.empty(len(rows.sequences), dtype=torch.float32, device=logits.device)
        tokens = self._ops.sample(logits, value, *rows.drawn(), (masks.rows, masks.bits), masks.steps)
        return None if tokens is None else Sampled(tokens.cpu().numpy(), _not_finite(value), {})

    def _simple(self, logits: Tensor, rows: Rows, value: Tensor, token: Tensor) -> Sampled:
        """The best tokens of greedy rows and drawn ones of the others, from the logits as they are."""
        errors = _not_finite(value)
        drawn = [i for i, sequence in enumerate(rows.sequences) if not sequence.greedy]
        if len(drawn) == len(rows.sequences):
            return Sampled(self._draw(logits, value, rows.sequences, rows.drawn()).cpu().numpy(), errors, {})
        tokens = token.cpu().numpy().copy()
        if drawn:
            index = torch.tensor(drawn, device=logits.device)
            sequences = [rows.sequences[i] for i in drawn]
            tokens[drawn] = self._draw(logits[index], value[index], sequences, drawing_of(sequences, rows.lengths[drawn])).cpu().numpy()
        return Sampled(tokens, errors, {})

    def _transform(self, raw: Tensor, rows: Rows, shared: bool) -> tuple[Tensor, dict[int, str]]:
        """Masks, then penalties. ``shared``: raw must stay as it is, so changes go to a copy."""
        errors: dict[int, str] = {}
        masked = [i for i, sequence in enumerate(rows.sequences) if sequence.masked]
        penalised = [i for i, sequence in enumerate(rows.sequences) if sequence.penalised]
        if not masked and not penalised and not any(sequence.guided for sequence in rows.sequences):
            return raw, errors
        scores = raw.clone() if shared else raw
        errors.update(self._masks.apply_grammars(scores, rows.sequences, self._ops))
        for i in masked:
            try:
                self._masks.apply(scores[i], rows.sequences[i], int(rows.lengths[i]))
            except RowError as error:
                errors[i] = str(error)
        if penalised:
            apply_penalties(scores, [(i, rows.sequences[i], int(rows.lengths[i])) for i in penalised])
        return scores, errors

    def _choose(self, scores: Tensor, best_value: Tensor, rows: Rows) -> Tensor:
        """The best token of greedy rows, a drawn one of the others."""
        drawn = [i for i, sequence in enumerate(rows.sequences) if not sequence.greedy]
        if not drawn:
            return scores.argmax(-1)
        sequences = [rows.sequences[i] for i in drawn]
        if len(drawn) == len(rows.sequences):
            return self._draw(scores, best_value, sequences, rows.drawn())
        index = torch.tensor(drawn, device=scores.device)
        tokens = self._draw(scores[index], best_value[index], sequences, drawing_of(sequences, rows.lengths[drawn]))
        return scores.argmax(-1).index_copy_(0, index, tokens)

    def _draw(self, scores: Tensor, best_value: Tensor, sequences: list[Sequence], drawing: Drawing) -> Tensor:
        """One token per row by chance, on the device's kernel if it has one."""
        tokens = self._ops.sample(scores, best_value, *drawing)
        if tokens is not None:
            return tokens
        device, temperatures, chances = scores.device, drawing[0], drawing[-1]
        relative = (scores.float() - best_value[:, None]).div_(torch.from_numpy(temperatures).to(device)[:, None])
        filtered = [i for i, sequence in enumerate(sequences) if sequence.filtered]
        if filtered:
            least = torch.full((len(sequences),), -torch.inf, device=device)
            least[filtered] = _thresholds(relative, filtered, sequences)
            relative.masked_fill_(relative < least[:, None], -torch.inf)
        return draw(relative.exp_(), torch.from_numpy(chances).to(device))

    def _logprobs(
        self, raw: Tensor, tokens: NDArray[np.int64], rows: Rows, errors: dict[int, str]
    ) -> dict[int, TokenLogprobs]:
        asked = [
            (i, sequence.params.logprobs)
            for i, sequence in enumerate(rows.sequences)
            if sequence.params.logprobs is not None and i not in errors
        ]
        if not asked:
            return {}
        index = [i for i, _ in asked]
        part = raw if len(index) == raw.shape[0] else raw[torch.tensor(index, device=raw.device)]
        entries = describe_tokens(part, tokens[index], [count for _, count in asked])
        return dict(zip(index, entries, strict=True))


def _wants_logprobs(rows: Rows) -> bool:
    return any(sequence.params.logprobs is not None for sequence in rows.sequences)


def _not_finite(best: Tensor) -> dict[int, str]:
    """The rows whose largest logit is no number."""
    finite = np.isfinite(best.cpu().numpy())
    return {} if finite.all() else dict.fromkeys(np.flatnonzero(~finite).tolist(), NOT_FINITE)


def _thresholds(relative: Tensor, filtered: list[int], sequences: list[Sequence]) -> Tensor:
    part = relative if len(filtered) == len(sequences) else relative[torch.tensor(filtered, device=relative.device)]
    return thresholds(part, *parameters([sequences[i] for i in filtered])[1:])
