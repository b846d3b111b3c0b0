"""Weights in host memory: the same tokens as with all weights on the device, and the bytes that were promised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.layers.linear import Linear
from engine.plugin.discovery import FILES_VARIABLE
from engine.worker.offload import OffloadedKernel, Shelf
from engine.worker.worker import LocalWorker
from tests.core.worker.card import LateTransfer
from tests.core.worker.harness import Driver, greedy, make_worker
from tests.quant import floats, packers
from tests.quant.checkpoints import tiny_llama, tiny_qwen3_moe, write_quantized

CARD = str(Path(__file__).with_name("card.py"))
PROMPTS = [[5, 17, 99, 3], [140, 8, 61, 77, 12, 9], [33]]
GIB = 2**30


@pytest.fixture(autouse=True)
def _card_for_this_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin file is told to the processes of an engine by the environment, where later tests would find it."""
    monkeypatch.setenv(FILES_VARIABLE, "")


def configured(model: Path, kib: float, **flags: Any) -> EngineConfig:
    flags = {"max_model_len": 64, "max_num_seqs": 4, "num_gpu_blocks_override": 16, "dtype": "float32"} | flags
    return resolve(
        EngineArgs(
            model=str(model), plugin=[CARD], device="card", skip_tokenizer_init=True, use_tqdm_on_load=False,
            cpu_offload_gb=kib / 2**20, **flags,
        )
    )  # fmt: skip


def tokens_of(worker: LocalWorker) -> dict[int, list[int]]:
    driver = Driver(worker.run, block_size=16)
    for seq, prompt in enumerate(PROMPTS):
        driver.add(seq, prompt, greedy())
    return driver.generate(6)


def linears(worker: LocalWorker) -> list[Linear]:
    model = worker._model
    assert isinstance(model, torch.nn.Module)
    return [module for module in model.modules() if isinstance(module, Linear)]


def plain(folder: Path) -> Path:
    return tiny_llama(folder)


def experts(folder: Path) -> Path:
    return tiny_qwen3_moe(folder)


