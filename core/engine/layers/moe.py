"""Mixture of experts: a router, and experts that are tensor-parallel slices each."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.layers.activation import Activation
from engine.layers.linear import Linear, MergedColumnParallelLinear, ReplicatedLinear, RowParallelLinear
from engine.layers.loading import CheckpointLayer, Slot
from engine.plugin.contracts.model import AdapterBatch, ModelContext
from engine.plugin.contracts.operations import Mixture
from engine.plugin.contracts.packed import LinearKernel


class ExpertNames(NamedTuple):
    """How the checkpoint names an expert's three matrices under ``experts.<number>.``"""

    gate: str
    up: str
    down: str


class FusedExperts(CheckpointLayer):
    """Takes the spelling in which all experts of a layer are one tensor: ``gate_up_proj`` [experts, 2 · inner, hidden], ``down_proj``."""

    def __init__(self, name: str, gate_up: list[Linear], down: list[Linear]) -> None:
        super().__init__()
        self.groups = ((f"{name}.gate_up_proj", gate_up), (f"{name}.down_proj", down))

    def slots(self) -> Iterable[Slot]:
        """One optional slot per fused tensor, in place of the experts' own; none where these are quantized in the checkpoint."""
        for name, layers in self.groups:
            plain = [[slot for slot in layer.plain_slots() if slot is not None] for layer in layers]
            if all(len(slots) == len(layer.parts) for slots, layer in zip(plain, layers, strict=True)):
                yield _fused_slot(name, layers, plain)

    def take_as_found(self, names: Collection[str]) -> None:
        """Experts that the checkpoint has as plain fused tensors are plain, also where their format has tensors of its own."""
        for name, layers in self.groups:
            if name in names and any(None in layer.plain_slots() for layer in layers):
                for layer in layers:
                    layer.leave_plain()


def _fused_slot(name: str, layers: list[Linear], plain: list[list[Slot]]) -> Slot:
    def take(tensor: Tensor) -> None:
        for layer, matrix, slots in zip(layers, tensor, plain, strict=True):
            row = 0
            for part, slot in zip(layer.parts, slots, strict=True):
                slot.take(matrix.narrow(0, row, part.outputs))
                row += part.outputs

    shape = (len(layers), layers[0].shape.outputs, layers[0].shape.inputs)
    fills = tuple(slot.name for slots in plain for slot in slots)
    return Slot(name, shape, take, optional=True, fills=fills, quick=all(slot.quick for slots in plain for slot in slots))


class SparseMLP(nn.Module):
    """Each row goes to its ``top_k`` experts; their outputs are summed by the router's weights.

    ``name`` is the checkpoint prefix over ``gate`` (the router) and ``experts``. ``renormalize``: the chosen experts' weights sum to 1.
    Where the device has no mixture of its own for these weights, the host decides which experts run: such a step cannot be recorded.
    """

    def __init__(
        self, context: ModelContext, name: str, names: ExpertNames, *, hidden: int, inner: int, experts: int, top_k: int, act: str,
        renormalize: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.parallel = context.parallel
        self.ops = context.ops
        self.mixture: Mixture | None = None
        self.top_k = top_k
        self.renormalize = renormalize
        self.act = Activation(context, act)
        self.router = ReplicatedLinear(context, f"{name}.gate", hidden, experts, router=True)
        prefixes = [f"{name}.experts.{number}" for number in range(experts)]
        self.gate_up = nn.ModuleList(
            MergedColumnParallelLinear(
                context,
                f"{prefix}.gate_up_proj",
                (f"{prefix}.{names.gate}", f"{prefix}.{names.up}"),
                hidden,
                (inner, inner),
                experts=experts,
            )
            for prefix in prefixes
        )
        self.down = nn.ModuleList(
            RowParallelLinear(context, f"{prefix}.{names.down}", inner, hidden, reduce=False, experts=experts) for prefix in prefixes
        )
        self.fused = FusedExperts(f"{name}.experts", _linears(self.gate_up), _linears(self.down))

    def forward(self, x: Tensor, adapters: AdapterBatch | None = None) -> Tensor:
        """[T, hidden] → [T, hidden]."""
        mixed = self.one_by_one(x) if self.mixture is None else self.mixture(x, self.router(x))
        return self.parallel.all_reduce(mixed) if self.parallel.size > 1 else mixed

    @property
    def share(self) -> float:
        """Of the rows, that an expert gets where all are chosen equally often."""
        return self.top_k / len(self.down)

    def experts(self) -> list[Linear]:
        """The layers of all experts."""
        return [*_linears(self.gate_up), *_linears(self.down)]

    def settle(self) -> bool:
        """Once all experts are finished: use the device's mixture of them. Whether it has one."""
        gate_up, down = (_kernels(layers) for layers in (self.gate_up, self.down))
        if gate_up and down:
            self.mixture = self.ops.mixture(gate_up, down, top_k=self.top_k, renormalize=self.renormalize, act=self.act.name)
        return self.mixture is not None

    def one_by_one(self, x: Tensor) -> Tensor:
        """The definition: this rank's part of the mixture, expert by expert."""
        weights, chosen = self.route(x)
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.down)).tolist()
        rows = torch.split(x.index_select(0, order // self.top_k), counts)
        done = torch.cat([self.expert(number, piece) for number, piece in enumerate(rows) if len(piece)])
        # Undoing the permutation and summing over k keeps the order of additions fixed; scattered additions would not.
        mine = torch.empty_like(done).index_copy_(0, order, done).view(len(x), self.top_k, -1)
        return (mine * weights.unsqueeze(-1)).sum(1).to(x.dtype)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float32 weights and int64 expert numbers, [T, top_k] each."""
        shares = torch.softmax(self.router(x).float(), dim=-1)
        weights, chosen = torch.topk(shares, self.top_k, dim=-1)
        if self.renormalize:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights, chosen

    def expert(self, number: int, x: Tensor) -> Tensor:
        """One expert's output for its rows."""
        return self.down[number](self.act.gate(self.gate_up[number](x)))  # type: ignore[no-any-return]


def _kernels(modules: nn.ModuleList) -> list[LinearKernel]:
    """Those of all layers; none where one of the layers has something of its own beside the product."""
    layers = _linears(modules)
    kernels = [layer.kernel for layer in layers if layer.kernel is not None and layer.adapter is None]
    return kernels if len(kernels) == len(layers) else []


def _linears(modules: nn.ModuleList) -> list[Linear]:
    return [module for module in modules if isinstance(module, Linear)]
