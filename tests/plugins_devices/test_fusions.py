"""Which operations a recorded step is left with: what computes together does, also where the last layer has fewer rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config

from engine.layers.packed_quantized import GroupedInteger
from engine_devices._native import Absent, load
from tests.core.worker.harness import Driver, greedy, make_config, make_worker
from tests.plugins.models.checkpoints import GROUPED, POSITIONS, save
from tests.plugins_devices.test_ragged import play

#: A size of the feed-forward that panels divide.
CONFIG = Qwen3Config(**(GROUPED | POSITIONS | {"intermediate_size": 64, "head_dim": 16}))
pytestmark = pytest.mark.skipif(isinstance(load(), Absent), reason="the native kernels are not available here")


def operations(place: Path, quantization: str | None) -> tuple[Counter[str], int]:
    """Of a step with prompts, by kernel; and the model's layers."""
    native = load()
    assert not isinstance(native, Absent)
    modules = {"model": "engine_plugins.models.qwen3"} | ({"quantization": f"engine_quant.{quantization}"} if quantization else {})
    worker = make_worker(make_config(place, modules=modules, max_model_len=128, dtype="bfloat16"))
    driver = Driver(worker.run)
    driver.add(0, list(range(2, 50)), greedy())
    with torch.inference_mode():
        driver.step([0])
    names = {native.address(name): name for name in native._addresses}
    replay = worker._runner._ragged[True]
    return Counter(names[operation.kernel] for operation in replay._operations), len(worker._model.blocks)


def test_sums_gates_heads_and_the_best_have_no_operations_of_their_own(tmp_path: Path) -> None:
    save(CONFIG, tmp_path)
    found, layers = operations(tmp_path, None)
    assert found["engine_add"] == found["engine_gate"] == found["engine_best"] == 0
    # two of each layer, the last one, and that of the wanted queries, which alone turn by themselves
    assert found["engine_rms_norm"] == 2 * layers + 2
    assert found["engine_rotate"] == 1
    # of the normed rows, the residual stream, cos and sin
    assert found["engine_select"] == 4


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """tpu_int8, but with activations rounded to 8 bits, as weights of checkpoints have them."""
    of = GroupedInteger.of
    monkeypatch.setattr(GroupedInteger, "of", lambda *args, **given: of(*args, **given | {"exact": False}))


@pytest.mark.usefixtures("rounding")
def test_norms_round_for_the_products_after_them(tmp_path: Path) -> None:
    save(CONFIG, tmp_path)
    found, layers = operations(tmp_path, "tpu_int8")
    # all but that of the last attention, which two products of different rows read
    assert found["engine_norm_quantize"] == 2 * layers - 1
    assert found["engine_rms_norm"] == 3
    # before the products back to the residual stream; the last layer's keys and values, and its queries
    assert found["engine_quantize"] == 2 * layers + 2


@pytest.mark.usefixtures("rounding")
def test_they_give_the_bits_of_plain_steps(tmp_path: Path) -> None:
    save(CONFIG, tmp_path)
    modules = {"model": "engine_plugins.models.qwen3", "quantization": "engine_quant.tpu_int8"}
    answers = []
    for plain in (True, False):
        worker = make_worker(
            make_config(tmp_path, modules=modules, pages=1024, max_model_len=128, dtype="bfloat16", enforce_eager=plain)
        )  # fmt: skip
        answers.append(play(worker))
    assert worker._runner._ragged[True]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*answers, strict=True))
