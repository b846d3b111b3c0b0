"""The helpers themselves: unquantized checkpoints give transformers' logits."""

from __future__ import annotations

import pytest

from tests.quant import checkpoints


@pytest.mark.parametrize("family", ["tiny_llama", "tiny_mixtral", "tiny_qwen3_moe"])
def test_plain_weights_give_the_logits_of_transformers(family, tmp_path):
    source = getattr(checkpoints, family)(tmp_path / "source")
    wanted = checkpoints.logits_of_transformers(source, {}, tmp_path)
    assert checkpoints.worst(checkpoints.logits_of(source), wanted) < 1e-5
    assert checkpoints.worst(checkpoints.logits_of(source, ranks=2), wanted) < 1e-5
    assert checkpoints.worst(checkpoints.logits_of(source, native=True, dtype="bfloat16"), wanted) < 2e-2


def test_replaced_weights_show_in_the_logits(tmp_path):
    source = checkpoints.tiny_llama(tmp_path / "source")
    copy = tmp_path / "copy"
    dense = checkpoints.write_quantized(copy, source, lambda name, weight: ({"weight": 2 * weight}, 2 * weight), None)
    assert len(dense) == 14
    wanted = checkpoints.logits_of_transformers(source, dense, tmp_path)
    assert checkpoints.worst(checkpoints.logits_of(copy), wanted) < 1e-5
    assert checkpoints.worst(checkpoints.logits_of(source), wanted) > 1e-2