def quantized(config: dict[str, Any], pack: Callable[..., Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_quantized(folder / "made", tiny_llama(folder / "plain"), lambda _, weight: pack(weight), config)
        return folder / "made"

    return make


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": False}
CASES = {
    "plain": plain,
    "experts": experts,
    "integers of two levels, reordered": quantized(GPTQ, lambda weight: packers.gptq(weight, act_order=True, symmetric=False)),
    "8-bit floats, static activations": quantized({"quant_method": "fp8", "activation_scheme": "static"}, floats.per_layer),
    "codes with two scales": quantized(floats.modelopt_config("NVFP4"), floats.nvfp4),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kib", [160, 1 << 20], ids=["some", "all"])
def test_tokens_are_those_of_weights_on_the_device(tmp_path: Path, case: str, kib: int) -> None:
    model = CASES[case](tmp_path)
    dtype = "float32" if case in ("plain", "experts") else "float16"
    whole = make_worker(configured(model, 0, dtype=dtype))
    wanted = tokens_of(whole)
    worker = make_worker(configured(model, kib, dtype=dtype))
    assert tokens_of(worker) == wanted
    kernels = [layer.kernel for layer in linears(worker)]
    away = [kernel for kernel in kernels if isinstance(kernel, OffloadedKernel)]
    assert worker._offload is not None
    transfer: LateTransfer = worker._device.transfer  # type: ignore[union-attr]
    assert transfer.held == worker._offload.shelf.bytes <= kib * 1024
    assert len(away) == worker._offload.layers > 0
    assert (len(away) == len(kernels)) == (kib == 1 << 20)
    assert len(transfer.targets) <= 2, "two places on the device, whatever the number of layers"
    assert worker.call("describe", {})["steps"].startswith("plain: ")
    whole.close()
    worker.close()


def test_every_step_copies_each_layer_once_and_ahead(tmp_path: Path) -> None:
    worker = make_worker(configured(plain(tmp_path), 1 << 20))
    assert worker._offload is not None
    shelf, transfer = worker._offload.shelf, worker._device.transfer  # type: ignore[union-attr]
    driver = Driver(worker.run, block_size=16)
    driver.add(0, PROMPTS[0], greedy())
    driver.step([0])
    late, copied = shelf.late, transfer.copied
    assert copied == shelf.bytes, "the first step copies every layer when it is needed"
    driver.step([0])
    driver.step([0])
    assert shelf.late == late + 1, "the first layer of the second step could not be foreseen"
    first = 4 * 256 * 128
    assert transfer.copied - copied == 2 * shelf.bytes + first, "every layer once a step, and the next step's first"
    worker.close()


def test_bytes_on_the_device_are_the_rest(tmp_path: Path) -> None:
    model = plain(tmp_path)
    worker = make_worker(configured(model, 300))
    sizes = {True: 0, False: 0}
    for layer in linears(worker):
        sizes[isinstance(layer.kernel, OffloadedKernel)] += 4 * layer.shape.outputs * layer.shape.inputs
    whole = sum(sizes.values())
    assert worker._offload is not None
    assert sizes[True] == worker._offload.shelf.bytes <= 300 * 1024 < sizes[True] + 4 * 128 * 256
    assert sizes[False] == whole - sizes[True]
    worker.close()


def test_a_product_reads_its_own_layer_alone(tmp_path: Path) -> None:
    worker = make_worker(configured(plain(tmp_path), 1 << 20))
    kernels = [layer.kernel for layer in linears(worker) if isinstance(layer.kernel, OffloadedKernel)]
    read = [kernel.work("float32")[0].read_bytes for kernel in kernels]
    assert len(read) > 1 and read == [4 * kernel.work("float32")[0].elements for kernel in kernels]
    worker.close()


def test_a_wrong_guess_is_corrected() -> None:
    transfer = LateTransfer()
    shelf = Shelf(transfer, torch.device("cpu"))
    layers = [torch.full((8 + n,), n, dtype=torch.uint8) for n in range(4)]
    for layer in layers:
        shelf.put(layer)
    for number in (0, 1, 2, 3, 0, 2, 1, 1, 3, 0, 1, 2, 3):
        assert torch.equal(shelf.bring(number), layers[number])
    with pytest.raises(RuntimeError, match="after the first"):
        shelf.put(layers[0])


def test_the_plan_subtracts_what_stays_away(tmp_path: Path) -> None:
    model = plain(tmp_path)
    whole, some = configured(model, 0).plan, configured(model, 512).plan
    assert some["weights"]["offloaded_bytes"] == 512 * 1024
    assert some["kv_cache"]["budget_bytes"] - whole["kv_cache"]["budget_bytes"] == 512 * 1024 - 4 * 4 * 128 * 256
    assert some["expected_rss"] - whole["expected_rss"] == 512 * 1024
    everything = configured(model, 1 << 20).plan["weights"]
    assert everything["offloaded_bytes"] == everything["bytes"] - 4 * (160 * 128 + 5 * 128), "all but embedding and norms"
    assert "stay in host memory" in everything["offload"]


def test_on_a_cpu_all_weights_are_in_host_memory(tmp_path: Path) -> None:
    from engine.report import render

    config = resolve(EngineArgs(model=str(plain(tmp_path)), device="cpu", skip_tokenizer_init=True, cpu_offload_gb=1.0))
    assert config.load.cpu_offload_bytes == 0
    assert "all weights are in host memory on cpu" in render(config.plan)


@pytest.mark.parametrize(
    ("value", "said"), [(-1.0, "at least 0"), (1e9, "more than the host's")], ids=["negative", "more than the host has"]
)
def test_values_that_cannot_be(tmp_path: Path, value: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        configured(plain(tmp_path), value * 2**20)


def test_not_a_number() -> None:
    from engine.args.flags_model import LOADER
    from engine.args.values import BadValue, read

    flag = next(flag for flag in LOADER if flag.name == "--cpu-offload-gb")
    with pytest.raises(BadValue, match="finite"):
        read(flag, "nan")


def test_a_device_that_cannot_fetch_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msgspec

    from engine.args import resolve as resolving

    choose = resolving.choose_device

    def without(*given: Any) -> Any:
        facts, choice = choose(*given)
        return msgspec.structs.replace(facts, fetches_weights=False), choice

    monkeypatch.setattr(resolving, "choose_device", without)
    with pytest.raises(ConfigError, match="--cpu-offload-gb 1: the device card cannot fetch"):
        configured(plain(tmp_path), 2**20)
