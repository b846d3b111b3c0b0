"""Run in a process of its own: the Triton attention on cases from stdin (JSON lines), compared with the torch reference.

Argument: the device. On ``cpu`` the environment must hold TRITON_INTERPRET=1 before Triton is imported, which is why this
is not part of the test process. Prints one JSON line per case.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import torch

from engine.attention.reference import ReferenceAttention
from engine.attention.triton_paged import INTERPRETING, TritonAttention
from tests.core.attention.attention_cases import Case, Inputs, make

GARBAGE = float("nan")


def triton_out(case: Case, inputs: Inputs, dtype: torch.dtype) -> torch.Tensor:
    out = torch.zeros(inputs.q.shape, dtype=dtype, device=inputs.q.device)
    args = (inputs.q, inputs.k, inputs.v, inputs.cache, inputs.batch, case.spec, inputs.sinks)
    TritonAttention().attend_into(out, *args)
    return out


def compare(case: Case, device: str) -> dict:
    """``error``: largest difference from the reference before rounding to the output's dtype.

    ``rounded``: largest difference after it, in units of the dtype's last place. ``cache``: pages equal bit for bit.
    ``loose``: same bits with no host lengths and with bounds larger than needed, as in a recorded step.
    ``alone``: same bits when each decode row runs in a batch of its own. Every page byte not in use is NaN.
    """
    reference = ReferenceAttention()
    given = make(case, reference, stale=GARBAGE)
    tested = make(case, reference, stale=GARBAGE).to(device)
    args = (given.k, given.v, given.cache, given.batch, case.spec, given.sinks)
    truth = reference.attend(given.q.float(), *args)
    out = triton_out(case, tested, torch.float32)
    rounded = TritonAttention().attend(
        tested.q, tested.k, tested.v, tested.cache, tested.batch, case.spec, tested.sinks
    )
    ulp = torch.finfo(rounded.dtype).eps * truth.abs().clamp(min=2.0**-6)
    return {
        "error": _worst(out.cpu() - truth),
        "relative": _worst((out.cpu() - truth) / truth.abs().clamp(min=1.0)),
        "rounded": _worst((rounded.float().cpu() - truth) / ulp),
        "dtype": str(rounded.dtype),
        "cache": torch.equal(_bits(tested.cache.cpu()), _bits(given.cache)),
        "loose": torch.equal(out, triton_out(case, _loose(tested), torch.float32)),
        "alone": _alone(case, tested, out),
    }


def _worst(difference: torch.Tensor) -> float:
    """The largest absolute value; NaN counts as infinite."""
    return float(difference.abs().nan_to_num(nan=torch.inf).max()) if difference.numel() else 0.0


def _bits(cache: torch.Tensor) -> torch.Tensor:
    return cache.view(torch.uint8)


def _loose(inputs: Inputs) -> Inputs:
    batch = dataclasses.replace(inputs.batch, host=None, max_seq_len=inputs.batch.max_seq_len + 600)
    if batch.max_query_len > 1:
        batch = dataclasses.replace(batch, max_query_len=batch.max_query_len + 200)
    return dataclasses.replace(inputs, batch=batch)


def _alone(case: Case, inputs: Inputs, together: torch.Tensor) -> bool:
    row = 0
    for index, (count, length) in enumerate(case.work):
        if count == 1 and length:
            one = slice(row, row + 1)
            batch = dataclasses.replace(
                inputs.batch, query_start=torch.tensor([0, 1], dtype=torch.int32).to(inputs.q.device),
                seq_lens=inputs.batch.seq_lens[index : index + 1], slots=inputs.batch.slots[one],
                block_table=inputs.batch.block_table[index : index + 1], max_query_len=1, max_seq_len=length,
                host=((1,), (length,)),
            )  # fmt: skip
            single = dataclasses.replace(
                inputs, q=inputs.q[one], k=inputs.k[one], v=inputs.v[one], batch=batch
            )
            if not torch.equal(triton_out(case, single, torch.float32), together[one]):
                return False
        row += count
    return True


def main() -> None:
    device = sys.argv[1]
    if INTERPRETING is (device != "cpu"):
        sys.exit(f"device {device}, interpreting: {INTERPRETING}")
    for line in sys.stdin:
        fields = json.loads(line)
        fields["work"] = tuple(map(tuple, fields["work"]))
        print(json.dumps(compare(Case(**fields), device)), flush=True)


if __name__ == "__main__":
    main()
