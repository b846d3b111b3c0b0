"""What a model needs at least, and measured phases beside the limits."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from engine.cli.bench import run
from engine.cli.bench.offline import Timed
from engine.cli.bench.roofline import COMMAND, Phase, _phases, _text, compare
from engine.cli.bench.work import count, model_work
from engine.errors import ConfigError
from engine.plugin.facts import AttentionSpec
from tests.core.server.serving import make_config


@dataclass(frozen=True)
class Header:
    name: str
    shape: tuple[int, ...]


LAYER = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=8, scale=1.0)
TABLE = Header("model.embed_tokens.weight", (100, 10))
MATRICES = [Header("model.layers.0.mlp.weight", (10, 30)), Header("model.layers.0.norm.weight", (10,)), TABLE]
TIED = count(MATRICES, (LAYER, LAYER), "bfloat16", "bfloat16")


def test_a_tied_table_is_the_head():
    assert (TIED.linear, TIED.head, TIED.weight_bytes) == (300, 1000, 2600)
    untied = count([*MATRICES, Header("lm_head.weight", (100, 10))], (LAYER,), "float32", "float32")
    assert (untied.linear, untied.head, untied.weight_bytes) == (300, 1000, 5200), "the table itself is not read"


def test_a_step_reads_every_weight_once_and_the_cache_of_everybody():
    assert TIED.step_bytes(0, 0) == 2600
    assert TIED.step_bytes(3, 50) == 2600 + 3 * 50 * 2 * (2 * 2 * 8 * 2), "tokens × layers × K and V of two heads in two bytes"
    assert TIED.step_operations(1, 0) == 2 * 1300
    assert TIED.step_operations(2, 50) == 2 * (2 * 1300 + 2 * 50 * 4 * 4 * 8)


def test_a_prefill_makes_logits_of_the_last_token_and_attends_backwards():
    assert TIED.prefill_operations(1, 4) == 2 * 300 * 4 + 2 * 1000 + 2 * (4 * 4 * 8) * 10
    assert TIED.prefill_operations(3, 4) == 3 * TIED.prefill_operations(1, 4)


def test_a_window_bounds_what_is_read():
    short = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=8, scale=1.0, window=3)
    work = count(MATRICES, (short,), "bfloat16", "bfloat16")
    assert work.step_bytes(1, 50) == work.step_bytes(1, 3) == 2600 + 3 * 64
    assert work.prefill_operations(1, 5) - 2 * 300 * 5 - 2000 == 4 * 4 * 8 * (1 + 2 + 3 + 3 + 3)


def test_a_decode_counts_from_everybodys_first_token():
    phase = Phase("decode", 2, 8, 3, True)
    assert phase.seconds([Timed(8, [0.5, 1.0, 2.0]), Timed(8, [1.0, 2.0, 3.0])]) == 1.0
    assert Phase("prefill", 1, 8, 1, False).seconds([Timed(8, [0.25])]) == 0.25
    assert phase.need(TIED) == (TIED.step_bytes(2, 9.5), TIED.step_operations(2, 9.5))


def test_a_phase_is_compared_with_the_limits_around_it():
    limits = [{"read_bytes": 900.0, "operations": 1e6}, {"read_bytes": 1100.0, "operations": 1e6}]
    phase = Phase("decode", 1, 0, 2, True)
    nbytes, operations = phase.need(TIED)
    found = compare(phase, TIED, 4.0, limits)
    assert found["limit_read_bytes"] == 1000.0 and found["tokens_per_second"] == 0.25
    assert found["read_share"] == pytest.approx(nbytes / 1000 / 4) and found["operations_share"] == pytest.approx(operations / 1e6 / 4)
    assert found["share"] == found["read_share"], "the nearer limit counts"


def test_the_table_names_phases_limits_and_what_took_the_time():
    limits = {"read_bytes": 50e9, "read_bytes_best": 60e9, "operations": 8e11}
    found = compare(Phase("decode, batch 1", 1, 8, 3, True), TIED, 0.02, [limits])
    phases = {"decode, batch 1": {**found, "where": {"linear": 15.0, "rest": 5.0}}}
    text = _text({"model": "m", "dtype": "bfloat16", "limits": limits, "phases": phases})
    assert "reads 50.0 GB/s (best pass 60.0), 800 GFLOPS" in text
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


def test_models_whose_work_headers_do_not_tell_are_refused():
    config = make_config()
    info = msgspec.structs.replace(config.model.info, num_experts=8)
    with pytest.raises(ConfigError, match="8 experts"):
        model_work(msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, info=info)))
