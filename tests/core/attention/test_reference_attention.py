from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.attention import built_in
from engine.plugin.facts import AttentionSpec
from tests.core.attention.attention_cases import Case, make, naive

MIXED = ((1, 1), (1, 7), (5, 5), (1, 8), (3, 20), (1, 33), (9, 17), (1, 70), (4, 100))


@pytest.fixture
def backend():
    return built_in("cpu")


def attend(backend, inputs, case):
    return backend.attend(inputs.q, inputs.k, inputs.v, inputs.cache, inputs.batch, case.spec, inputs.sinks)


@pytest.mark.parametrize("host", [True, False])
@pytest.mark.parametrize(
    "features",
    [
        {}, {"kv_heads": 1}, {"heads": 8, "kv_heads": 2, "head_dim": 20}, {"window": 1}, {"window": 6}, {"window": 64},
        {"soft_cap": 2.0}, {"sinks": True}, {"block_size": 16}, {"block_size": 32},
        {"heads": 8, "kv_heads": 1, "window": 9, "soft_cap": 3.0, "sinks": True, "pad_rows": 3},
    ],
)  # fmt: skip
def test_equals_the_definition(backend, features, host):
    case = Case(MIXED, **features)
    inputs = make(case, backend, host)
    assert torch.allclose(attend(backend, inputs, case).double(), naive(case, inputs), atol=2e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_inputs_cost_only_the_rounding_of_the_output(backend, dtype):
    case = Case(MIXED, dtype=dtype, heads=4, sinks=True)
    inputs = make(case, backend)
    out = attend(backend, inputs, case)
    assert out.dtype == getattr(torch, dtype)
    exact = naive(case, inputs).to(out.dtype)
    assert torch.allclose(out.float(), exact.float(), rtol=0.0079, atol=1e-4)


@pytest.mark.parametrize("window", [None, 30])
def test_equals_torch_sdpa(backend, window):
    case = Case(((64, 64), (1, 50)), heads=6, kv_heads=3, window=window)
    inputs = make(case, backend)
    out = attend(backend, inputs, case)
    row = 0
    for (count, length), keys, values in zip(case.work, inputs.keys, inputs.values, strict=True):
        q = inputs.q[row : row + count].transpose(0, 1)
        distance = torch.arange(length - count, length)[:, None] - torch.arange(length)
        seen = (distance >= 0) & (distance < (window or length))
        expected = torch.nn.functional.scaled_dot_product_attention(
            q, keys.transpose(0, 1), values.transpose(0, 1), attn_mask=seen, scale=case.spec.scale, enable_gqa=True
        )
        assert torch.allclose(out[row : row + count], expected.transpose(0, 1), atol=2e-6)
        row += count


def test_long_prefill_in_slices_equals_one_piece(backend, monkeypatch):
    case = Case(((90, 120), (33, 33)), window=40)
    inputs = make(case, backend)
    whole = attend(backend, inputs, case)
    monkeypatch.setattr("engine.attention.reference.SCORES_AT_ONCE", 1000)
    assert torch.allclose(attend(backend, inputs, case), whole, atol=2e-6)


def test_chunked_prefill_equals_one_piece(backend):
    whole = Case(((50, 50),), kv_heads=1)
    inputs = make(whole, backend)
    expected = attend(backend, inputs, whole)
    inputs.cache.zero_()
    got = []
    for start in range(0, 50, 7):
        stop = min(start + 7, 50)
        batch = dataclasses.replace(
            inputs.batch, query_start=torch.tensor([0, stop - start]), seq_lens=torch.tensor([stop]),
            slots=inputs.batch.slots[start:stop], host=((stop - start,), (stop,)),
        )
        part = (tensor[start:stop] for tensor in (inputs.q, inputs.k, inputs.v))
        got.append(backend.attend(*part, inputs.cache, batch, whole.spec))
    assert torch.allclose(torch.cat(got), expected, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads", [(2, 2), (8, 2)])
def test_a_decode_row_has_the_same_bits_alone_and_in_company(backend, dtype, heads):
    work = tuple((1, length) for length in (1, 3, 16, 40, 64, 65, 100, 129, 300, 513, 700))
    case = Case(work, heads=heads[0], kv_heads=heads[1], head_dim=32, dtype=dtype)
    inputs = make(case, backend)
    together = attend(backend, inputs, case)
    for index, (_, length) in enumerate(work):
        alone = dataclasses.replace(
            inputs.batch, query_start=torch.tensor([0, 1]), seq_lens=torch.tensor([length]),
            block_table=inputs.batch.block_table[index : index + 1], slots=inputs.batch.slots[index : index + 1],
            host=((1,), (length,)),
        )
        one = slice(index, index + 1)
        out = backend.attend(inputs.q[one], inputs.k[one], inputs.v[one], inputs.cache, alone, case.spec)
        assert torch.equal(out, together[one]), length


def test_what_another_request_left_in_the_pages_does_not_matter(backend):
    case = Case(MIXED, heads=4, window=50, sinks=True)
    clean = make(case, backend)
    for stale in (float("nan"), float("inf")):
        dirty = make(case, backend, stale=stale)
        out = attend(backend, dirty, case)
        assert torch.equal(out, attend(backend, clean, case))


def test_a_sequence_of_nans_does_not_touch_its_neighbours(backend):
    case = Case(((1, 20), (4, 9), (1, 30)))
    clean, dirty = make(case, backend), make(case, backend)
    dirty.q[0] = float("nan")
    dirty.k[0] = float("nan")
    expected, out = attend(backend, clean, case), attend(backend, dirty, case)
    assert out[0].isnan().all()
    assert torch.equal(out[1:], expected[1:])


def test_rows_without_slots_and_empty_sequences_are_zeros_and_store_nothing(backend):
    case = Case(((1, 5), (1, 0), (1, 0), (2, 4)), pad_rows=2)
    inputs = make(case, backend)
    before = inputs.cache.clone()
    out = attend(backend, inputs, case)
    assert torch.allclose(out.double(), naive(case, inputs), atol=2e-6)
    assert not out[[1, 2, 5, 6]].any()
    assert int((inputs.cache != before).flatten(2).any(-1).sum()) <= 2 * 2  # pages × (K, V) that changed


def test_an_empty_batch(backend):
    case = Case(())
    inputs = make(case, backend)
    assert attend(backend, inputs, case).shape == (0, 2, 16)


def test_layers_of_one_step_may_differ(backend):
    """The plan is kept from layer to layer; it must not be taken for a layer of another shape."""
    first = Case(MIXED, heads=4, kv_heads=2, window=12)
    inputs = make(first, backend)
    for changed in ({}, {"window": None}, {"heads": 4, "kv_heads": 4}, {"head_dim": 8}, {"window": 5}):
        case = dataclasses.replace(first, **changed)
        layer = make(case, backend)
        out = backend.attend(layer.q, layer.k, layer.v, layer.cache, inputs.batch, case.spec)
        assert torch.allclose(out.double(), naive(case, layer), atol=2e-6), changed


def test_allocation_and_page_bytes_agree(backend):
    spec = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=24, scale=1.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e4m3fn):
        cache = backend.allocate(spec, 7, 16, dtype, torch.device("cpu"))
        assert cache.shape[0] == 7
        assert cache.nbytes == 7 * backend.page_bytes(spec, 16, dtype.itemsize)
        assert not cache.float().any()


def test_refusals(backend):
    odd = AttentionSpec(num_heads=6, num_kv_heads=4, head_dim=16, scale=1.0)
    assert "6 query heads" in backend.supports(odd, torch.float32)
    even = AttentionSpec(num_heads=8, num_kv_heads=4, head_dim=16, scale=1.0)
    assert "int8" in backend.supports(even, torch.int8)
    assert backend.supports(even, torch.bfloat16) is None


@pytest.mark.parametrize("host", [True, False])
@pytest.mark.parametrize("cache", ["float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_scaled_caches_equal_the_definition(backend, cache, host):
    case = Case(MIXED, heads=4, soft_cap=5.0, sinks=True, cache=cache, k_scale=0.25, v_scale=2.0)
    inputs = make(case, backend, host)
    assert torch.allclose(attend(backend, inputs, case).double(), naive(case, inputs), atol=2e-6)


@pytest.mark.parametrize(("cache", "largest"), [("float8_e4m3fn", 448.0), ("float8_e5m2", 57344.0)])
def test_eight_bits_saturate(backend, cache, largest):
    case = Case(((3, 3),), cache=cache, k_scale=0.5)
    inputs = make(case, backend)
    inputs.k.fill_(1e6)
    inputs.v.fill_(-1e6)
    out = attend(backend, inputs, case)
    assert torch.allclose(out, torch.full_like(out, -largest))
