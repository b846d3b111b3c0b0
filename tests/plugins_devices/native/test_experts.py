"""Native mixtures of experts against the layer's definition, one expert after the other."""

from __future__ import annotations

import pytest
import torch

from engine.layers.packed import DensePacked
from engine.layers.packed_quantized import ActivationRounding, Codebook, GroupedInteger, Permuted, RoundedInputs, ScaledFloat8
from engine_devices._composite import linear_kernel
from engine_devices._operations import NativeOperations
from engine_devices._recorder import TapeRecorder

EXPERTS, TOP_K, HIDDEN, INNER = 11, 3, 72, 96
ROWS = (0, 1, 2, 5, 33)


def values(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codes(weight):
    places, scale = (weight.abs() * 40).long() % 16, values(len(weight), 1, seed=8)
    return Codebook.of(places, values(16, seed=9) / weight.shape[1] ** 0.5, scale, bits=4, group=weight.shape[1])


def rounded(weight, group):
    return RoundedInputs(ScaledFloat8.quantize(weight, rows=1), ActivationRounding("float8_e4m3fn", group=group))


LAYOUTS = {
    "float32": lambda weight: DensePacked(weight),
    "bfloat16": lambda weight: DensePacked(weight.bfloat16()),
    "int8": lambda weight: GroupedInteger.quantize(weight, bits=8, group=0),
    "int4": lambda weight: GroupedInteger.quantize(weight, bits=4, group=32, asymmetric=True),
    "int3": lambda weight: GroupedInteger.quantize(weight, bits=3, group=32),
    "float8": lambda weight: ScaledFloat8.quantize(weight, rows=1),
    "codes": codes,
    "float8 rounded per row": lambda weight: rounded(weight, 0),
    "float8 rounded in groups": lambda weight: rounded(weight, 24),
}


def kernels(native, layout, outputs, inputs, seed):
    weights = (values(outputs, inputs, seed=seed + number) / inputs**0.5 for number in range(EXPERTS))
    return [linear_kernel(native, layout(weight)) for weight in weights]


def mixture(native, layout, *, act="silu", inner=INNER, renormalize=True):
    gate_up = kernels(native, layout, 2 * inner, HIDDEN, 100)
    down = kernels(native, layout, HIDDEN, inner, 200)
    ops = NativeOperations(native)
    made = ops.mixture(gate_up, down, top_k=TOP_K, renormalize=renormalize, act=act)

    def defined(x, logits):
        weights, chosen = torch.topk(torch.softmax(logits.float(), -1), TOP_K, dim=-1)
        if renormalize:
            weights = weights / weights.sum(-1, keepdim=True)
        done = torch.zeros(*x.shape[:1], TOP_K, HIDDEN)
        for row, place in ((row, place) for row in range(len(x)) for place in range(TOP_K)):
            expert = int(chosen[row, place])
            gated = ops.gate(gate_up[expert].apply(x[row : row + 1], None), act)
            done[row, place] = down[expert].apply(gated, None)[0].float()
        return (done * weights.unsqueeze(-1)).sum(1).to(x.dtype)

    return made, defined


def inputs(rows, dtype, seed=1):
    """Rows that lie apart, and logits no two of which are equal."""
    return values(rows, HIDDEN + 8, seed=seed).to(dtype)[:, :HIDDEN], values(rows, EXPERTS, seed=seed + 1)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_row_gets_its_experts(native, layout, rows):
    dtype = torch.float32 if layout == "float32" else torch.bfloat16
    made, defined = mixture(native, LAYOUTS[layout])
    x, logits = inputs(rows, dtype)
    expected = defined(x, logits).float()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    largest = float(expected.abs().max()) if rows else 1.0
    torch.testing.assert_close(made(x, logits).float(), expected, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize(("act", "renormalize"), [("gelu_tanh", True), ("silu", False)])
def test_the_gate_and_the_weights_are_the_models(native, act, renormalize):
    made, defined = mixture(native, LAYOUTS["float32"], act=act, renormalize=renormalize)
    x, logits = inputs(9, torch.float32)
    torch.testing.assert_close(made(x, logits), defined(x, logits), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["bfloat16", "int4", "float8 rounded in groups"])
def test_a_rows_result_does_not_depend_on_its_neighbours(native, layout):
    made, _ = mixture(native, LAYOUTS[layout])
    x, logits = inputs(33, torch.bfloat16)
    together = made(x, logits)
    assert all(torch.equal(together[row : row + 1], made(x[row : row + 1], logits[row : row + 1])) for row in range(33))


def test_the_lowest_expert_wins_among_equals(native):
    made, defined = mixture(native, LAYOUTS["float32"])
    x, _ = inputs(4, torch.float32)
    favoured = torch.zeros(4, EXPERTS)
    favoured[:, :TOP_K] = 1e-6
    torch.testing.assert_close(made(x, torch.zeros(4, EXPERTS)), defined(x, favoured), rtol=1e-4, atol=1e-5)


def test_logits_that_are_no_numbers_stay_in_their_row(native):
    made, _ = mixture(native, LAYOUTS["float32"])
    x, logits = inputs(5, torch.float32)
    whole = made(x, logits)
    logits[2, 4] = float("nan")
    found = made(x, logits)
    assert found[2].isnan().all()
    others = [0, 1, 3, 4]
    assert torch.equal(found[others], whole[others])


def test_a_recorded_mixture_decides_anew_at_each_replay(native):
    made, _ = mixture(native, LAYOUTS["bfloat16"])
    x, logits = (part.contiguous() for part in inputs(6, torch.bfloat16))
    replay = TapeRecorder(native).record(lambda: (made(x, logits),))
    for seed in (20, 30):
        other, scores = inputs(6, torch.bfloat16, seed=seed)
        x.copy_(other)
        logits.copy_(scores)
        assert torch.equal(replay.run()[0], made(x, logits))


def test_what_the_native_kernels_do_not_take_is_left_to_the_layer(native):
    ops, options = NativeOperations(native), {"top_k": TOP_K, "renormalize": True}
    gate_up, down = kernels(native, LAYOUTS["int4"], 2 * INNER, HIDDEN, 1), kernels(native, LAYOUTS["int4"], HIDDEN, INNER, 2)
    assert ops.mixture(gate_up, down, act="gelu", **options) is None
    order = torch.randperm(INNER)
    reordered = kernels(native, lambda weight: Permuted(GroupedInteger.quantize(weight, bits=4, group=32), order), HIDDEN, INNER, 2)
    assert ops.mixture(gate_up, reordered, act="silu", **options) is None
    assert mixture(native, LAYOUTS["bfloat16"], inner=40)[0] is None
    assert mixture(native, lambda weight: rounded(weight, -1))[0] is None, "one scale for all rows of a call: an expert's are others"
