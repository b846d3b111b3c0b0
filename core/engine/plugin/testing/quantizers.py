"""Suite of quantization methods: what a format keeps, what it becomes, and that shards are cuts of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from engine.plugin.contracts.packed import LinearShape, PackedWeight, Quantizer, WeightFormat
from engine.plugin.facts import AttentionSpec, ModelInfo
from engine.plugin.testing.base import PluginContract, requires
from engine.plugin.testing.loading import checkpoint_at

if TYPE_CHECKING:
    from torch import Tensor

_NAME = "model.layers.0.mlp.down_proj"


class QuantizerContract(PluginContract):
    """Methods that quantize plain weights at load pass as they are. Methods with a format of their own override ``config``
    (the checkpoint's quantization_config), ``stored`` (a layer's tensors by suffix) and ``dense`` (what they stand for).

    ``tolerance``: largest error of the packed weight, relative to the largest element of ``dense``. ``outputs``, ``inputs``: a layer that
    the format can keep, each of whose halves it can keep too. ``experts``: for methods that quantize experts alone.
    Capabilities: ``shards`` (both halves of the outputs, and of the inputs, are what the tensors declare them to be; formats whose groups
    run across the ends of rows do not claim it).
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
    def place(self, tmp_path: Path) -> Path:
        """The checkpoint's directory, where the method reads a file of it."""
        return tmp_path

    @pytest.fixture
    def hook_args(self, place: Path) -> dict[str, Any]:
        spec = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
        info = ModelInfo("LlamaForCausalLM", 64, 64, layers=(spec, spec), max_model_len=256, num_experts=self.experts)
        return {"checkpoint": checkpoint_at(place), "config": self.config, "info": info}

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

        return format.pack(layer, {suffix: format.unfold(layer, suffix, tensor) for suffix, tensor in stored.items()}, torch.float32)

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
        import torch

        whole = packed.dequantize(torch.float32)
        halves = [_shard(format, layer, stored, axis, rank).dequantize(torch.float32) for rank in range(2)]
        joined = torch.cat(halves, 0 if axis == "output" else 1)
        error = ((joined - whole).abs().max() / whole.abs().max()).item()
        # Each half was rounded by scales of its own, where the method rounds while loading.
        assert error <= max(2 * self.tolerance, 1e-6), f"the joined halves differ from the whole by {error:.3g}"

    def test_a_plan_can_show_it(self, plugin: Quantizer) -> None:
        import json

        assert isinstance(plugin.describe(), dict)
        json.dumps(plugin.describe())
        assert set(plugin.kv_scale_suffixes().values()) <= {"k_scale", "v_scale", "q_scale"}


def _shard(format: WeightFormat, layer: LinearShape, stored: dict[str, Tensor], axis: str, rank: int) -> PackedWeight:
    """One of two ranks' packed weight, cut by the engine's own collector."""
    from types import SimpleNamespace

    import torch

    from engine.layers.collecting import Collected
    from engine.layers.shards import Part, Piece

    def piece(size: int, which: str) -> Piece:
        return Piece(rank * size // 2, size // 2) if axis == which else Piece(0, size)

    context: Any = SimpleNamespace(dtype=torch.float32, device=torch.device("cpu"))
    part = Part(layer.name, layer.outputs, (piece(layer.outputs, "output"),))
    collected = Collected(context, layer, (part,), piece(layer.inputs, "input"), format, transposed=False)
    for slot in collected.slots(0):
        suffix = slot.name.removeprefix(f"{layer.name}.")
        if suffix in stored:
            slot.take(stored[suffix])
    return collected.pack()
