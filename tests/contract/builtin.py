"""Built-in plugins whose suites need more than their kind's defaults: other files, arguments, examples."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from engine.plugin.facts import AttentionSpec, ModelInfo
from engine.plugin.testing import (
    ConfigFormatContract,
    LoaderContract,
    LogitsProcessorContract,
    ModelContract,
    PolicyContract,
    TokenizerContract,
)
from engine.plugin.testing.checkpoint import tiny_tensors
from engine.plugin.testing.loading import checkpoint_at
from tests.contract.quantizers import QUANTIZERS


class Dummy(LoaderContract):
    supports = frozenset()


class Torch(LoaderContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        import torch

        (tmp_path / "checkpoint").mkdir()
        torch.save(tiny_tensors(), tmp_path / "checkpoint" / "pytorch_model.bin")
        return tmp_path / "checkpoint"


class OriginalMistral(LoaderContract):
    """Renames and rotates, so the tensors are not those of the file; its own tests compare them."""

    supports = frozenset()

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        from tests.plugins.loaders.original_mistral import write

        write(tmp_path / "checkpoint")
        return tmp_path / "checkpoint"

    @pytest.fixture
    def hook_args(self, place: Path) -> dict:
        heads = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=16, scale=0.25)
        info = ModelInfo("MistralForCausalLM", vocab_size=160, hidden_size=64, layers=(heads, heads), max_model_len=256)
        return {"checkpoint": checkpoint_at(place), "info": info, "options": {}}


class Gguf(LoaderContract):
    """Changes the tensors' layout on the way; its own tests compare them."""

    supports = frozenset()

    @pytest.fixture
    def place(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
        pytest.importorskip("gguf")
        from tests.gguf.producer import write_gguf

        write_gguf(tmp_path / "model.gguf", tiny_checkpoint, "llama")
        return tmp_path / "model.gguf"


class Tensorizer(LoaderContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        tensorizer = pytest.importorskip("tensorizer")
        (tmp_path / "checkpoint").mkdir()
        serializer = tensorizer.TensorSerializer(str(tmp_path / "checkpoint" / "model.tensors"))
        serializer.write_state_dict(dict(tiny_tensors()))
        serializer.close()
        return tmp_path / "checkpoint"

    @pytest.fixture
    def hook_args(self, place: Path) -> dict:
        return {"checkpoint": checkpoint_at(place), "info": None, "options": {"tensorizer_uri": str(place / "model.tensors")}}


class ShardedState(LoaderContract):
    """Reads the engine's own names of finished layers."""

    @pytest.fixture
    def place(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
        from engine.cli import main

        out = tmp_path / "checkpoint"
        assert main(["save-sharded", str(tiny_checkpoint), "--out", str(out), "--dtype", "float32", "--device", "cpu"]) == 0
        return out

    @pytest.fixture
    def reference(self, place: Path) -> dict:
        from safetensors.torch import load_file

        return {name: tensor for file in place.glob("*.safetensors") for name, tensor in load_file(file).items()}


class MistralConfig(ConfigFormatContract):
    # The original configuration says neither an architecture nor a class; these are what it means.
    expected = {"hidden_size": 64, "num_hidden_layers": 2, "architectures": ["MistralForCausalLM"]}

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        from tests.plugins.loaders.original_mistral import write

        write(tmp_path / "checkpoint")
        return tmp_path / "checkpoint"


class MistralTokenizer(TokenizerContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        common = pytest.importorskip("mistral_common")
        shutil.copyfile(Path(common.__file__).parent / "data" / "tekken_240911.json", tmp_path / "tekken.json")
        return tmp_path


class CustomTokenizer(TokenizerContract):
    """It stands for the registered tokenizer that ``--tokenizer`` names."""

    @pytest.fixture
    def hook_args(self, place: Path) -> dict:
        return {"checkpoint": checkpoint_at(place), "name": "auto"}


class Fair(PolicyContract):
    supports = frozenset({"fair"})


class NoRepeat(LogitsProcessorContract):
    arguments = {"size": 2}


class TopNSigma(LogitsProcessorContract):
    arguments = {"n": 1.5}


def architecture(case: str) -> type[ModelContract]:
    """A suite on a tiny checkpoint that transformers writes, with the vocabulary of the bundled tokenizer."""

    class Architecture(ModelContract):
        @pytest.fixture
        def place(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
            from tests.plugins.models.checkpoints import save
            from tests.plugins.models.test_equal_transformers import CASES

            config = copy.deepcopy(CASES[case][1])
            config.vocab_size, config.eos_token_id, config.bos_token_id = 2048, 2, 1
            save(config, tmp_path)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(tiny_checkpoint / name, tmp_path / name)
            return tmp_path

    return Architecture


class Gemma3InATower(architecture("gemma3")):
    """The text model's configuration inside that of a model with a vision tower."""

    broken = {}

    @pytest.fixture
    def config(self, place: Path) -> dict:
        import json

        return json.loads((place / "config.json").read_text())["text_config"]

    @pytest.fixture
    def place(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
        import transformers

        from tests.plugins.models.checkpoints import GROUPED, POSITIONS, randomize

        text = GROUPED | POSITIONS | {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 9, "vocab_size": 2048}
        text["pad_token_id"] = 0
        vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
        vision["patch_size"] = 14
        config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, eos_token_id=2, bos_token_id=1)
        model = transformers.Gemma3ForConditionalGeneration._from_config(config)
        randomize(model)
        model.tie_weights()
        model.save_pretrained(tmp_path)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tiny_checkpoint / name, tmp_path / name)
        return tmp_path

    def test_it_describes_the_model(self, plugin, place: Path) -> None:
        import json

        config = json.loads((place / "config.json").read_text())
        assert plugin.describe(config).vocab_size == 2048

    def test_wrong_values_are_refused_by_name(self, plugin) -> None:
        from engine.errors import ModelFileError

        with pytest.raises(ModelFileError, match="text_config"):
            plugin.describe({"text_config": 3})


class Opt(architecture("opt")):
    broken = {"num_hidden_layers": -1, "ffn_dim": "wide"}


class Gpt2(architecture("gpt2")):
    broken = {"n_layer": -1, "n_embd": "wide"}


ARCHITECTURES = {
    "GPTNeoXForCausalLM": "gpt_neox", "Gemma2ForCausalLM": "gemma2", "Gemma3ForCausalLM": "gemma3", "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral", "Phi3ForCausalLM": "phi3", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
}  # fmt: skip
SPECIAL = {
    ("loader", "dummy"): Dummy,
    ("loader", "pt"): Torch,
    ("loader", "npcache"): Torch,
    ("loader", "mistral"): OriginalMistral,
    ("loader", "gguf"): Gguf,
    ("loader", "tensorizer"): Tensorizer,
    ("loader", "sharded_state"): ShardedState,
    ("config_format", "mistral"): MistralConfig,
    ("tokenizer", "mistral"): MistralTokenizer,
    ("tokenizer", "custom"): CustomTokenizer,
    ("model", "Gemma3ForConditionalGeneration"): Gemma3InATower,
    ("logits_processor", "no_repeat_ngram"): NoRepeat,
    ("logits_processor", "top_n_sigma"): TopNSigma,
    ("model", "GPT2LMHeadModel"): Gpt2,
    ("model", "OPTForCausalLM"): Opt,
    ("policy", "fcfs"): Fair,
} | QUANTIZERS | {("model", name): architecture(case) for name, case in ARCHITECTURES.items()}
