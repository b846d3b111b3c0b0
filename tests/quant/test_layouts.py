"""What a method says its weights become, by which the plan knows kernels and bytes, is what they become."""

from __future__ import annotations

import gc

import pytest
import torch

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.report import examine
from engine.worker import build
from engine.worker.kernels import leaves
from tests.quant.cases import CASES
from tests.quant.checkpoints import load_model, packed_weights, tiny_llama
from tests.quant.subjects import SUBJECTS, source

#: One of each scheme: a name, what writes it, and the engine's flags.
SAYING = [(case.name, lambda folder, case=case: case.make(folder).path, case.flags) for case in CASES if not case.needs]
SAYING += [
    (f"damaged: {subject.name}", lambda folder, subject=subject: _written(folder, subject), subject.flags) for subject in SUBJECTS
]  # fmt: skip


def _written(folder, subject):
    subject.write(folder / "q", source(folder / "plain", subject.mixture))
    return folder / "q"


def arguments(path, **flags):
    return EngineArgs(model=str(path), dtype="bfloat16", skip_tokenizer_init=True, device="cpu", **flags)


def report(path, **flags):
    """What ``engine plan`` says."""
    found, error = examine(arguments(path, **flags))
    assert error is None
    return found


def spelled(leaf):
    if leaf.layout == "blocks":
        return f"blocks {leaf.kind.name}"
    return f"{leaf.layout} {leaf.bits}" if hasattr(leaf, "bits") else leaf.layout


@pytest.mark.parametrize(("name", "write", "flags"), SAYING, ids=[each[0] for each in SAYING])
def test_layouts_are_those_of_the_packed_weights(name, write, flags, tmp_path):
    path = write(tmp_path)
    said = set(build.create_quantizer(resolve(arguments(path, **flags))).layouts())
    found = {leaf for packed in packed_weights(path, **flags).values() for leaf in leaves(packed) if leaf.layout != "dense"}
    assert said == {spelled(leaf) for leaf in found}


def test_layouts_of_gguf(tmp_path):
    pytest.importorskip("gguf")
    from tests.gguf.producer import write_gguf

    place = tiny_llama(tmp_path / "source", hidden_size=256, intermediate_size=512, head_dim=64)
    kinds = {"attn_q": "Q6_K", "attn_k": "Q4_0", "ffn_up": "IQ4_XS", "ffn_down": "IQ2_XS"}
    write_gguf(tmp_path / "file" / "m.gguf", place, "llama", lambda name: next((kinds[k] for k in kinds if k in name), "F32"))
    said = set(build.create_quantizer(resolve(arguments(tmp_path / "file" / "m.gguf"))).layouts())
    assert said == {"blocks q6_k", "grouped_int 4", "codebook 4", "blocks iq2_xs"}
    found = {leaf for packed in packed_weights(tmp_path / "file" / "m.gguf").values() for leaf in leaves(packed)}
    assert said == {spelled(leaf) for leaf in found if leaf.layout != "dense"}
    kernels = report(tmp_path / "file" / "m.gguf")["quantization"]["kernels"]
    assert kernels["blocks q6_k"].startswith("a kernel") and kernels["blocks iq2_xs"].startswith("none")


#: Sizes at which what is held once per layer weighs little.
SIZES = {"hidden_size": 512, "intermediate_size": 1024, "head_dim": 128, "num_key_value_heads": 4, "vocab_size": 2048}


def held(path, **flags):
    """Bytes of all tensors that a model has made once it is loaded, by the CPU's own kernels."""
    others = _tensors()  # kept while the model loads: the memory of one that goes would become the model's
    before = _storages(others)
    model, _ = load_model(path, native=True, dtype="bfloat16", **flags)
    after = _storages(_tensors())
    assert model is not None
    return sum(size for place, size in after.items() if place not in before)


def _tensors():
    """Every tensor there is."""
    gc.collect()
    return [each for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]


def _storages(tensors):
    """Bytes of their memory, by address."""
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}


PLANNED = [subject for subject in SUBJECTS if not subject.mixture]


@pytest.mark.parametrize("subject", PLANNED, ids=[subject.name for subject in PLANNED])
def test_planned_bytes_are_those_in_memory(subject, tmp_path):
    subject.write(tmp_path / "q", tiny_llama(tmp_path / "plain", **SIZES))
    planned = report(tmp_path / "q", **subject.flags)["weights"]["bytes"]
    found = held(tmp_path / "q", **subject.flags)
    assert 0.95 <= found / planned <= 1.02


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_1", "Q8_0", "TQ1_0", "IQ4_XS", "MXFP4", "Q2_K", "Q4_K", "Q5_K", "Q6_K", "IQ3_S"])
def test_planned_bytes_of_gguf(kind, tmp_path):
    pytest.importorskip("gguf")
    from tests.gguf.producer import write_gguf

    place = tiny_llama(tmp_path / "source", **SIZES)
    write_gguf(tmp_path / "file" / "m.gguf", place, "llama", lambda name: kind if "blk" in name else "F32")
    path = tmp_path / "file" / "m.gguf"
    assert 0.95 <= held(path) / report(path)["weights"]["bytes"] <= 1.02
