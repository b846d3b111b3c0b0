"""Native attention beside the torch reference's, on a cache of the same contents."""

from __future__ import annotations

import torch

from engine.attention.reference import ReferenceAttention
from engine.plugin.contracts.attention import AttentionBatch
from tests.core.attention.attention_cases import make

REFERENCE = ReferenceAttention()
#: Absolute, for values of unit size. bfloat16: one unit in the last place of values up to 4.
TOLERANCE = {"float32": 1e-5, "bfloat16": 1.7e-2, "float16": 2e-3}
MIXED = ((300, 300), (0, 10), (1, 40), (3, 0), (33, 70), (64, 600), (1, 1), (5, 5))


def write(backend, case, cache, table, keys, values, first=0):
    """Store tokens ``first``… of one sequence."""
    positions = torch.arange(first, first + len(keys))
    slots = table.long()[positions // case.block_size] * case.block_size + positions % case.block_size
    batch = AttentionBatch(
        torch.tensor([0, len(keys)], dtype=torch.int32), torch.tensor([len(keys)], dtype=torch.int32), table[None], slots,
        case.block_size, len(keys), len(keys),
    )  # fmt: skip
    backend.place(keys, keys, values, cache, batch, case.spec)


def filled(backend, case, inputs):
    """A native cache with the same earlier context; whatever else it holds is NaN."""
    cache = backend.allocate(case.spec, len(inputs.cache), case.block_size, inputs.cache.dtype, torch.device("cpu"))
    cache.view(torch.uint8).fill_(255)
    for index, (count, length) in enumerate(case.work):
        if length > count:
            kept = slice(0, length - count)
            write(backend, case, cache, inputs.batch.block_table[index], inputs.keys[index][kept], inputs.values[index][kept])
    return cache


def compare(backend, case, tolerance=None):
    inputs = make(case, REFERENCE)
    wanted = REFERENCE.attend(inputs.q, inputs.k, inputs.v, inputs.cache, inputs.batch, case.spec, inputs.sinks)
    cache = filled(backend, case, inputs)
    got = backend.attend(inputs.q, inputs.k, inputs.v, cache, inputs.batch, case.spec, inputs.sinks)
    assert got.dtype == wanted.dtype
    assert got.isfinite().all()
    error = (got.float() - wanted.float()).abs().max().item()
    assert error <= (tolerance or TOLERANCE[case.dtype]), error
