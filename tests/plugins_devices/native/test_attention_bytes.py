"""Native attention over caches of other types than the queries', above all of 8 bits, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from engine.plugin.contracts.attention import AttentionBatch
from engine.plugin.facts import AttentionSpec
from engine_devices._attention import NativeAttention
from tests.core.attention.attention_cases import Case, make
from tests.plugins_devices.native.compared_attention import MIXED, REFERENCE, compare, write

DTYPES = ["float32", "bfloat16", "float16"]
EIGHT_BITS = ["float8_e4m3fn", "float8_e5m2"]


@pytest.fixture
def backend(native):
    return NativeAttention(native)


def batch_of(lengths, queries, table, slots):
    start = torch.tensor([0, *queries], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return AttentionBatch(start, torch.tensor(lengths, dtype=torch.int32), table, slots, 16, max(queries), max(lengths))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float32])
def test_caches_of_other_types(backend, kind):
    """Keys and values rounded as torch casts them; the arithmetic is float32."""
    case = Case(((1, 300), (40, 40)), 4, 2, 64, 16)
    inputs = make(case, REFERENCE)
    for rows in (inputs.keys, inputs.values):
        for index, part in enumerate(rows):
            rows[index] = part.to(kind).float()
    exact = REFERENCE.allocate(case.spec, len(inputs.cache), 16, torch.float32, torch.device("cpu"))
    coarse = backend.allocate(case.spec, len(inputs.cache), 16, kind, torch.device("cpu"))
    k, v = inputs.k.to(kind).float(), inputs.v.to(kind).float()
    history = slice(0, 299)
    table = inputs.batch.block_table[0].long()
    for position in range(299):
        page = table[position // 16]
        exact[page, 0, :, position % 16] = inputs.keys[0][position]
        exact[page, 1, :, position % 16] = inputs.values[0][position]
    write(backend, case, coarse, inputs.batch.block_table[0], inputs.keys[0][history], inputs.values[0][history])
    wanted = REFERENCE.attend(inputs.q, k, v, exact, inputs.batch, case.spec)
    got = backend.attend(inputs.q, inputs.k, inputs.v, coarse, inputs.batch, case.spec)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_every_byte_of_float8_reads_as_torch_reads_it(backend):
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):
        codes = torch.arange(256, dtype=torch.uint8).view(kind).float()
        finite = codes[codes.isfinite()]
        spec = AttentionSpec(num_heads=1, num_kv_heads=1, head_dim=len(finite), scale=1.0)
        cache = backend.allocate(spec, 1, 16, kind, torch.device("cpu"))
        row = finite.view(1, 1, -1)
        batch = AttentionBatch(
            torch.tensor([0, 1], dtype=torch.int32), torch.tensor([1], dtype=torch.int32),
            torch.zeros((1, 1), dtype=torch.int32), torch.zeros(1, dtype=torch.int64), 16, 1, 1,
        )  # fmt: skip
        assert torch.equal(backend.attend(torch.zeros_like(row), row, row, cache, batch, spec), row)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", EIGHT_BITS)
def test_every_code_as_a_value(backend, dtype, kind):
    """Infinities and what is no number, too: a page for each code, of which one token is seen."""
    kept = getattr(torch, kind)
    spec = AttentionSpec(num_heads=2, num_kv_heads=1, head_dim=64, scale=1.0)
    cache = backend.allocate(spec, 256, 16, kept, torch.device("cpu"))
    half = cache.shape[1] // 2
    codes = torch.arange(256, dtype=torch.uint8)
    cache.view(torch.uint8)[:, half:] = codes[:, None]
    batch = batch_of([1] * 256, [1] * 256, torch.arange(256, dtype=torch.int32)[:, None].clone(), torch.full((256,), -1))
    got = backend.read(torch.zeros(256, 2, 64, dtype=getattr(torch, dtype)), cache, batch, spec)
    wanted = codes.view(kept).to(got.dtype)[:, None, None].expand_as(got)
    assert torch.equal(got.nan_to_num(0.5), wanted.nan_to_num(0.5))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", EIGHT_BITS)
def test_every_code_as_a_key(backend, dtype, kind):
    """The same scores as from a bfloat16 cache: queries choose one dimension each, values one token each, so that nothing is added up."""
    kept = getattr(torch, kind)
    codes = torch.arange(256, dtype=torch.uint8).view(kept).float()
    spec = AttentionSpec(num_heads=1, num_kv_heads=1, head_dim=256, scale=1.0)
    table = torch.arange(16, dtype=torch.int32).expand(256, 16).contiguous()
    for power in range(-14, 17, 3):
        few = codes.where((codes * 2.0**power).abs() <= 8, 0.0).nan_to_num()
        keys = few[(torch.arange(256)[:, None] + torch.arange(256)) % 256].view(256, 1, 256).to(getattr(torch, dtype))
        values = torch.eye(256, dtype=keys.dtype).view(256, 1, 256)
        q = values * 2.0**power
        found = []
        for each in (kept, torch.bfloat16):
            cache = backend.allocate(spec, 16, 16, each, torch.device("cpu"))
            backend.place(keys, keys, values, cache, batch_of([256], [256], table, torch.arange(256)), spec)
            found.append(backend.read(q, cache, batch_of([256] * 256, [1] * 256, table, torch.full((256,), -1)), spec))
        assert torch.equal(*found)
        assert found[0].unique().numel() > (8 if few.abs().max() * 2.0**power > 0.5 else 0)


@pytest.mark.parametrize("kind", EIGHT_BITS)
@pytest.mark.parametrize("scale", [1.0, 0.375])
@pytest.mark.parametrize("whole", [True, False])
def test_every_bfloat16_is_rounded_as_torch_casts(backend, kind, scale, whole):
    """Whole tiles at once and row by row; beyond the largest value it is that one. A window of one shows each token's own value."""
    kept = getattr(torch, kind)
    spec = AttentionSpec(num_heads=8, num_kv_heads=8, head_dim=128, scale=1.0, window=1, k_scale=scale, v_scale=scale)
    v = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).view(64, 8, 128)
    v[v.isnan()] = 0  # 0 · NaN would reach the other tokens
    k = torch.zeros_like(v)
    cache = backend.allocate(spec, 4, 16, kept, torch.device("cpu"))
    table = torch.arange(4, dtype=torch.int32)[None].clone()
    for rows in [slice(0, 64)] if whole else [slice(row, row + 1) for row in range(64)]:
        count = rows.stop - rows.start
        backend.place(k[rows], k[rows], v[rows], cache, batch_of([rows.stop], [count], table, torch.arange(64)[rows].clone()), spec)
    got = backend.read(k, cache, batch_of([64], [64], table, torch.full((64,), -1)), spec)
    largest = torch.finfo(kept).max
    wanted = ((v.float() * torch.tensor(1 / scale)).clamp(-largest, largest).to(kept).float() * scale).bfloat16()
    assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cache", EIGHT_BITS)
