"""Steps of any form on workers that admit fewer sequences and tokens than a recording's trials have."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine_devices._native import Absent, load
from tests.core.worker.harness import Driver, greedy, make_config, make_worker
from tests.plugins.models.checkpoints import save
from tests.plugins.models.test_equal_transformers import CASES


@pytest.mark.skipif(isinstance(load(), Absent), reason="the native kernels are not available here")
@pytest.mark.parametrize(("sequences", "tokens"), [(1, 16), (2, 16), (2, 512), (6, 25)])
def test_small_limits_record_as_well(sequences: int, tokens: int, tmp_path: Path) -> None:
    module, config = CASES["llama"]
    save(config, tmp_path)
    found = {}
    for plain in (True, False):
        worker = make_worker(
            make_config(
                tmp_path, modules={"model": f"engine_plugins.models.{module}"}, max_model_len=64, max_num_seqs=sequences,
                max_num_batched_tokens=tokens, enforce_eager=plain,
            )
        )  # fmt: skip
        driver = Driver(worker.run, chunk=tokens // sequences)
        for seq in range(sequences):
            driver.add(seq, [(5 * seq + i) % 60 + 2 for i in range(14)], greedy())
        for _ in range(20):
            driver.step(list(driver.tracks))
        found[plain] = [track.tokens for track in driver.tracks.values()]
        if not plain:
            assert worker._runner._ragged
            assert worker._runner.ragged_plain == ""
    assert found[True] == found[False]
