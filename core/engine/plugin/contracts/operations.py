"""Contract of a device's small operations: what a model computes between its linear layers and its attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from engine.plugin.contracts.packed import LinearKernel

#: Activations by the names that :meth:`Operations.activate` and :meth:`Operations.gate` take.
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "gelu_quick", "relu", "relu2", "tanh", "sigmoid")


@dataclass(frozen=True, slots=True, eq=False)
class GrammarSteps:
    """Calls of another library's C functions that step grammars, one row of a mask each, and what becomes of them.

    ``calls`` [R, C, 5] are those of :class:`~engine.plugin.contracts.generation.Stepper`. They leave masks in ``bits`` [R, words]. Of the
    mask of row i only what is at the address ``kept[i]`` stays (0: all); where it then has the bit ``end``, the tokens ``ends[i]`` [E] are
    set, too (negative ones are none). Written: ``status`` [R], 0 or what the call that failed returned; ``late`` [1] where a row takes more
    than ``limit`` seconds.
    """

    calls: NDArray[np.uint64]
    bits: NDArray[np.int32]
    kept: NDArray[np.uint64]
    end: int
    ends: NDArray[np.int64]
    status: NDArray[np.int32]
    late: NDArray[np.int32]
    limit: float


class Mixture(Protocol):
    """A mixture of experts whose weights a device has: see :meth:`Operations.mixture`."""

    def __call__(self, x: Tensor, logits: Tensor, /) -> Tensor:
        """Rows [T, hidden] and the router's logits [T, experts] → [T, hidden]."""


class Operations(ABC):
    """The operations that layers call through ``ModelContext.ops``; the core's torch implementation defines them.

    Every result is a new tensor, contiguous, in the dtype of ``x``; arguments stay as they are. ``x`` is in the
    activations' dtype (float32, bfloat16, float16) and may be a view whose rows lie apart: only its last axis has stride 1.
    Weights are contiguous and in the activations' dtype. A row's result does not depend on the other rows. Any number
    of rows, also none.
    """

    #: Whether :meth:`step_grammars` is there, and ``steps`` of :meth:`restrict` and :meth:`sample`.
    steps_grammars: ClassVar[bool] = False

    @abstractmethod
    def embed(self, ids: Tensor, weight: Tensor, *, offset: int = 0, scale: float | None = None) -> Tensor:
        """Rows ``ids + offset`` of weight [count, n]: int64 [T] → [T, n], times ``scale`` rounded to the weight's dtype.

        Ids are valid: the engine checks them before they come here.
        """

    def select(self, x: Tensor, rows: Tensor) -> Tensor:
        """Rows [R] (int64, valid) of x [T, ...] → [R, ...]."""
        return x[rows]

    @abstractmethod
    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, *, offset: float = 0.0) -> Tensor:
        """x [..., n] / sqrt(mean(x²) + eps) · weight [n] over the last axis, computed in float32.

        ``offset`` 0: rounded to x's dtype before the weight is multiplied in that dtype (Llama). Otherwise the product with
        (weight + offset) is made in float32 and rounded once (Gemma).
        """

    @abstractmethod
    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """(x - mean) / sqrt(variance + eps) · weight + bias over the last axis [..., n]; statistics in float32."""

    @abstractmethod
    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """x + y of one shape."""

    @abstractmethod
    def activate(self, x: Tensor, name: str) -> Tensor:
        """One of :data:`ACTIVATIONS` on every element."""

    @abstractmethod
    def gate(self, x: Tensor, name: str) -> Tensor:
        """[rows, 2n] of gate and up → [rows, n]: activation(gate), rounded to x's dtype, times up."""

    @abstractmethod
    def soft_cap(self, x: Tensor, cap: float) -> Tensor:
        """cap · tanh(x / cap)."""

    @abstractmethod
    def rotation(self, positions: Tensor, frequencies: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of a step's rows: int64 [T] and float32 [n] → [T, 1, n] each in ``dtype``.

        The angles position · frequency, their cos and sin, and the factor ``scale`` on both are float32.
        """

    @abstractmethod
    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
        """Rotate the first 2n elements of each head of x [T, heads, head_dim] by cos and sin [T, 1, n]; the rest passes.

        Pairs are (i, i + n), or (2i, 2i + 1) where ``interleaved``.
        """

    @abstractmethod
    def best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, V] → the largest value of each row, float32 [rows], and its id, int64 [rows], the lowest among equals.

        The value is NaN where the row holds a NaN; the id then means nothing.
        """

    def mixture(
        self, gate_up: Sequence[LinearKernel], down: Sequence[LinearKernel], *, top_k: int, renormalize: bool, act: str
    ) -> Mixture | None:
        """A mixture of experts in one go, made once; each expert's :meth:`gate` is ``act``, its layers have no bias.

        A row goes to the ``top_k`` experts of the largest softmax of its logits, the lowest among equals; ``renormalize``: their weights
        then sum to 1. Experts' results are rounded to x's dtype, weighted and summed in float32. It decides nothing on the host.
        None: the layer computes expert by expert.
        """
        return None

    def step_grammars(self, steps: GrammarSteps) -> None:
        """Do the calls of ``steps``: rows at the same time, a row's in order on one thread, until one of it fails."""
        raise NotImplementedError

    def begin_grammars(self, steps: GrammarSteps) -> bool:
        """Have the calls of ``steps`` done beside the caller: they are over before any other operation begins, and when
        :meth:`finish_grammars` returns. False: nothing was begun, :meth:`step_grammars` does them."""
        return False

    def finish_grammars(self) -> None:
        """Wait for what was begun."""

    def restrict(
        self, logits: Tensor, rows: NDArray[np.int64], bits: NDArray[np.int32], steps: GrammarSteps | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """:meth:`best` of logits [R, V] after what masks forbid was set to −∞ in place, in one go.

        ``bits`` [len(rows), words] are the masks of ``rows``, each of which is named at most once: bit i of word w allows id
        32·w + i; 32·words ≥ V. ``steps`` come before, and write ``bits``. None: the engine sets it and asks :meth:`best`.
        """
        return None

    def sample(
        self, logits: Tensor, best: Tensor, temperature: NDArray[np.float32], top_k: NDArray[np.int64],
        top_p: NDArray[np.float32], min_p: NDArray[np.float32], chance: NDArray[np.float64],
        masks: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None, steps: GrammarSteps | None = None,
    ) -> Tensor | None:
        """Draw one token of each row of logits [rows, V], whose largest values are ``best`` float32 [rows] → int64 [rows].

        Allowed tokens and the draw by ``chance`` are defined by :mod:`engine.worker.draw`; parameters are per row, ``top_k``
        ≤ 0 allows all. A row whose ``best`` is not finite gets any valid id. ``masks``: rows and bits, by which logits are restricted
        before (:meth:`restrict`), after ``steps``; ``best`` is written then. None: the sampler draws with torch.
        """
        return None