@pytest.mark.parametrize("window", [None, 40])
def test_scaled_caches(backend, dtype, cache, window):
    case = Case(MIXED, 4, 2, 64, 16, window=window, dtype=dtype, cache=cache, k_scale=0.25, v_scale=2.0)
    compare(backend, case, 3e-2 if dtype == "bfloat16" else None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("cache", EIGHT_BITS)
@pytest.mark.parametrize(("block_size", "head_dim"), [(2, 40), (4, 128), (8, 72), (48, 80), (128, 256)])
def test_block_sizes_of_eight_bits(backend, dtype, cache, block_size, head_dim):
    case = Case(MIXED, 4, 2, head_dim, block_size, window=70, dtype=dtype, cache=cache, k_scale=0.5)
    compare(backend, case, 3e-2 if dtype == "bfloat16" else None)


@pytest.mark.parametrize("kind", ["bfloat16", *EIGHT_BITS])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_whole_tiles_are_stored_as_single_tokens_are(backend, kind, head_dim):
    spec = AttentionSpec(num_heads=2, num_kv_heads=2, head_dim=head_dim, scale=1.0)
    k, v = torch.randn(2, 80, 2, head_dim, generator=torch.Generator().manual_seed(4)).bfloat16().unbind()
    k[3, 1, 5], v[20, 0, 7] = float("nan"), float("nan")
    table, slots = torch.arange(5, dtype=torch.int32)[None].clone(), torch.arange(80)
    whole, single = (backend.allocate(spec, 5, 16, getattr(torch, kind), torch.device("cpu")) for _ in range(2))
    backend.place(k, k, v, whole, batch_of([80], [80], table, slots), spec)
    for row in range(80):
        here = slice(row, row + 1)
        backend.place(k[here], k[here], v[here], single, batch_of([row + 1], [1], table, slots[here].clone()), spec)
    assert torch.equal(whole.view(torch.uint8), single.view(torch.uint8))


@pytest.mark.parametrize(("cache", "largest"), [("float8_e4m3fn", 448.0), ("float8_e5m2", 57344.0)])
def test_eight_bits_saturate(backend, cache, largest):
    case = Case(((3, 3),), 2, 2, 16, 16, cache=cache, k_scale=0.5)
    inputs = make(case, REFERENCE)
    inputs.k.fill_(1e6)
    inputs.v.fill_(-1e6)
    pages = backend.allocate(case.spec, len(inputs.cache), 16, inputs.cache.dtype, torch.device("cpu"))
    out = backend.attend(inputs.q, inputs.k, inputs.v, pages, inputs.batch, case.spec)
    assert torch.allclose(out, torch.full_like(out, -largest))
