"""Counter-based random numbers: a function of (seed, position, stream) alone, so nothing else can change a draw."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Streams of one position: the token itself, and what an acceptance method needs beside it.
TOKEN, ACCEPT, RESIDUAL = 0, 1, 2

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits in which every input bit moves
    every output bit."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def uniforms(seeds: NDArray[Any], positions: NDArray[Any], stream: int = TOKEN) -> NDArray[np.float64]:
    """Numbers in [0, 1) with 53 random bits; int64 ``seeds`` (any value) and ``positions`` of one shape."""
    with np.errstate(over="ignore"):
        state = mix(seeds.astype(np.int64).view(np.uint64))
        state = mix(state ^ positions.astype(np.int64).view(np.uint64))
        state = mix(state ^ np.uint64(stream))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53
