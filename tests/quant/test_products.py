"""Every method's products, by the reference in float32 and by the CPU's own kernels in bfloat16, against the dequantized weights."""

from __future__ import annotations

import pytest
import torch

from tests.quant.checkpoints import layers_of
from tests.quant.products import errors_of
from tests.quant.subjects import SUBJECTS, source


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("products")
    return {mixture: source(root / str(mixture), mixture) for mixture in (False, True)}


@pytest.mark.parametrize("subject", SUBJECTS, ids=[subject.name for subject in SUBJECTS])
def test_products_are_near_those_of_the_dequantized_weights(subject, sources, tmp_path):
    subject.write(tmp_path / "q", sources[subject.mixture])
    plain = layers_of(tmp_path / "q", **subject.flags)
    assert errors_of(plain, plain, torch.float32).largest <= 1e-5
    same = layers_of(tmp_path / "q", dtype="bfloat16", **subject.flags)
    native = layers_of(tmp_path / "q", native=True, dtype="bfloat16", **subject.flags)
    assert errors_of(same, native, torch.bfloat16).largest <= 2e-2
