"""Suite of quantization methods: what a format keeps, what it becomes, and that shards are cuts of the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from engine.plugin.contracts.packed import CheckpointTensor, LinearShape, PackedWeight, Quantizer, WeightFormat
from engine.plugin.facts import AttentionSpec, Checkpoint, ModelInfo
from engine.plugin.testing.base import PluginContract, requires

if TYPE_CHECKING:
    from torch import Tensor

_NAME = "model.layers.0.mlp.down_proj"


class QuantizerContract(PluginContract):
    """Methods that quantize plain weights at load pass as they are. Methods with a format of their own override ``config``
    (the checkpoint's quantization_config), ``stored`` (a layer's tensors by suffix) and ``dense`` (what they stand for).

    ``tolerance``: largest error of the packed weight, relative to the largest element of ``dense``.
    Capabilities: ``shards`` (tensor-parallel cuts are made by the axes that its tensors declare).
    """

    kind_name = "quantization"
    capabilities = frozenset({"shards"})
    supports: ClassVar[frozenset[str]] = frozenset({"shards"})
    config: ClassVar[dict[str, Any] | None] = None
    outputs: ClassVar[int] = 64
    inputs: ClassVar[int] = 128
    tolerance: ClassVar[float] = 0.02
    experts: ClassVar[int] = 0

    @pytest.fixture
    def hook_args(self, tmp_path: Any) -> dict[str, Any]:
        spec = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
        info = ModelInfo("LlamaForCausalLM", 64, 64, layers=(spec, spec), max_model_len=256, num_experts=self.experts)
        place = str(tmp_path)
        return {"checkpoint": Checkpoint(place, place, place, place), "config": self.config, "info": info}

    @pytest.fixture
    def layer(self) -> LinearShape:
        """The layer that is quantized."""
        return LinearShape(_NAME, self.inputs, self.outputs, experts=self.experts)

    @pytest.fixture
    def dense(self) -> Tensor:
        """The weight [outputs, inputs], float32."""
        import torch

        return torch.randn(self.outputs, self.inputs, generator=torch.Generator().manual_seed(5))

    @pytest.fixture
    def stored(self, dense: Tensor) -> dict[str, Tensor]:
        """The layer's checkpoint tensors by suffix."""
        return {"weight": dense}

    @pytest.fixture
    def format(self, plugin: Quantizer, layer: LinearShape) -> WeightFormat:
        """How the plugin keeps the layer."""
        found = plugin.linear(layer)
        assert isinstance(found, WeightFormat), f"linear() answers {found} for {layer.name}; the suite's layer must be quantized"
        return found

    @pytest.fixture
    def packed(self, format: WeightFormat, layer: LinearShape, stored: dict[str, Tensor]) -> PackedWeight:
        """The layer, packed."""
        import torch

        return format.pack(layer, dict(stored), torch.float32)

    def test_it_declares_what_it_takes(self, format: WeightFormat, stored: dict[str, Tensor]) -> None:
        declared = {spec.suffix: spec for spec in format.tensors()}
        missing = [suffix for suffix in stored if suffix not in declared]
        assert not missing, f"the checkpoint's {missing} are not among the declared {sorted(declared)}"
        lacking = [suffix for suffix, spec in declared.items() if suffix not in stored and not spec.optional]
        assert not lacking, f"{lacking} are declared as always there"

    def test_the_packed_weight_is_the_checkpoints(self, packed: PackedWeight, dense: Tensor) -> None:
        import torch

        assert (packed.outputs, packed.inputs) == tuple(dense.shape)
        weight = packed.dequantize(torch.float32)
        assert weight.shape == dense.shape
        error = ((weight - dense).abs().max() / dense.abs().max()).item()
        assert error <= self.tolerance, f"error {error:.3g}"

    def test_it_is_smaller_than_the_dense_weight(self, packed: PackedWeight) -> None:
        assert 0 < packed.nbytes() < 2 * self.outputs * self.inputs, f"{packed.nbytes()} bytes: 16 bits an element would be less"

    def test_the_reference_kernel_multiplies_by_it(self, packed: PackedWeight) -> None:
        import torch

        from engine.layers.packed import reference_kernel

        x = torch.randn(3, self.inputs, generator=torch.Generator().manual_seed(6))
        y = reference_kernel(packed).apply(x, None)
        expected = x @ packed.dequantize(torch.float32).T
        assert (y - expected).abs().max() <= 1e-4 * expected.abs().max() or hasattr(packed, "rounding")

    @requires("shards")
    @pytest.mark.parametrize("axis", ["output", "input"])
    def test_shards_are_cuts_of_the_whole(
        self, format: WeightFormat, layer: LinearShape, stored: dict[str, Tensor], packed: PackedWeight, axis: str
    ) -> None:
        import msgspec
        import torch

        whole, halves = packed.dequantize(torch.float32), []
        size = getattr(layer, f"{axis}s")
        for rank in range(2):
            tensors = {spec.suffix: _half(stored[spec.suffix], spec, axis, rank) for spec in format.tensors() if spec.suffix in stored}
            shape = msgspec.structs.replace(layer, **{f"{axis}s": size // 2})
            halves.append(format.pack(shape, tensors, torch.float32).dequantize(torch.float32))
        joined = torch.cat(halves, 0 if axis == "output" else 1)
        assert (joined - whole).abs().max() <= self.tolerance * whole.abs().max()

    def test_a_plan_can_show_it(self, plugin: Quantizer) -> None:
        import json

        assert isinstance(plugin.describe(), dict)
        json.dumps(plugin.describe())
        assert set(plugin.kv_scale_suffixes().values()) <= {"k_scale", "v_scale", "q_scale"}


def _half(tensor: Tensor, spec: CheckpointTensor, axis: str, rank: int) -> Tensor:
    along = getattr(spec, f"{axis}_axis")
    if along is None or tensor.shape[along] == 1:
        return tensor
    size = tensor.shape[along] // 2
    return tensor.narrow(along, rank * size, size)
