"""The checkpoint that is quantized: which of its tensors are matrices of the network, and how each lies in the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from engine.config import EngineConfig
from engine.errors import ConfigError, ModelFileError
from engine.layers.embedding import VocabParallelEmbedding
from engine.layers.linear import Linear
from engine.layers.loading import Slot, check_tensor, checkpoint_layers, collect_slots
from engine.layers.model import NativeModel
from engine.layers.moe import FusedExperts
from engine.layers.shards import Part
from engine.layers.state import KeptWeight
from engine.plugin.contracts.loading import Loader
from engine.plugin.contracts.model import ModelContext
from engine.plugin.contracts.packed import LinearShape
from engine.plugin.facts import TensorInfo
from engine.plugin.host import load
from engine.plugin.kinds import LOADER
from engine.worker.build import architecture_of, attention_of, open_device, torch_dtype
from engine.worker.save import OneRank


class Matrix(NamedTuple):
    """A matrix in a tensor: ``layer`` by the name it has outside of fused tensors; ``expert`` and ``row`` say where in one it begins."""

    layer: LinearShape
    transposed: bool = False
    expert: int | None = None
    row: int = 0

    def of(self, tensor: Tensor) -> Tensor:
        """The weight [outputs, inputs], a view of the tensor."""
        whole = tensor if self.expert is None else tensor[self.expert].narrow(0, self.row, self.layer.outputs)
        return whole.t() if self.transposed else whole


class Source:
    """A plain checkpoint of a native architecture. Close it.

    Raises :class:`ConfigError` for one that is quantized or that no native architecture reads, :class:`ModelFileError` for a damaged one.
    """

    def __init__(self, config: EngineConfig) -> None:
        _refuse(config)
        self.config = config
        self.network = _network(config)
        self.loader: Loader = load(
            config.choices["loader"], LOADER, checkpoint=config.model.checkpoint, info=config.model.info, options=dict(config.load.options)
        )
        self.loader.serve_rank(0, 1)
        if self.loader.own_state() or not self.loader.complete():
            name = config.choices["loader"].name
            raise ConfigError(f"--load-format {name} reads no checkpoint that could be quantized.", fix="the model's own checkpoint")
        self.slots: dict[str, Slot] = collect_slots(self.network)
        self.infos: tuple[TensorInfo, ...] = tuple(self.loader.describe())
        #: Matrices by the name of their tensor in the checkpoint; other tensors are not in it.
        self.matrices: dict[str, tuple[Matrix, ...]] = {}
        self._places: dict[str, Slot | None] = {}
        self._place()

    @property
    def layers(self) -> tuple[LinearShape, ...]:
        """Every matrix's layer, in the order of the files."""
        return tuple(matrix.layer for matrices in self.matrices.values() for matrix in matrices)

    def head(self) -> str | None:
        """The head's name where it is tied to the embedding: a tensor of it is not needed, whatever it holds."""
        head = self.network.head
        return head.shape.name if head is not None and head.tied else None

    def tensors(self, *, known: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Each tensor, checked against the configuration; those that the network does not know too, unless ``known`` ones are wanted."""
        for name, tensor in self.loader.tensors():
            slot = self._places.get(name)
            if slot is not None:
                check_tensor(name, tensor, slot)
            if slot is not None or not (known or name.removesuffix(".weight") == self.head()):
                yield name, tensor

    def close(self) -> None:
        """Let the files go."""
        self.loader.close()

    def _place(self) -> None:
        known, rules = _matrices(self.network), self.network.name_rules()
        for info in self.infos:
            slot = None if self.network.scales.kind(info.name) else rules.resolve(info.name, self.slots)
            self._places[info.name] = slot
            found = known.get(slot.name, ()) if slot is not None else ()
            if len(found) == 1 and found[0].expert is None:
                # Under the name that the file has, which other programs know.
                own = info.name.removesuffix(".weight")
                found = (found[0]._replace(layer=_named(found[0].layer, own)),)
            if found:
                self.matrices[info.name] = found
        filled = {name for slot in self._places.values() if slot is not None for name in (slot.name, *slot.fills)}
        missing = sorted(name for name, slot in self.slots.items() if not slot.optional and name not in filled)
        if missing:
            more = f" and {len(missing) - 6} more" if len(missing) > 6 else ""
            raise ModelFileError(
                f"The checkpoint lacks {len(missing)} tensors of {self.config.model.info.architecture}: {', '.join(missing[:6])}{more}.",
                fix="check that config.json and the weight files belong together",
            )


def _refuse(config: EngineConfig) -> None:
    model = config.model.checkpoint.model
    if config.model.checkpoint.directory.is_file():
        raise ConfigError(f"{model} is a GGUF file, which is made of a checkpoint and not the other way round.",
                          fix="the model's safetensors checkpoint")  # fmt: skip
    choice = config.choices.get("quantization")
    if choice is not None and config.model.quantization is not None:
        raise ConfigError(f"{model} is quantized already ({choice.name}).", fix="the model's unquantized checkpoint")
    if choice is not None:
        raise ConfigError(f"--quantization {choice.name} quantizes while loading; engine quantize takes plain weights.",
                          fix="leave --quantization out")  # fmt: skip


def _network(config: EngineConfig) -> NativeModel:
    """The model's layers, which know their tensors; nothing is loaded."""
    device, model = open_device(config, 0), config.model
    context = ModelContext(
        info=model.info, config=model.config, dtype=torch_dtype(model.dtype, "--dtype"), device=torch.device("cpu"),
        parallel=OneRank(0, 1), attention=attention_of(device, config), kernel=KeptWeight, quantizer=None,
        checkpoint_path=model.checkpoint.path, max_model_len=model.max_model_len,
    )  # fmt: skip
    built = architecture_of(config).build(context)
    device.close()
    if not isinstance(built, NativeModel):
        raise ConfigError(
            f"{model.info.architecture} has no native implementation here, which alone knows the layers that can be quantized.",
            fix="a model of one of the architectures in: engine plugins list --kind model",
        )
    return built


def _matrices(network: NativeModel) -> dict[str, tuple[Matrix, ...]]:
    """Slot → the matrices in its tensor."""
    found: dict[str, tuple[Matrix, ...]] = {}
    for layer in checkpoint_layers(network):
        if isinstance(layer, Linear) and not (layer is network.head and network.head.tied):
            for part in layer.parts:
                found[f"{part.name}.weight"] = (Matrix(_part_shape(layer, part), layer.transposed),)
        elif isinstance(layer, VocabParallelEmbedding):
            found[f"{layer.name}.weight"] = (Matrix(LinearShape(layer.name, layer.size, layer.vocab, role="embedding")),)
        elif isinstance(layer, FusedExperts):
            found |= {name: tuple(_experts(layers)) for name, layers in layer.groups}
    return found


def _experts(layers: list[Linear]) -> Iterator[Matrix]:
    for expert, layer in enumerate(layers):
        row = 0
        for part in layer.parts:
            yield Matrix(_part_shape(layer, part), expert=expert, row=row)
            row += part.outputs


def _part_shape(layer: Linear, part: Part) -> LinearShape:
    return LinearShape(part.name, layer.shape.inputs, part.outputs, experts=layer.shape.experts, role=layer.shape.role)


def _named(layer: LinearShape, name: str) -> LinearShape:
    return LinearShape(name, layer.inputs, layer.outputs, experts=layer.experts, role=layer.role)
