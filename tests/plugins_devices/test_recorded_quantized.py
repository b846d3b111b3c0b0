"""Steps of quantized models are recorded too, and give the bits of plain ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.worker.worker import LocalWorker
from engine_devices._native import Absent, load
from tests.core.worker.harness import make_config, make_worker
from tests.plugins.models.checkpoints import save
from tests.plugins.models.test_equal_transformers import CASES
from tests.plugins_devices.test_ragged import play
from tests.plugins_devices.test_recorded_steps import logits_by_size

pytestmark = pytest.mark.skipif(isinstance(load(), Absent), reason="the native kernels are not available here")


@pytest.mark.parametrize("method", ["tpu_int8", "bitsandbytes", "fp8", "ptpc_fp8"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_the_bits_of_plain_steps(name: str, method: str, tmp_path: Path) -> None:
    """Integers, codebooks, and 8-bit floats whose activations are rounded: no operation of theirs ends a recording."""
    module, config = CASES[name]
    save(config, tmp_path)

    def start(**changes) -> LocalWorker:
        modules = {"model": f"engine_plugins.models.{module}", "quantization": f"engine_quant.{method}"}
        return make_worker(make_config(tmp_path, modules=modules, pages=1024, max_model_len=128, dtype="bfloat16", **changes))

    plain = play(start(enforce_eager=True))
    worker = start()
    recorded = play(worker)
    assert worker._kernels.without() == {}
    assert worker._runner._ragged
    assert worker._runner.ragged_plain == ""
    for ours, theirs in zip(recorded, plain, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", ["tpu_int8", "bitsandbytes"])
def test_few_and_many_rows_are_recorded_apart(method: str, tmp_path: Path) -> None:
    """From the ninth row on activations are rounded by an operation of their own."""
    module, config = CASES["qwen3"]
    save(config, tmp_path)

    def start(**changes) -> LocalWorker:
        modules = {"model": f"engine_plugins.models.{module}", "quantization": f"engine_quant.{method}"}
        return make_worker(make_config(tmp_path, modules=modules, pages=1024, max_model_len=128, dtype="bfloat16", **changes))

    plain, worker = logits_by_size(start(enforce_eager=True), 14), start()
    recorded = logits_by_size(worker, 14)
    assert all(torch.equal(plain[size], recorded[size]) for size in plain)
    assert worker.call("describe", {})["steps"] == "recorded, batches of 1, 2 to 8, 9 and more"
