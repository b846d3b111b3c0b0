"""What the forward pass of a step gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from engine.worker.inputs import StepInputs


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What a step computed: ``logits`` [R, V] of the rows to sample (None: there are none), and of each of those the largest
    logit, float32 [R], and its id, int64 [R]; ``hidden`` [T, n] of all rows where they were asked for. Valid until the next step.

    ``tokens`` [R]: those with the largest logits, where the step after has begun with them and nothing else is there any more."""

    hidden: Tensor | None = None
    logits: Tensor | None = None
    best: tuple[Tensor, Tensor] | None = None
    tokens: NDArray[np.int64] | None = None

    def every(self) -> Tensor:
        """Hidden states of all rows, of a step whose inputs ask for them."""
        if self.hidden is None:
            raise RuntimeError("hidden states of all rows were not asked for")
        return self.hidden


def pick(outputs: tuple[Tensor, ...], inputs: StepInputs, count: int) -> Computed:
    """The rows of the batch without padding, and of logits those that are to be sampled."""
    hidden, logits, value, token = outputs
    rows = inputs.sample_rows
    if not len(rows):
        return Computed(hidden[:count])
    if len(rows) == count == len(hidden):
        return Computed(hidden, logits, (value, token))
    if len(rows) == count:
        return Computed(hidden[:count], logits[:count], (value[:count], token[:count]))
    index = torch.from_numpy(rows).to(logits.device)
    return Computed(hidden[:count], logits[index], (value[index], token[index]))
