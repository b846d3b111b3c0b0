"""What tests of layers share: a context without a model, the loading of one layer, a toy quantization."""

from __future__ import annotations

import dataclasses

import torch

from engine.attention import built_in
from engine.layers.loading import NameRules, load_tensors
from engine.layers.packed import reference_kernel
from engine.plugin import CheckpointTensor, ModelContext, ModelInfo, PackedWeight, Parallel, Quantizer, WeightFormat

DTYPE = torch.float32


class Place(Parallel):
    """A rank whose collectives are not called."""

    def __init__(self, rank=0, size=1):
        self.rank, self.size = rank, size

    def all_reduce(self, x):
        return x

    def all_gather(self, x, dim=-1):
        raise AssertionError("not expected here")


def context(rank=0, size=1, **changes):
    info = ModelInfo("Test", 10, 8, (), 64)
    made = ModelContext(
        info=info, config={}, dtype=DTYPE, device=torch.device("cpu"), parallel=Place(rank, size),
        attention=built_in("cpu"), kernel=reference_kernel,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def fill(layer, tensors):
    missing = load_tensors(layer, tensors.items(), NameRules())
    layer.finish_once()
    return missing


def weight_of(layer):
    """The dense weight that a layer multiplies by."""
    return layer(torch.eye(layer.inputs.size)).t()


class Halves(WeightFormat):
    """A toy format: codes int8 [inputs, outputs / 2] · scales [inputs / 4, outputs] + one number per layer."""

    def tensors(self):
        return (
            CheckpointTensor("codes", output_axis=1, input_axis=0, output_group=2),
            CheckpointTensor("scales", output_axis=1, input_axis=0, input_group=4),
            CheckpointTensor("zero"),
            CheckpointTensor("order", optional=True, input_axis=0),
        )

    def pack(self, layer, tensors, dtype):
        return Pairs(layer, dict(tensors))


class Pairs(PackedWeight):
    layout = "pairs"

    def __init__(self, layer, tensors):
        self.layer, self.tensors = layer, tensors
        self.outputs, self.inputs = layer.outputs, layer.inputs

    def take(self, which, dtype):
        codes = self.tensors["codes"].repeat_interleave(2, 1).to(dtype)
        return (codes * self.tensors["scales"].repeat_interleave(4, 0)).t()[which]

    def nbytes(self):
        return 0


class Toy(Quantizer):
    def linear(self, layer):
        return None if layer.name == "plain" else Halves()

    def kv_scale_suffixes(self):
        return {".k_scale": "k_scale"}


def quantized(sizes, inputs):
    return {
        name: {
            "codes": torch.randint(-8, 8, (inputs, size // 2), dtype=torch.int8),
            "scales": torch.rand(inputs // 4, size),
            "zero": torch.tensor(float(index)),
        }
        for index, (name, size) in enumerate(sizes.items())
    }


def dense(entry):
    return (entry["codes"].repeat_interleave(2, 1).float() * entry["scales"].repeat_interleave(4, 0)).t()
