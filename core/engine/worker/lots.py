"""What drawing needs of each sequence, kept from step to step: the next one is usually about the same sequences, a token further."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.worker.sequences import Sequence
from engine.worker.uniform import TOKEN, uniforms

#: Steps whose uniform numbers are worked out together: for few rows that takes as long as those of one step.
AHEAD = 8
#: Far below it every token is as likely as any other; infinity, which float32 has above 3.4e38, would make forbidden tokens so too.
HOTTEST = 1e30

#: Temperature, top_k, top_p, min_p and the uniform number of each row.
Drawing = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]


class Lots:
    """The drawings of step after step. As long as the same sequences go on they are the same arrays with other uniform numbers, so one
    is valid until the next is asked for."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []
        self._drawing: Drawing | None = None
        #: Uniform numbers [AHEAD, R], the place of the next, and the lengths that it is for, as bytes.
        self._chances: NDArray[np.float64] = np.zeros((AHEAD, 0), np.float64)
        self._place = AHEAD
        self._due = b""

    def of(self, sequences: list[Sequence], lengths: NDArray[np.int64]) -> Drawing:
        """Of rows that belong to these sequences, after so many tokens of context each."""
        drawing = self._drawing
        if drawing is None or sequences != self._sequences:
            self._sequences = list(sequences)
            drawing = self._drawing = (*parameters(sequences), np.empty(len(sequences), np.float64))
            self._place = AHEAD
        # Bytes compare in a tenth of the time that numpy takes for so few.
        if self._place == AHEAD or lengths.tobytes() != self._due:
            seeds, positions = seeds_of(sequences), lengths + np.arange(AHEAD)[:, None]
            self._chances = uniforms(np.broadcast_to(seeds, positions.shape), positions, TOKEN)
            self._place = 0
        drawing[-1][:] = self._chances[self._place]
        self._place += 1
        self._due = (lengths + 1).tobytes()
        return drawing


def drawing_of(sequences: list[Sequence], lengths: NDArray[np.int64]) -> Drawing:
    """The same for once."""
    return (*parameters(sequences), uniforms(seeds_of(sequences), lengths, TOKEN))


def seeds_of(sequences: list[Sequence]) -> NDArray[np.int64]:
    """Of each."""
    return np.array([sequence.seed for sequence in sequences], np.int64)


def parameters(
    sequences: list[Sequence],
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Temperature, top_k, top_p and min_p of each."""
    params = [sequence.params for sequence in sequences]
    return (
        np.array([min(p.temperature, HOTTEST) for p in params], np.float32),
        np.array([p.top_k for p in params], np.int64),
        np.array([p.top_p for p in params], np.float32),
        np.array([p.min_p for p in params], np.float32),
    )
