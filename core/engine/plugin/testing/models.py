"""Suites of model architectures and their providers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

from engine.errors import ModelFileError
from engine.plugin.contracts.serving import ModelArchitecture, ModelImplementation
from engine.plugin.facts import ModelInfo
from engine.plugin.testing.base import PluginContract
from engine.plugin.testing.checkpoint import TINY

_PROMPTS = [[3, 77, 5, 20, 9, 14, 81], [42], list(range(20, 61))]


class ModelContract(PluginContract):
    """Override ``place`` with a tiny checkpoint of your architecture; ``broken``: config keys with values that must be refused by name."""

    kind_name = "model"
    broken: ClassVar[dict[str, Any]] = {"num_hidden_layers": -1, "hidden_size": "wide"}

    @pytest.fixture
    def place(self, tiny_checkpoint: Path, tmp_path: Path) -> Path:
        """A checkpoint of the architecture; this one is the tiny Llama's under the plugin's name."""
        place = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {"architectures": [self.name]}))
        return place

    @pytest.fixture
    def config(self, place: Path) -> dict[str, Any]:
        """Its configuration."""
        read: dict[str, Any] = json.loads((place / "config.json").read_text())
        return read

    def test_it_describes_the_model(self, plugin: ModelArchitecture, config: dict[str, Any]) -> None:
        info = plugin.describe(config)
        assert isinstance(info, ModelInfo)
        assert info.vocab_size == config["vocab_size"] and info.max_model_len > 0 and info.layers
        assert plugin.describe(config) == info

    def test_wrong_values_are_refused_by_name(self, plugin: ModelArchitecture, config: dict[str, Any]) -> None:
        for key, value in self.broken.items():
            with pytest.raises(ModelFileError, match=key):
                plugin.describe(config | {key: value})

    def test_chunks_and_batches_change_nothing(self, place: Path) -> None:
        """Greedy tokens in float32: each prompt alone, all at once, and in steps of few tokens."""
        if self.module is not None:
            pytest.skip("the engine's own process finds installed plugins only")
        from engine.llm import LLM
        from engine.plugin.request import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
        answers = []
        for flags in ({}, {"max_num_batched_tokens": 16, "max_num_seqs": 4, "enable_chunked_prefill": True}):
            with LLM(str(place), device="cpu", dtype="float32", max_model_len=128, **flags) as llm:
                alone = [_ids(llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)) for ids in _PROMPTS]
                together = _ids(llm.generate([{"prompt_token_ids": ids} for ids in _PROMPTS], params, use_tqdm=False))
            answers += [[ids for (ids,) in alone], together]
        assert all(answer == answers[0] for answer in answers), answers


class ModelImplementationContract(PluginContract):
    """A provider answers a registered name or an architecture of its own, and says what it cannot provide."""

    kind_name = "model_impl"

    @pytest.fixture
    def native(self) -> dict[str, str]:
        """Registered architectures and their distributions."""
        return {"LlamaForCausalLM": "engine 0"}

    def test_it_provides_a_known_architecture(self, plugin: ModelImplementation, native: dict[str, str]) -> None:
        answer = plugin.architecture(dict(TINY), native)
        assert answer in native or isinstance(answer, ModelArchitecture)

    def test_an_unknown_architecture_is_named(self, plugin: ModelImplementation) -> None:
        config = dict(TINY) | {"architectures": ["NoSuchThing"], "model_type": "no_such_type"}
        with pytest.raises(ModelFileError, match=r"NoSuchThing|no_such_type"):
            answer = plugin.architecture(config, {})
            if isinstance(answer, ModelArchitecture):
                answer.describe(config)


def _ids(outputs: Any) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in outputs]
