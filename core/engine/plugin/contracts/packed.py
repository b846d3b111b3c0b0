"""Canonical packed weights and quantizers: a format *reads*, a packed weight *holds*, a device kernel *computes*."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from engine.plugin.facts import TensorInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class LinearShape(msgspec.Struct, frozen=True):
    """One linear layer as the model has it, before tensor-parallel sharding.

    ``name`` is its checkpoint prefix (``model.layers.0.self_attn.q_proj``; a fused layer has its ``parts`` instead, in output order,
    each with its own ``sizes`` entry). ``outputs`` = sum(sizes). ``experts`` > 0: it exists once per expert. ``role``: ``head`` turns
    hidden states into logits, ``router`` chooses experts; a method that quantizes plain weights leaves these two as they are.
    """

    name: str
    inputs: int
    outputs: int
    parts: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    experts: int = 0
    role: Literal["linear", "head", "router", "embedding"] = "linear"


class CheckpointTensor(msgspec.Struct, frozen=True):
    """A tensor that a quantization format keeps for a linear layer under ``<layer name>.<suffix>``.

    ``output_axis``/``input_axis``: the axis that runs along the layer's outputs/inputs (None: the tensor has none);
    ``output_group``/``input_group``: how many outputs/inputs one element of that axis covers (packing factor or group size).
    ``output_items``/``input_items``: how many elements together cover such a group (3 words for 32 inputs of 3 bits, the bytes of a block).
    ``spreads``: the elements are scales, which stay right for smaller groups: where a shard would cut a group, they are repeated, and the
    tensor comes with more of them, as the format sees from its shape.
    From these the layer cuts tensor-parallel shards and joins fused parts. A tensor without an output axis of a layer that is fused from
    several parts arrives in ``pack`` stacked: [parts, …].

    ``plain``: the unquantized weight, which the method quantizes while loading (axes 0 and 1). The layer checks its shape, turns it where
    the architecture keeps it as [inputs, outputs], rounds it to the activations' dtype, and takes it from tensors that hold all experts.
    """

    suffix: str
    output_axis: int | None = None
    input_axis: int | None = None
    output_group: int = 1
    input_group: int = 1
    optional: bool = False
    plain: bool = False
    output_items: int = 1
    input_items: int = 1
    spreads: bool = False


class PackedWeight(ABC):
    """A linear weight in one canonical layout, on a device. ``outputs`` × ``inputs`` elements.

    Canonical layouts share this interface so that N formats × M devices stay N + M. ``layout`` names it: ``dense``,
    ``grouped_int``, ``codebook``, ``scaled_float8``, ``blocks``, ``additive``, ``sparse24``, ``shared_scales``, and those made of
    others: ``permuted``, ``joined``, ``rounded_inputs``, whose kernels the core makes of the device's kernels of their parts.
    """

    layout: str
    outputs: int
    inputs: int

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The weight as a dense [outputs, inputs] tensor: the definition that every kernel is tested against."""
        return self.take(slice(0, self.outputs), dtype)

    @abstractmethod
    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Dequantized outputs: ``which`` is a slice without step or int64 [n] → [n, inputs]."""

    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that the weight occupies."""


class LinearWork(msgspec.Struct, frozen=True):
    """What a product with one row does: ``elements`` of a weight are multiplied, of which ``read_bytes`` are read from memory.

    ``arithmetic``: the dtype that is multiplied, as :meth:`Device.limits` takes it: ``int8`` where activations are rounded to 8 bits.
    """

    elements: int
    read_bytes: int
    arithmetic: str


class LinearKernel(ABC):
    """A device's way to multiply by one packed weight; made once per layer, called per step.

    ``gathers``: it also gives back rows of the weight, so that a tied embedding needs no copy of it.
    """

    gathers: bool = False

    def work(self, dtype: str) -> tuple[LinearWork, ...]:
        """What activations of ``dtype`` cost, by part of the weight, for benchmarks to compare with; empty: the kernel cannot tell."""
        return ()

    @abstractmethod
    def apply(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[rows, inputs] → [rows, outputs], in x's dtype; bias [outputs] is added."""

    def part(self, begin: int, end: int) -> LinearKernel | None:
        """A kernel of the outputs [begin, end) alone, on this one's memory: the same bits. None: there is none of these."""
        return None

    def gather(self, ids: Tensor, scale: float | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """Rows ``ids`` (int64 [T]) of the weight: [T, inputs] in ``dtype``, times ``scale`` rounded to it.

        ``dtype`` is given for quantized weights alone; a dense one is gathered in its own.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot gather rows")


class WeightFormat(ABC):
    """How one layer's weight is kept in the checkpoint, and how it becomes canonical.

    ``whole``: its tensors cannot be cut, so ``pack`` gets the whole layer (one part) on every rank, and the layer takes the rank's share
    of the ``dense``, ``codebook`` or ``shared_scales`` weight that it gives.
    """

    whole: bool = False

    @abstractmethod
    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The tensors to collect before ``pack`` can be called."""

    def unfold(self, part: LinearShape, suffix: str, tensor: Tensor) -> Tensor:
        """A whole checkpoint tensor of one part as it is to be cut and joined, for tensors that do not run along outputs and inputs.

        Of a tensor that is known and not needed this is an empty one.
        """
        return tensor

    @abstractmethod
    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """One rank's joined and sharded tensors by suffix → the packed weight, for activations of ``dtype``.

        Called as soon as the layer's tensors have arrived, in the loading thread. Tensors may be views of mapped files. A ValueError
        (the canonical layouts raise it for what does not fit) becomes a :class:`~engine.errors.ModelFileError` that names the layer.
        """


class PartFormats(msgspec.Struct, frozen=True):
    """The answer for a fused layer whose parts are kept in different ways: one format per part, None where it is not quantized.

    Each part is collected and packed alone, under its own name; the layer's weight is then a ``Joined`` of them.
    """

    formats: tuple[WeightFormat | None, ...]


class Quantizer(ABC):
    """A quantization method on one checkpoint. Made once per worker."""

    @abstractmethod
    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """The format of that layer, or None where the checkpoint leaves it unquantized."""

    def embedding(self, layer: LinearShape) -> WeightFormat | None:
        """The format of a token embedding (``outputs`` is the vocabulary), or None where it is not quantized."""
        return None

    def kv_scale_suffixes(self) -> Mapping[str, str]:
        """Checkpoint suffix → ``k_scale``, ``v_scale`` or ``kv_scale`` (both), for KV-cache scales under names of the method's own.

        The usual names are known without: see :mod:`engine.layers.kv_scales`.
        """
        return {}

    def layouts(self) -> tuple[str, ...]:
        """Quantized layouts that weights become, with the bits of integers and codebooks: ``grouped_int 4``, ``codebook 4``,
        ``scaled_float8``, ``blocks q4_k`` (with their kind), ``additive``, ``sparse24``, ``shared_scales 4``. ``engine plan`` says which
        of them the device has no kernel for. Empty: not known before loading.
        """
        return ()

    def held(self, tensor: TensorInfo) -> int | None:
        """Bytes in memory of what becomes of a checkpoint tensor, from its header; None: it is no part of a packed weight.

        The plan's weights are the sum of these over the checkpoint.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """What ``engine plan`` prints of the method (bits, group size …)."""
        return {}
