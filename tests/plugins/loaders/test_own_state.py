"""engine save-sharded and the loaders that read it: the same logits as the checkpoint it came from."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.cli import main
from engine.errors import ConfigError, ModelFileError
from tests.quant.checkpoints import logits_of, tiny_llama, tiny_mixtral

FLAGS = ["--skip-tokenizer-init", "--dtype", "float32", "--device", "cpu"]


def saved(source, out, *more):
    assert main(["save-sharded", str(source), "--out", str(out), *FLAGS, *more]) == 0
    return out


def same(found, wanted, bound=1e-5):
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=bound, rtol=bound)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama"), tie_word_embeddings=True)


@pytest.mark.parametrize("ranks", [1, 2])
def test_round_trip(llama, tmp_path, ranks, capsys):
    out = saved(llama, tmp_path / "out", "-tp", str(ranks), "--max-file-size", "0.0003")
    files = sorted(file.name for file in out.glob("*.safetensors"))
    assert f"model-rank-{ranks - 1}-part-1.safetensors" in files and files[0] in capsys.readouterr().out
    names = {name for file in files for name in load_file(out / file)}
    assert "model.layers.0.self_attn.qkv_proj.weight" in names and "lm_head.weight" not in names
    same(logits_of(out, ranks=ranks, load_format="sharded_state"), logits_of(llama, ranks=ranks))


def test_native_kernels_read_it_too(llama, tmp_path):
    out = saved(llama, tmp_path / "out")
    same(logits_of(out, native=True, load_format="sharded_state"), logits_of(llama, native=True))


def test_experts(tmp_path):
    source = tiny_mixtral(tmp_path / "in")
    out = saved(source, tmp_path / "out", "-tp", "2")
    same(logits_of(out, ranks=2, load_format="sharded_state"), logits_of(source, ranks=2))


def test_auto_knows_it(llama, tmp_path):
    out = saved(llama, tmp_path / "out")
    same(logits_of(out), logits_of(out, load_format="sharded_state"), 0)


def test_another_number_of_ranks(llama, tmp_path):
    out = saved(llama, tmp_path / "out", "-tp", "2")
    with pytest.raises(ModelFileError, match="saved for 2 ranks, not for --tensor-parallel-size 1"):
        logits_of(out, load_format="sharded_state")
    (out / "model-rank-0-part-0.safetensors").unlink()
    with pytest.raises(ModelFileError, match="one is missing"):
        logits_of(out, ranks=2, load_format="sharded_state")


def change(out, edit):
    file = out / "model-rank-0-part-0.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


QKV, NORM, EMBED = "model.layers.0.self_attn.qkv_proj.weight", "model.norm.weight", "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("edit", "shown"),
    [
        (lambda t: t.pop(QKV), r"lacks 1 layers: model\.layers\.0\.self_attn\.qkv_proj"),
        (lambda t: t.update({"model.layers.9.x.weight": torch.zeros(1)}), r"'model\.layers\.9\.x\.weight' that belongs to no layer"),
        (lambda t: t.update({QKV: torch.zeros(999, 128)}), r"has shape \[999, 128\], but its layer has \[256, 128\]"),
        (lambda t: t.update({f"{NORM}x": torch.zeros(1)}), "for which 'model.norm' has no place"),
        (lambda t: t.update({"engine.layouts": torch.zeros(3, dtype=torch.uint8)}), "is no JSON object"),
    ],
)
def test_states_that_do_not_fit(llama, tmp_path, edit, shown):
    out = saved(llama, tmp_path / "out")
    change(out, edit)
    with pytest.raises(ModelFileError, match=shown):
        logits_of(out, load_format="sharded_state")


def test_smaller_tensors_fill_the_leading_part_and_padding_is_cut(llama, tmp_path):
    out = saved(llama, tmp_path / "out")
    wanted = logits_of(out, load_format="sharded_state")
    change(out, lambda t: t.update({EMBED: torch.cat([t[EMBED], torch.ones(32, 128)])}))
    same(logits_of(out, load_format="sharded_state"), wanted)
    change(out, lambda t: t.update({NORM: t[NORM][:100].clone()}))
    logits_of(out, load_format="sharded_state")


def test_options(llama, tmp_path):
    out = saved(llama, tmp_path / "out")
    (out / "model-rank-0-part-0.safetensors").rename(out / "r0p0.safetensors")
    with pytest.raises(ModelFileError, match="no file like model-rank"):
        logits_of(out, load_format="sharded_state")
    good = {"pattern": "r{rank}p{part}.safetensors"}
    logits_of(out, load_format="sharded_state", model_loader_extra_config=good)
    for options in ({"pattern": "x"}, {"patterns": "x"}, {"pattern": "../r{rank}p{part}"}):
        with pytest.raises(ConfigError, match="pattern"):
            logits_of(out, load_format="sharded_state", model_loader_extra_config=options)


def test_the_command_refuses(llama, tmp_path, capsys):
    assert main(["save-sharded", str(llama), *FLAGS]) == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert main(["save-sharded", str(llama), "--out", str(tmp_path / "full"), *FLAGS]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["save-sharded", str(llama), "--out", str(tmp_path / "full" / "x"), *FLAGS]) == 2
    assert "x cannot be written: " in capsys.readouterr().err


def test_side_files_come_along(llama, tmp_path):
    (llama / "generation_config.json").write_text("{}")
    out = saved(llama, tmp_path / "out")
    assert json.loads((out / "config.json").read_text()) == json.loads((llama / "config.json").read_text())
    assert (out / "generation_config.json").exists() and not (out / "model.safetensors").exists()


def layouts():
    """One packed weight of every canonical layout that can be saved."""
    from engine.layers import packed_additive, packed_codebook, packed_composite, packed_float8, packed_integer, packed_shared
    from engine.layers.packed import DensePacked
    from engine.layers.rounding import ActivationRounding

    torch.manual_seed(3)
    weight = torch.randn(16, 64)
    integers = packed_integer.GroupedInteger.quantize(weight, bits=4, group=32)
    floats = packed_float8.ScaledFloat8.quantize(weight, rows=1)
    codes = packed_codebook.Codebook.of(
        torch.randint(0, 16, (16, 64), dtype=torch.uint8), torch.randn(16), torch.rand(16, 2), bits=4, group=32, outer=torch.rand(16)
    )
    yield DensePacked(weight)
    yield integers
    yield packed_integer.GroupedInteger.quantize(weight, bits=3, group=64, asymmetric=True)
    yield floats
    yield codes
    yield packed_composite.Permuted(integers, torch.randperm(64))
    yield packed_composite.Joined([integers, floats, codes])
    yield packed_composite.RoundedInputs(floats, ActivationRounding("float8_e4m3fn", scale=torch.tensor(0.5)))
    yield packed_composite.RoundedInputs(floats, ActivationRounding("e2m1", group=16, scale_dtype=torch.float8_e4m3fn))
    yield packed_shared.SharedScales.of(
        torch.randint(0, 8, (16, 64), dtype=torch.uint8), torch.rand(2, 64), torch.rand(2, 64).half(), torch.arange(16).int() % 2, bits=3
    )
    yield packed_additive.AdditiveCodebooks(
        torch.randint(0, 255, (16, 8, 2), dtype=torch.uint8), torch.randn(2, 256, 1, 8), torch.rand(16)
    )


def test_every_layout_comes_back(tmp_path):
    from engine.layers.state_layout import rebuild, take_apart

    for packed in layouts():
        layout, tensors = take_apart(packed, "layer")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "t.safetensors")
        again, used = rebuild(json.loads(json.dumps(layout)), load_file(tmp_path / "t.safetensors"), "layer", torch.device("cpu"))
        assert used == set(tensors) and type(again) is type(packed) and again.nbytes() == packed.nbytes()
        torch.testing.assert_close(again.dequantize(torch.float32), packed.dequantize(torch.float32), atol=0, rtol=0)


@pytest.mark.parametrize(
    "layout", [{"class": "os"}, {"class": "GroupedInteger"}, [1], {}, {"tensor": "x"}, {"class": "Joined", "parts": []}]
)
def test_layouts_that_are_none(layout):
    from engine.layers.state_layout import rebuild

    with pytest.raises(ModelFileError, match="'layer'"):
        rebuild(layout, {}, "layer", torch.device("cpu"))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e35])
def test_numbers_that_no_saved_weight_holds(number):
    from engine.layers.state_layout import rebuild, take_apart

    seen = 0
    for packed in layouts():
        layout, tensors = take_apart(packed, "layer")
        name = next((name for name in tensors if name.endswith(("scale", "scales")) and tensors[name].dtype == torch.float32), None)
        if name is not None:
            tensors[name] = tensors[name].clone()
            tensors[name].view(-1)[-1] = number
            with pytest.raises(ModelFileError, match="'layer' cannot be rebuilt: .*holds the number"):
                rebuild(layout, tensors, "layer", torch.device("cpu"))
            seen += 1
    assert seen > 2


@pytest.mark.parametrize("name", ["ct_W4A16", "q_awq", "q_bnb_nf4", "ct_FP8_BLOCK"])
def test_quantized_checkpoints(tmp_path, name):
    from tests.data import shared

    source = shared(f"checkpoints/{name}")
    out = saved(source, tmp_path / "out")
    assert any("engine.layouts" in load_file(file) for file in out.glob("*.safetensors"))
    same(logits_of(out, load_format="sharded_state"), logits_of(source), bound=1e-4)
