"""Names of KV-cache scales in checkpoints, and what attention layers make of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from engine.attention import built_in
from engine.errors import ModelFileError
from engine.layers.attention import Attention
from engine.layers.kv_scales import KVScales
from engine.plugin import AttentionSpec, ModelInfo
from tests.core.layers.harness import context

LAYER = "model.layers.3.self_attn"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({f"{LAYER}.k_scale": 0.5, f"{LAYER}.v_scale": 2.0}, {"k_scale": 0.5, "v_scale": 2.0}),
        ({f"{LAYER}.attn.k_scale": 0.5, f"{LAYER}.attn.v_scale": 2.0}, {"k_scale": 0.5, "v_scale": 2.0}),
        ({f"{LAYER}.k_proj.k_scale": 0.5, f"{LAYER}.v_proj.v_scale": 2.0}, {"k_scale": 0.5, "v_scale": 2.0}),
        ({f"{LAYER}.k_proj.output_scale": 0.5, f"{LAYER}.v_proj.output_scale": 2.0}, {"k_scale": 0.5, "v_scale": 2.0}),
        ({f"{LAYER}.kv_scale": 0.25}, {"k_scale": 0.25, "v_scale": 0.25}),
        ({f"{LAYER}.q_scale": 3.0, f"{LAYER}.prob_scale": 1.0, f"{LAYER}.k_scale": -1.0}, {"k_scale": 1.0}),
        ({f"{LAYER}.cache.keys": 0.5}, {"k_scale": 0.5}),
    ],
)  # fmt: skip
def test_names(names, found):
    scales = KVScales({".cache.keys": "k_scale"})
    weight = (f"{LAYER}.k_proj.weight", torch.ones(2, 2))
    left = list(scales.filtered([*((name, torch.tensor(value)) for name, value in names.items()), weight]))
    assert [name for name, _ in left] == [weight[0]]
    assert scales.found == {3: found}


@pytest.mark.parametrize("value", [torch.tensor(0.0), torch.tensor(float("nan")), torch.ones(2), torch.tensor(3)])
def test_what_is_no_scale_is_refused(value):
    with pytest.raises(ModelFileError, match=r"layers\.3\.self_attn\.v_scale"):
        list(KVScales().filtered([(f"{LAYER}.v_scale", value)]))


def test_the_first_step_calibrates():
    spec = AttentionSpec(2, 1, 16, 0.25)
    layer = Attention(dataclasses.replace(context(), info=ModelInfo("Test", 10, 8, (spec,), 64), attention=built_in("cpu")), 0)
    seen = []

    class Backend:
        def attend(self, q, k, v, cache, batch, spec, sinks):
            seen.append((spec.k_scale, spec.v_scale))
            return q

    class Step:
        caches, attention, wanted = [None], None, None

    layer.backend, layer.calibrates = Backend(), True
    q, k, v = torch.ones(3, 2, 16), torch.full((3, 1, 16), -50.0), torch.full((3, 1, 16), 20.0)
    layer(q, k, v, Step())
    layer(q, k * 9, v * 9, Step())
    assert seen == [(0.25, 0.2), (0.25, 0.2)]
    layer.calibrates = True
    layer(q, k * 0, v * torch.inf, Step())
    assert seen[-1] == (1.0, 1.0)
