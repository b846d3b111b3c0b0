"""``EngineArgs`` from Python."""

from __future__ import annotations

import pytest

from engine.args import EngineArgs
from engine.errors import ConfigError
from tests.core.args.installed import fake_entries


def make(**values) -> EngineArgs:
    return EngineArgs(entries=fake_entries(), **values)


def test_keywords_are_the_flags():
    args = make(model="demo", max_num_seqs=4, hf_overrides={"a": 1}, served_model_name="x", enable_prefix_caching=False, swap_space=1)
    assert (args.model, args.max_num_seqs, args.hf_overrides, args.served_model_name) == ("demo", 4, {"a": 1}, ["x"])
    assert args.enable_prefix_caching is False
    assert args.swap_space == 1.0
    assert args.given == {"model", "max_num_seqs", "hf_overrides", "served_model_name", "enable_prefix_caching", "swap_space"}


def test_strings_are_read_as_on_the_command_line():
    args = make(max_model_len="4K", hf_overrides='{"a": 1}', quantization="None")
    assert (args.max_model_len, args.hf_overrides, args.quantization) == (4096, {"a": 1}, None)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"max_modle_len": 4}, "max_modle_len: no such argument. Did you mean max_model_len?"),
        ({"max_model_len": 1.5}, "of type float; expected an integer"),
        ({"max_model_len": True}, "of type bool; expected an integer"),
        ({"enforce_eager": 1}, "of type int; expected True or False"),
        ({"port": None}, "None; expected an integer"),
        ({"hf_overrides": [1]}, "of type list; expected a dict"),
        ({"served_model_name": [1]}, "not a string or a list of strings"),
        ({"block_size": 12}, "not one of 8, 16"),
        ({"gpu_memory_utilization": 2}, "--gpu-memory-utilization 2.0: must be at most 1."),
    ],
)
def test_wrong_keywords_are_refused_by_name(values, says):
    with pytest.raises(ConfigError) as caught:
        make(**values)
    assert says in str(caught.value)


def test_all_wrong_keywords_are_told():
    with pytest.raises(ConfigError) as caught:
        make(max_model_len="x", prot=1)
    assert len(caught.value.line().splitlines()) == 2


def test_frozen_and_replaceable():
    args = make(model="demo")
    with pytest.raises(AttributeError, match="frozen"):
        args.model = "x"
    with pytest.raises(AttributeError, match="no 'modle'"):
        _ = args.modle
    other = args.replace(seed=3)
    assert (other.model, other.seed, args.seed) == ("demo", 3, None)


def test_lists_are_not_shared():
    make().ignore_patterns.append("x")
    assert make().ignore_patterns == []
