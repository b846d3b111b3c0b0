"""Tasks: what a model can do decides, and a task it cannot do is refused."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError, ModelFileError
from engine.plugin import ModelInfo, Use
from engine_plugins.tasks import auto, generate


def info(*tasks: str) -> ModelInfo:
    return ModelInfo("LlamaForCausalLM", 10, 8, (), 32, tasks=tasks)


@pytest.mark.parametrize(("tasks", "name"), [(("embed", "generate"), "generate"), (("score", "classify"), "classify")])
def test_auto(tasks, name):
    answer = auto.engine_create_task(info(*tasks))
    assert isinstance(answer, Use) and answer.name == name


def test_auto_without_any():
    with pytest.raises(ModelFileError, match="LlamaForCausalLM offers no task"):
        auto.engine_create_task(info())


def test_generate():
    task = generate.engine_create_task(info("generate"))
    assert task.endpoints() == {"completions", "chat"} and not task.pooling()
    with pytest.raises(ConfigError, match="does not generate text; it can embed") as caught:
        generate.engine_create_task(info("embed"))
    assert caught.value.fix == "--task embed"
