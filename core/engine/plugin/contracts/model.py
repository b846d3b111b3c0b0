"""Contract of a model: what a worker runs between the scheduler's step and the sampler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from engine.plugin.contracts.attention import AttentionBackend, AttentionBatch
    from engine.plugin.contracts.operations import Operations
    from engine.plugin.contracts.packed import LinearKernel, PackedWeight, Quantizer
    from engine.plugin.facts import ModelInfo


class Parallel(ABC):
    """One worker's place among the workers, and the collectives of its tensor-parallel group.

    ``rank``/``size``: tensor parallel; ``stage``/``stages``: pipeline parallel. Collectives are no-ops for size 1.
    """

    rank: int = 0
    size: int = 1
    stage: int = 0
    stages: int = 1

    @abstractmethod
    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over the group; may work in place; every rank gets the same bits."""

    @abstractmethod
    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """Concatenate the ranks' tensors along ``dim``, in rank order."""

    @property
    def first_stage(self) -> bool:
        """Whether this stage embeds tokens."""
        return self.stage == 0

    @property
    def last_stage(self) -> bool:
        """Whether this stage computes logits."""
        return self.stage == self.stages - 1


@dataclass(frozen=True, slots=True, eq=False)
class AdapterBatch:
    """Which adapter each row uses: ``index`` int32 [T], −1 for none, into ``slots`` (opaque to models; linear layers apply it)."""

    index: Tensor
    slots: Any


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """The rows of a step whose hidden states are wanted, each as a sequence of its own: R of them, possibly none.

    rows int64 [R], their numbers in the step; ``attention``: R sequences of one row each, whose context ends with it (nothing of theirs
    is stored: the step stores its rows); ``adapters``: theirs.
    """

    rows: Tensor
    attention: AttentionBatch
    adapters: AdapterBatch | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One step's inputs. T rows, packed by sequence.

    token_ids int64 [T], positions int64 [T] ([3, T] for multimodal rope). ``attention``: see there.
    ``caches``: one tensor per layer of ``ModelInfo.layers`` (this stage's layers only are not None).
    ``embeddings`` [T, hidden] with ``embedding_mask`` bool [T]: rows whose token embedding is replaced (multimodal, prompt adapters).
    ``hidden`` [T, hidden]: the previous pipeline stage's output; None on the first stage.
    ``wanted``: the rows that ``forward`` is to return; None: all. Models get it whose ``selects`` says that they look at it, no others.
    """

    token_ids: Tensor
    positions: Tensor
    attention: AttentionBatch
    caches: list[Tensor]
    embeddings: Tensor | None = None
    embedding_mask: Tensor | None = None
    adapters: AdapterBatch | None = None
    hidden: Tensor | None = None
    wanted: Wanted | None = None


def torch_operations() -> Operations:
    """The core's operations."""
    from engine.layers.operations import TorchOperations

    return TorchOperations()


@dataclass(frozen=True, slots=True, eq=False)
class ModelContext:
    """What a model is built from. ``kernel`` turns a packed weight into the device's (or the reference) linear kernel;
    ``ops`` are the device's (or the reference) operations between linear layers and attention.

    ``offload`` takes a linear layer's packed weight that is to stay in host memory and gives its kernel, or None where it is to go to
    the device like all others; None: nothing stays there.

    ``device`` is where parameters live, ``dtype`` that of activations and unquantized weights. ``max_model_len``: the longest context that
    will be served (0: as long as ``info`` allows); positions whose encoding depends on it are fixed by it.
    """

    info: ModelInfo
    config: dict[str, Any]
    dtype: torch.dtype
    device: torch.device
    parallel: Parallel
    attention: AttentionBackend
    kernel: Callable[[PackedWeight], LinearKernel]
    quantizer: Quantizer | None = None
    checkpoint_path: str = ""
    max_model_len: int = 0
    ops: Operations = field(default_factory=torch_operations)
    offload: Callable[[PackedWeight], LinearKernel | None] | None = None

    @property
    def longest(self) -> int:
        """The longest context in tokens."""
        return self.max_model_len or self.info.max_model_len


class Model(ABC):
    """A network on the engine's layers (or on transformers'). One per worker; holds this rank's shard of this stage's layers.

    A subclass is usually also a ``torch.nn.Module``. Called once: ``expect``, ``load``, ``finish``; per step: ``forward``, ``logits``.
    ``recordable`` False: a step takes decisions on the host from tensor values (experts by token), and cannot be recorded and replayed.
    ``selects`` True: of a batch with ``wanted`` the last layer computes the wanted rows alone; False: ``wanted`` is None at all times.
    """

    recordable: bool = True
    selects: bool = False

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [T, hidden] after the last layer of this stage (after the final norm on the last stage).

        [R, hidden] of the wanted rows where the batch names them. Keys and values of all rows are stored all the same.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """[rows, hidden] → [rows, logits_size], the whole vocabulary on every rank, soft caps and scales applied."""

    @abstractmethod
    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Take this rank's part of each checkpoint tensor; returns the names of own parameters that were never filled.

        Tensors that the model does not know raise :class:`engine.errors.ModelFileError`, except documented leftovers
        (rotary inverse frequencies, a tied lm_head).
        """

    def expect(self, names: Collection[str]) -> None:
        """Before ``load``: the names of all tensors that it will be given, so that layers can be finished as soon as theirs arrived."""

    def finish(self) -> None:
        """After loading: pack weights, build kernels. Called once."""

    def kv_scales(self) -> Mapping[int, Mapping[str, float]]:
        """After ``load``: the checkpoint's ``k_scale`` and ``v_scale`` of an 8-bit KV cache, by layer."""
        return {}

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings [T, hidden]; needed where rows are replaced."""
        raise NotImplementedError(f"{type(self).__name__} does not embed separately")

    def pool(self, hidden: Tensor, starts: Tensor) -> Tensor:
        """Pooled outputs [B, n] of sequences whose rows start at ``starts``; only for pooling tasks."""
        raise NotImplementedError(f"{type(self).__name__} does not pool")
