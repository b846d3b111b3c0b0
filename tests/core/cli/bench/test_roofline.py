"""What a model needs at least, and measured phases beside the limits."""

from __future__ import annotations

import msgspec
import pytest

from engine.cli.bench import run
from engine.cli.bench.offline import Timed
from engine.cli.bench.roofline import COMMAND, Phase, _phases, _text, compare
from engine.cli.bench.work import ModelWork, model_work, refuse
from engine.errors import ConfigError
from engine.plugin.facts import AttentionSpec
from tests.core.server.serving import make_config

LAYER = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=8, scale=1.0)
TIED = ModelWork({"bfloat16": 300}, {"bfloat16": 1000}, 2600, (LAYER, LAYER), 2, "bfloat16")
MIXED = ModelWork({"int8": 200, "bfloat16": 100}, {"bfloat16": 1000}, 2400, (LAYER,), 2, "bfloat16")
LIMITS = {
    "read_bytes": 50e9, "read_bytes_best": 60e9, "operations_bfloat16": 8e11, "operations_best_bfloat16": 9e11,
    "operations_int8": 16e11, "operations_best_int8": 17e11,
}  # fmt: skip


def with_cache():
    config = make_config()
    return msgspec.structs.replace(config, cache=msgspec.structs.replace(config.cache, dtype="bfloat16"))


def test_layers_tell_what_they_read_and_in_which_arithmetic():
    told = [
        {"role": "linear", "name": "a", "share": 1.0, "elements": 200, "read_bytes": 210, "arithmetic": "int8"},
        {"role": "linear", "name": "a", "share": 1.0, "elements": 100, "read_bytes": 200, "arithmetic": "bfloat16"},
        {"role": "head", "name": "head", "share": 1.0, "elements": 1000, "read_bytes": 2000, "arithmetic": "bfloat16"},
    ]  # fmt: skip
    work = model_work(with_cache(), told)
    assert (work.linear, work.head, work.weight_bytes) == ({"int8": 200, "bfloat16": 100}, {"bfloat16": 1000}, 2410)
    with pytest.raises(ConfigError, match="the kernel Odd of b does not tell"):
        model_work(with_cache(), [*told, {"role": "linear", "name": "b", "kernel": "Odd"}])


def test_a_row_meets_its_experts_and_a_step_reads_those_that_some_row_chose():
    router = {"role": "router", "name": "r", "share": 1.0, "elements": 10, "read_bytes": 20, "arithmetic": "bfloat16"}
    expert = {"role": "linear", "name": "e", "share": 0.25, "elements": 100, "read_bytes": 200, "arithmetic": "bfloat16"}
    told = [router, *[expert] * 8]
    work = model_work(with_cache(), told)
    assert work.linear == {"bfloat16": 10 + 2 * 100}
    assert [work.read_weights(rows) for rows in (0, 1, 2)] == [20, 20 + 2 * 200, 20 + 1600 * (1 - 0.75**2)]
    assert work.read_weights(1000) == pytest.approx(20 + 1600)


def test_arithmetics_are_counted_apart_and_attention_is_the_activations():
    assert MIXED.kinds() == ["bfloat16", "int8"]
    assert MIXED.step_operations(2, 50) == {"int8": 2 * 2 * 200, "bfloat16": 2 * (2 * 1100 + 50 * 4 * 4 * 8)}


def test_a_step_reads_every_weight_once_and_the_cache_of_everybody():
    assert TIED.step_bytes(0, 0) == 2600
    assert TIED.step_bytes(3, 50) == 2600 + 3 * 50 * 2 * (2 * 2 * 8 * 2), "tokens × layers × K and V of two heads in two bytes"
    assert TIED.step_operations(1, 0) == {"bfloat16": 2 * 1300}
    assert TIED.step_operations(2, 50) == {"bfloat16": 2 * (2 * 1300 + 2 * 50 * 4 * 4 * 8)}


def test_a_prefill_makes_logits_of_the_last_token_and_attends_backwards():
    one = 2 * 300 * 4 + 2 * 1000 + 2 * (4 * 4 * 8) * 10
    assert TIED.prefill_operations(1, 4) == {"bfloat16": one}
    assert TIED.prefill_operations(3, 4) == {"bfloat16": 3 * one}


