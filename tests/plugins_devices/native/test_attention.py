"""Native attention against the torch reference, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from engine.errors import ConfigError
from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.facts import AttentionSpec
from engine_devices._attention import NativeAttention
from tests.core.attention.attention_cases import Case, make
from tests.plugins_devices.native.compared_attention import MIXED, REFERENCE, compare, filled

DECODES = ((1, 1), (1, 15), (1, 16), (1, 17), (1, 255), (1, 257), (1, 700))
HEADS = [(2, 2, 16), (16, 8, 128), (14, 2, 64), (8, 8, 8), (5, 1, 80), (3, 3, 72), (6, 2, 256), (71, 1, 64)]
DTYPES = ["float32", "bfloat16", "float16"]
#: Of queries and cache.
TYPES = [*((dtype, dtype) for dtype in DTYPES), ("bfloat16", "float8_e4m3fn"), ("float32", "float8_e5m2")]


@pytest.fixture
def backend(native):
    return NativeAttention(native)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), HEADS)
@pytest.mark.parametrize("work", [DECODES, MIXED])
def test_heads_and_batches(backend, dtype, heads, kv_heads, head_dim, work):
    compare(backend, Case(work, heads, kv_heads, head_dim, block_size=16, dtype=dtype, pad_rows=3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("block_size", [2, 4, 8, 32, 48, 64, 128])
@pytest.mark.parametrize("window", [None, 40])
def test_block_sizes(backend, dtype, block_size, window):
    compare(backend, Case(MIXED, 4, 2, 40, block_size, window=window, dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window", [None, 1, 7, 256, 300])
@pytest.mark.parametrize("soft_cap", [None, 20.0])
@pytest.mark.parametrize("sinks", [False, True])
def test_windows_caps_and_sinks(backend, dtype, window, soft_cap, sinks):
    case = Case(((1, 900), (70, 640), (20, 20), (1, 3)), 6, 2, 64, 16, window, soft_cap, sinks, dtype)
    compare(backend, case)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_long_contexts_shared_by_threads(backend, dtype):
    compare(backend, Case(((1, 8192),), 4, 2, 64, 16, dtype=dtype))
    compare(backend, Case(((1, 8191), (1, 5), (2, 4000)), 4, 2, 32, 64, window=3000, sinks=True, dtype=dtype))


def test_empty_batches(backend):
    case = Case((), 2, 2, 16, 16, pad_rows=2)
    inputs = make(case, REFERENCE)
    cache = backend.allocate(case.spec, 2, 16, torch.float32, torch.device("cpu"))
    out = backend.attend(inputs.q, inputs.k, inputs.v, cache, inputs.batch, case.spec)
    assert torch.equal(out, torch.zeros_like(inputs.q))


@pytest.mark.parametrize(("dtype", "kept"), TYPES)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_results_do_not_depend_on_mates_chunks_or_threads(backend, dtype, kept, head_dim):
    """The last row of a prompt: alone and in a batch, as decode and inside a prefill, on one thread and on three."""
    work = ((1, 700), (1, 33), (40, 300), (1, 5), (17, 17))
    case = Case(work, 8, 2, head_dim, 16, dtype=dtype, cache=kept)
    inputs = make(case, REFERENCE)
    cache = filled(backend, case, inputs)
    batch = inputs.batch
    together = backend.attend(inputs.q, inputs.k, inputs.v, cache, batch, case.spec)
    start = 0
    for index, (count, length) in enumerate(work):
        for first in range(start, start + count, 9):
            last = min(first + 9, start + count)
            upto = length - (start + count - last)
            part = AttentionBatch(
                torch.tensor([0, last - first], dtype=torch.int32), torch.tensor([upto], dtype=torch.int32),
                batch.block_table[index : index + 1], batch.slots[first:last], 16, last - first, upto,
            )  # fmt: skip
            for scratch in (True, False):
                backend.shares_contexts = scratch
                rows = slice(first, last)
                alone = backend.attend(inputs.q[rows], inputs.k[rows], inputs.v[rows], cache, part, case.spec)
                assert torch.equal(alone, together[first:last])
        start += count


@pytest.mark.parametrize("dtype", DTYPES)
def test_views_of_a_fused_projection(backend, dtype):
    case = Case(MIXED, 4, 2, 64, 16, dtype=dtype)
    inputs = make(case, REFERENCE)
    cache, other = filled(backend, case, inputs), filled(backend, case, inputs)
    fused = torch.cat([part.flatten(1) for part in (inputs.q, inputs.k, inputs.v)], dim=1)
    q, k, v = (part.view(len(fused), -1, 64) for part in fused.split((256, 128, 128), dim=1))
    got = backend.attend(q, k, v, cache, inputs.batch, case.spec)
    wanted = backend.attend(inputs.q, inputs.k, inputs.v, other, inputs.batch, case.spec)
    assert torch.equal(got, wanted)
    assert torch.equal(cache.view(torch.uint8), other.view(torch.uint8))


@pytest.mark.parametrize(("dtype", "kept"), TYPES)
@pytest.mark.parametrize("block_size", [2, 8, 16, 64])
def test_pages_can_be_copied(backend, dtype, kept, block_size):
    """A page is bytes: a sequence on copies of its pages, in other places, reads the same."""
    case = Case(((1, 150),), 4, 2, 48, block_size, dtype=dtype, cache=kept)
    inputs = make(case, REFERENCE)
    cache = filled(backend, case, inputs)
    wanted = backend.attend(inputs.q, inputs.k, inputs.v, cache, inputs.batch, case.spec)
    order = torch.randperm(len(cache), generator=torch.Generator().manual_seed(3))
    moved = backend.allocate(case.spec, len(cache), block_size, cache.dtype, torch.device("cpu"))
    moved.view(torch.uint8).index_copy_(0, order, cache.view(torch.uint8))
    inputs.batch.slots.fill_(-1)
    inputs.batch.block_table.copy_(order[inputs.batch.block_table.long()])
    assert torch.equal(backend.read(inputs.q, moved, inputs.batch, case.spec), wanted)
    assert backend.page_bytes(case.spec, block_size, cache.element_size()) == cache[0].nbytes


@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_nan_stays_with_its_sequence(backend, where):
    case = Case(((1, 50), (4, 20), (1, 50)), 4, 2, 64, 16)
    inputs = make(case, REFERENCE)
    cache = filled(backend, case, inputs)
    getattr(inputs, where)[2].fill_(float("nan"))  # the second sequence's second row
    out = backend.attend(inputs.q, inputs.k, inputs.v, cache, inputs.batch, case.spec)
    bad = out.isnan().any(-1).any(-1).tolist()
    assert not bad[0]
    assert not bad[5]
    assert bad[2:5] == [True, where != "q", where != "q"]
    assert where == "v" or not bad[1]  # where a hidden value is NaN, 0 · NaN reaches the sequence's other rows


def test_refusals(backend):
    spec = AttentionSpec(num_heads=3, num_kv_heads=2, head_dim=64, scale=1.0)
    assert "3 query heads" in (backend.supports(spec, torch.float32) or "")
    wide = AttentionSpec(num_heads=2, num_kv_heads=2, head_dim=2048, scale=1.0)
    assert "2048" in (backend.supports(wide, torch.float32) or "")
    fine = AttentionSpec(num_heads=4, num_kv_heads=2, head_dim=80, scale=1.0)
    assert backend.supports(fine, torch.bfloat16) is None
    assert "int8" in (backend.supports(fine, torch.int8) or "")
    for block_size in (1, 3, 24, 100):
        with pytest.raises(ConfigError, match="block-size"):
            backend.allocate(fine, 2, block_size, torch.float32, torch.device("cpu"))
