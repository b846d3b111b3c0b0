"""The memory plan: its numbers, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.args.guided import LOADED
from engine.args.resolve import resolve
from engine.errors import ConfigError, MemoryShortage
from engine.plan import GIB, gib, measure
from engine.plugin.facts import AttentionSpec, ModelInfo, TensorInfo
from engine.report import examine, render
from tests.core.plan.checkpoints import LLAMA, llama_shapes

PER_TOKEN = 2 * 2 * 2 * 16 * 2  # K and V, layers, KV heads, head size, float16


def parameters() -> int:
    total = 0
    for shape in llama_shapes(LLAMA).values():
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def test_numbers(arguments, host):
    plan = resolve(arguments(max_num_seqs=4), host).plan
    assert plan["weights"] == {"tensors": 21, "stored_bytes": 4 * parameters(), "bytes": 2 * parameters()}
    cache = plan["kv_cache"]
    assert (cache["bytes_per_token"], cache["page_bytes"], cache["block_size"]) == (PER_TOKEN, PER_TOKEN * 16, 16)
    assert cache["blocks"] == 4 * 256 // 16  # no more than all sequences could use
    assert cache["max_concurrency"] == 4
    assert plan["expected_rss"] == 2 * parameters() + GIB // 2 + cache["bytes"] + LOADED
    assert plan["refused"] == []


def test_the_configuration_carries_the_same_numbers(arguments, host):
    config = resolve(arguments(), host)
    assert config.cache.pages == config.plan["kv_cache"]["blocks"]
    assert config.cache.page_bytes == config.plan["kv_cache"]["page_bytes"]


def test_every_plugin_has_a_reason(arguments, host):
    rows = {row["kind"]: row for row in resolve(arguments(scheduling_policy="priority"), host).plan["plugins"]}
    assert rows["policy"]["reason"] == "--scheduling-policy priority"
    assert rows["policy"]["others"] == ["fcfs"]
    assert rows["loader"]["asked"] == "auto"
    assert all(row["reason"] and row["distribution"] for row in rows.values())


def test_a_cache_in_host_memory_stays_at_4_gib(arguments, host, monkeypatch):
    monkeypatch.setenv("FAKE_TOTAL", "64")
    monkeypatch.setenv("FAKE_FREE", "60")
    values = {"max_num_seqs": 100_000, "max_num_batched_tokens": 100_000, "hf_overrides": {"max_position_embeddings": 65536}}
    assert resolve(arguments(**values), host).plan["kv_cache"]["bytes"] == 4 * GIB


def test_a_device_of_its_own_is_filled(arguments, host, monkeypatch):
    monkeypatch.setenv("FAKE_CARD", "1")
    plan = resolve(arguments(), host).plan
    used = plan["kv_cache"]["bytes"] + plan["weights"]["bytes"] + GIB // 2
    assert 0 <= min(0.9 * 8, 6) * GIB - used < plan["kv_cache"]["page_bytes"]


def test_never_more_than_is_free(arguments, host, monkeypatch):
    monkeypatch.setenv("FAKE_FREE", "1.2")
    values = {"max_num_seqs": 4096, "max_num_batched_tokens": 4096, "hf_overrides": {"max_position_embeddings": 65536}}
    plan = resolve(arguments(**values), host).plan
    assert plan["expected_rss"] <= (1.2 - 8 * 0.05) * GIB


def test_weights_that_do_not_fit(arguments, host, monkeypatch):
    monkeypatch.setenv("FAKE_FREE", "0.5")
    with pytest.raises(MemoryShortage, match="The weights need .* 512.00 MiB free of 8.00 GiB") as caught:
        resolve(arguments(), host)
    assert caught.value.status == 5


def test_a_sequence_that_does_not_fit_names_the_length_that_would(arguments, host, monkeypatch):
    monkeypatch.setenv("FAKE_FREE", "3")
    huge = {"max_position_embeddings": 2**24}
    with pytest.raises(MemoryShortage, match="One sequence of 16777216 tokens needs 4.00 GiB of KV cache") as caught:
        resolve(arguments(hf_overrides=huge), host)
    fits = caught.value.fix.removeprefix("--max-model-len ")
    assert resolve(arguments(hf_overrides=huge, max_model_len=int(fits)), host).model.max_model_len == int(fits)
    with pytest.raises(MemoryShortage):
        resolve(arguments(hf_overrides=huge, max_model_len=int(fits) + 16), host)


def test_block_override(arguments, host):
    assert resolve(arguments(num_gpu_blocks_override=20), host).cache.pages == 20
    with pytest.raises(ConfigError, match="holds 240 tokens, fewer than one sequence of the model length 256") as caught:
        resolve(arguments(num_gpu_blocks_override=15), host)
    assert caught.value.fix == "--num-gpu-blocks-override 16"
    with pytest.raises(MemoryShortage, match="--num-gpu-blocks-override 10000000 needs"):
        resolve(arguments(num_gpu_blocks_override=10_000_000), host)


def test_host_blocks_only_where_something_swaps(arguments, host):
    assert resolve(arguments(swap_space=1.0), host).cache.host_pages == 0
    config = resolve(arguments(swap_space=1.0, preemption_mode="swap"), host)
    assert config.cache.host_pages == GIB // (PER_TOKEN * 16)
    default = resolve(arguments(preemption_mode="swap", max_num_seqs=2), host)
    assert default.cache.host_pages == 2 * 256 // 16
    assert default.plan["expected_rss"] > resolve(arguments(max_num_seqs=2), host).plan["expected_rss"]


def test_the_guided_decoding_backend_counts(arguments, host):
    """It is loaded when the server starts or first rests, whether a flag names it or not."""
    unnamed = resolve(arguments(max_num_seqs=2), host).plan
    named = resolve(arguments(max_num_seqs=2, guided_decoding_backend="xgrammar"), host).plan
    bare = resolve(arguments(max_num_seqs=2, skip_tokenizer_init=True), host).plan  # nothing to constrain with
    assert named["expected_rss"] == unnamed["expected_rss"] == bare["expected_rss"] + LOADED


def test_swap_space_that_does_not_fit(arguments, host, monkeypatch):
    monkeypatch.setenv("FAKE_FREE", "2")
    monkeypatch.setattr("engine.args.rules.host_memory", lambda: 0)
    with pytest.raises(MemoryShortage, match="--swap-space 3 needs 3.00 GiB"):
        resolve(arguments(swap_space=3.0, preemption_mode="swap"), host)


def test_tied_and_packed_weights_are_counted_as_they_will_be():
    info = ModelInfo("x", 10, 4, (AttentionSpec(1, 1, 4, 1.0),), 16, tied_embeddings=True)
    tensors = [
        TensorInfo("model.embed_tokens.weight", "float32", (10, 4), 160, "a"),
        TensorInfo("lm_head.weight", "float32", (10, 4), 160, "a"),
        TensorInfo("layer.qweight", "int32", (3, 3), 36, "a"),
    ]
    weights = measure(tensors, info, "bfloat16")
    assert (weights.tensors, weights.stored, weights.resident) == (3, 356, 80 + 36)


def test_a_refused_plan_still_tells_what_is_known(arguments, host, monkeypatch):
    monkeypatch.setenv("FAKE_FREE", "0.5")
    found, error = examine(arguments(), host)
    assert isinstance(error, MemoryShortage)
    assert found["weights"]["bytes"] == 2 * parameters()
    assert found["kv_cache"] is None
    assert found["refused"][0]["status"] == 5
    text = render(found)
    assert "refused" in text
    assert "LlamaForCausalLM" in text


def test_a_plan_imports_no_torch(llama):
    code = (
        "import sys; from engine.args import EngineArgs; from engine.report import examine\n"
        "from tests.core.args.installed import project_entries; from engine.plugin.discovery import Entry\n"
        "from engine.plugin.host import PluginHost\n"
        "own = [e for e in project_entries() if e.kind != 'model_impl']\n"
        "own.append(Entry('model_impl', 'auto', 'tests.core.plan.native_impl', 'fakes 1'))\n"
        f"found, error = examine(EngineArgs(entries=own, model={str(llama)!r}, device='cpu', skip_tokenizer_init=True), PluginHost(own))\n"
        "assert error is None, error\n"
        "print(sorted({'torch', 'transformers', 'triton', 'fastapi'} & set(sys.modules)))"
    )
    import os

    path = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(("count", "text"), [(5, "5 B"), (2048, "2.00 KiB"), (3 * 2**20, "3.00 MiB"), (1.5 * GIB, "1.50 GiB")])
def test_gib(count, text):
    assert gib(count) == text


def test_unmeasured_weights_and_large_swap_spaces_are_warned_of(arguments, host, llama, monkeypatch):
    monkeypatch.setattr("engine.args.resolve.host_memory", lambda: 4 * GIB)
    plan = resolve(arguments(preemption_mode="swap"), host).plan
    assert plan["warnings"] == ["--swap-space 4 may take more than 40 % of the host's memory."]
    (llama / "model.safetensors").unlink()
    plan = resolve(arguments(load_format="dummy"), host).plan
    assert not plan["warnings"] and plan["weights"]["bytes"] > 0, "counted from the configuration"
    monkeypatch.setattr("engine.args.resolve.FAMILIES", frozenset())
    plan = resolve(arguments(load_format="dummy"), host).plan
    assert "no weight files to measure" in plan["warnings"][0]