def test_a_window_bounds_what_is_read():
    short = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=8, scale=1.0, window=3)
    work = ModelWork(TIED.linear, TIED.head, 2600, (short,), 2, "bfloat16")
    assert work.step_bytes(1, 50) == work.step_bytes(1, 3) == 2600 + 3 * 64
    assert work.prefill_operations(1, 5)["bfloat16"] - 2 * 300 * 5 - 2000 == 4 * 4 * 8 * (1 + 2 + 3 + 3 + 3)


def test_a_decode_counts_from_everybodys_first_token():
    phase = Phase("decode", 2, 8, 3, True)
    assert phase.seconds([Timed(8, [0.5, 1.0, 2.0]), Timed(8, [1.0, 2.0, 3.0])]) == 1.0
    assert Phase("prefill", 1, 8, 1, False).seconds([Timed(8, [0.25])]) == 0.25
    assert phase.need(TIED) == (TIED.step_bytes(2, 9.5), TIED.step_operations(2, 9.5))


def test_a_phase_is_compared_with_the_limits_around_it():
    common = {"operations_bfloat16": 1e6, "operations_best_bfloat16": 2e6}
    limits = [{"read_bytes": low, "read_bytes_best": 2 * low, **common} for low in (900.0, 1100.0)]
    phase = Phase("decode", 1, 0, 2, True)
    nbytes, operations = phase.need(TIED)
    found = compare(phase, TIED, 4.0, limits)
    assert found["limit_read_bytes"] == 1000.0 and found["tokens_per_second"] == 0.25
    assert found["read_share"] == pytest.approx(nbytes / 1000 / 4)
    assert found["operations_share"] == pytest.approx(operations["bfloat16"] / 1e6 / 4)
    assert found["share"] == found["read_share"], "the nearer limit counts"
    assert found["best_share"] == found["share"] / 2 and found["best_operations_share"] == found["operations_share"] / 2


def test_arithmetics_take_their_times_one_after_the_other():
    phase = Phase("prefill", 1, 8, 1, False)
    found = compare(phase, MIXED, 2.0, [LIMITS])
    operations = MIXED.prefill_operations(1, 8)
    assert found["operations_share"] == pytest.approx((operations["int8"] / 16e11 + operations["bfloat16"] / 8e11) / 2)
    assert found["operations_per_second"] == pytest.approx(sum(operations.values()) / 2)


def test_the_table_names_phases_limits_and_what_took_the_time():
    found = compare(Phase("decode, batch 1", 1, 8, 3, True), TIED, 0.02, [LIMITS])
    phases = {"decode, batch 1": {**found, "where": {"linear": 15.0, "rest": 5.0}}}
    text = _text({"model": "m", "dtype": "bfloat16", "weight_bytes": 2600, "limits": LIMITS, "phases": phases})
    assert "50.0 GB/s of reading (best pass 60.0), 800 GFLOPS of bfloat16 (best pass 900), 1600 GFLOPS of int8" in text
    assert next(line for line in text.splitlines() if line.startswith("linear")).split() == ["linear", "15.000", "75.0%"]


@pytest.mark.parametrize(("words", "match"), [
    (["--batch-sizes", "0"], "--batch-sizes"), (["--batch-sizes", "1.5"], "--batch-sizes"), (["--output-len", "1"], "--output-len 1"),
    (["--repeats", "0"], "--repeats 0"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_the_start(words, match):
    with pytest.raises(ConfigError, match=match):
        run(["roofline", "demo", *words])


def test_phases_of_the_flags():
    line = COMMAND.read(["demo", "--batch-sizes", "1,8", "--prefill-len", "64"])
    assert line is not None
    assert [(phase.name, phase.batch, phase.input) for phase in _phases(line.own)] == [
        ("decode, batch 1", 1, 128), ("decode, batch 8", 8, 128), ("prefill, 64 tokens", 1, 64),
    ]  # fmt: skip


def test_several_workers_are_refused():
    config = make_config()
    refuse(config)
    with pytest.raises(ConfigError, match="one worker"):
        refuse(msgspec.structs.replace(config, parallel=msgspec.structs.replace(config.parallel, tensor_parallel=2)))
