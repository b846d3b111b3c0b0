"""The Triton attention against the torch reference: interpreted on every machine, compiled where there is a GPU."""

from __future__ import annotations

import pytest
import torch

from tests.core.attention.triton_sweep import DEFAULT, full, run

#: The interpreter cuts a float32 to bfloat16 where hardware rounds, so the last place may differ by one.
UNITS = {"torch.bfloat16": 1.01, "torch.float16": 1.01, "torch.float32": 300.0}


@pytest.fixture(scope="module")
def results():
    return run(DEFAULT, "cpu")


def check(result, tolerance):
    assert result["error"] <= tolerance
    assert result["rounded"] <= UNITS[result["dtype"]]
    assert result["cache"], "stored pages differ"
    assert result["loose"], "the result depends on the bounds that a recorded step keeps"
    assert result["alone"], "a decode row depends on its batch mates"


@pytest.mark.parametrize("name", DEFAULT)
def test_interpreted_equals_the_reference(results, name):
    check(results[name], 2e-6 if DEFAULT[name].dtype == "float32" else 1e-5)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_interpreted_equals_the_reference_over_the_full_sweep():
    for result in run(full(), "cpu").values():
        check(result, 1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_compiled_equals_the_reference():
    """Weights are rounded to the inputs' 16-bit dtype for the tensor cores: half a unit of it, relative to the values."""
    cases = DEFAULT | full()
    for name, result in run(cases, "cuda").items():
        assert result["relative"] <= (2e-5 if cases[name].dtype == "float32" else 2.0**-8 + 2e-3), name
        assert result["cache"] and result["loose"] and result["alone"], name
