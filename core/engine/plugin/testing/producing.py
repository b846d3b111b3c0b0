"""Suite of methods of ``engine quantize``: what they write is what they say it means, and is small; the source stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from engine.plugin.contracts.packed import LinearShape, PackedWeight
from engine.plugin.contracts.producing import ProducedWeight, Producer, SourceModel, WeightOutput
from engine.plugin.facts import AttentionSpec, ModelInfo
from engine.plugin.testing.base import PluginContract
from engine.plugin.testing.loading import checkpoint_at

if TYPE_CHECKING:
    from torch import Tensor

_LAYER = "model.layers.0.mlp.down_proj"


class ProducerContract(PluginContract):
    """``tolerance``: error of a weight, in root mean square of the weight itself. ``outputs``, ``inputs``: of the suite's layer."""

    kind_name = "producer"
    tolerance: ClassVar[float] = 0.15
    outputs: ClassVar[int] = 48
    inputs: ClassVar[int] = 256

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """The source checkpoint's directory."""
        return tmp_path

    @pytest.fixture
    def model(self, place: Path, layer: LinearShape) -> SourceModel:
        """The source."""
        spec = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
        info = ModelInfo("LlamaForCausalLM", 64, 64, layers=(spec,), max_model_len=256)
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1,
                  "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "vocab_size": 64,
                  "max_position_embeddings": 256, "dtype": "bfloat16"}  # fmt: skip
        return SourceModel(checkpoint_at(place), config, info, layers=(layer,))

    @pytest.fixture
    def hook_args(self, model: SourceModel) -> dict[str, Any]:
        return {"model": model, "options": self.options}

    @pytest.fixture
    def layer(self) -> LinearShape:
        """The layer that is quantized."""
        return LinearShape(_LAYER, self.inputs, self.outputs)

    @pytest.fixture
    def weight(self) -> Tensor:
        """A normally distributed bfloat16 weight [outputs, inputs]."""
        import torch

        return torch.randn(self.outputs, self.inputs, generator=torch.Generator().manual_seed(3)).bfloat16()

    @pytest.fixture
    def produced(self, plugin: Producer, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """The layer, quantized."""
        return plugin.produce(layer, weight)

    def test_it_takes_linear_layers_and_no_routers(self, plugin: Producer, layer: LinearShape) -> None:
        assert plugin.takes(layer)
        assert not plugin.takes(LinearShape("model.layers.0.mlp.gate", self.inputs, self.outputs, role="router"))

    def test_the_weight_means_nearly_the_source(self, produced: ProducedWeight, weight: Tensor) -> None:
        import torch

        assert isinstance(produced.meaning, PackedWeight)
        meant = produced.meaning.dequantize(torch.float32)
        assert meant.shape == weight.shape
        error = ((meant - weight.float()).norm() / weight.float().norm()).item()
        assert error <= self.tolerance, f"error {error:.3g}"

    def test_its_tensors_are_as_small_as_it_says(self, plugin: Producer, produced: ProducedWeight, weight: Tensor) -> None:
        written = sum(tensor.nbytes for tensor in produced.tensors.values())
        assert 0 < plugin.bits() < 16
        assert produced.tensors, "nothing was written"
        assert written <= 1.1 * weight.numel() * plugin.bits() / 8 + 4096, f"{written} bytes are more than {plugin.bits()} bits an element"

    def test_the_source_is_not_written_to(self, plugin: Producer, layer: LinearShape, weight: Tensor) -> None:
        import torch

        for source in (weight, weight.float()):
            before = source.clone()
            produced = plugin.produce(layer, source)
            assert torch.equal(before, source)
            assert all(t.data_ptr() != source.data_ptr() for t in produced.tensors.values()), "a tensor is the source's memory"

    def test_it_says_the_same_twice(self, create: Any, layer: LinearShape, weight: Tensor) -> None:
        import torch

        first, second = (create().produce(layer, weight).tensors for _ in range(2))
        assert first.keys() == second.keys()
        assert all(torch.equal(_bytes(first[name]), _bytes(second[name])) for name in first)

    def test_the_checkpoint_says_how_to_read_it(self, plugin: Producer, layer: LinearShape, tmp_path: Path) -> None:
        import json

        config = plugin.quantization_config((layer,), ("lm_head",))
        if config is None:
            output = plugin.open_output(tmp_path)
            assert isinstance(output, WeightOutput), "neither a quantization_config nor an output that says it itself"
            output.close()
            return
        json.dumps(config)
        assert isinstance(config.get("quant_method"), str), "quantization_config.quant_method names the method that reads it"
        assert "lm_head" in json.dumps(config), "what was kept is not named"

    def test_the_report_can_show_it(self, plugin: Producer) -> None:
        import json

        json.dumps(plugin.describe())
        assert all(isinstance(line, str) and line.endswith(".") for line in plugin.warnings())


def _bytes(tensor: Tensor) -> Tensor:
    import torch

    return tensor.contiguous().view(torch.uint8)
