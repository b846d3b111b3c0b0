"""Other programs read what is written: transformers with compressed-tensors and bitsandbytes, the gguf package; blocks bit for bit."""

from __future__ import annotations

import json

import pytest
import torch

from tests.gguf.test_families import source
from tests.quant.checkpoints import PROMPTS, logits_of, tensors_of, tiny_llama, tiny_qwen3_moe, worst
from tests.quantize.runs import plain, quantize


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def transformers_logits(path, **given):
    """Of the checkpoint as it is, loaded by transformers."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, **given).eval()
    with torch.inference_mode():
        return [model(torch.tensor([ids]), use_cache=False).logits[0].float() for ids in PROMPTS]


@pytest.mark.parametrize("method", ["int4", "int8", "nf4", "fp8"])
def test_transformers_loads_it(method, tmp_path):
    for library in ("bitsandbytes", "accelerate") if method == "nf4" else ("compressed_tensors",):
        pytest.importorskip(library)
    tiny_llama(tmp_path / "source")
    flags = ("--method-config", '{"compute": "float32"}') if method == "nf4" else ()
    plain(tmp_path / "source", tmp_path / "out", method, "--no-include-head", *flags)
    wanted = transformers_logits(tmp_path / "out", dtype=torch.float32)
    # Rounding activations to 8 bits may fall to either side, and bitsandbytes multiplies in fewer bits on a CPU.
    assert worst(logits_of(tmp_path / "out"), wanted) < (2e-2 if method in ("fp8", "nf4") else 1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["int4", "int8", "nf4", "fp8"])
def test_transformers_refuses_a_quantized_embedding(method, tied, tmp_path):
    """It takes no bytes of it for numbers, which the report's note says."""
    for library in ("bitsandbytes", "accelerate") if method == "nf4" else ("compressed_tensors",):
        pytest.importorskip(library)
    tiny_llama(tmp_path / "source", tie_word_embeddings=tied)
    report = plain(tmp_path / "source", tmp_path / "out", method)
    assert "transformers 5 refuses" in report["warnings"][0]
    with pytest.raises((RuntimeError, AttributeError)):
        transformers_logits(tmp_path / "out", dtype=torch.float32)


@pytest.mark.parametrize("method", ["int4", "int8"])
def test_the_words_are_the_librarys(method, tmp_path):
    compressors = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    tiny_llama(tmp_path / "source", dtype=torch.bfloat16)
    plain(tmp_path / "source", tmp_path / "out", method)
    tensors = tensors_of(tmp_path / "out")
    for name in [name for name in tensors if name.endswith("weight_packed")]:
        shape = torch.Size(tensors[name.replace("packed", "shape")].tolist())
        bits = 8 if "embed" in name or "lm_head" in name else int(method[3])
        values = compressors.unpack_from_int32(tensors[name], bits, shape)
        assert torch.equal(compressors.pack_to_int32(values, bits), tensors[name])
        assert tensors[name.replace("packed", "scale")].dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_ggufs_bit_for_bit(kind, dtype):
    quants = pytest.importorskip("gguf.quants")
    from gguf.constants import GGMLQuantizationType

    from engine_plugins.producers._gguf_blocks import blocks_of

    weight = (torch.randn(96, 256) * 0.05).to(dtype)
    weight[3, :64] = 0
    weight[4] = weight[4].abs()
    weight[5] *= 1e-7
    wanted = quants.quantize(weight.float().numpy(), GGMLQuantizationType[kind])
    made = blocks_of(kind, weight)
    assert torch.equal(made.rows, torch.from_numpy(wanted.copy()))
    meant = torch.from_numpy(quants.dequantize(wanted, GGMLQuantizationType[kind]).copy())
    assert torch.equal(made.dequantize(torch.float32), meant)


@pytest.mark.parametrize("name", ["llama, tied and biased", "qwen3moe"])
def test_the_gguf_package_reads_the_file(name, tmp_path):
    gguf = pytest.importorskip("gguf")
    source(tmp_path / "source", name)
    plain(tmp_path / "source", tmp_path / "out", "gguf_q8_0")
    reader = gguf.GGUFReader(tmp_path / "out" / "model-Q8_0.gguf")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert ("output.weight" in tensors) == (name == "qwen3moe")
    norm, original = tensors["output_norm.weight"], tensors_of(tmp_path / "source")["model.norm.weight"]
    assert torch.equal(torch.from_numpy(norm.data.copy()), original.float())
    assert tensors["token_embd.weight"].tensor_type == gguf.GGMLQuantizationType.Q8_0
    if name == "qwen3moe":
        assert tensors["blk.0.ffn_gate_exps.weight"].shape.tolist() == [256, 256, 4]
        assert tensors["blk.0.ffn_gate_inp.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    field = reader.get_field("general.file_type")
    assert field is not None and field.contents() == 7


def test_the_search_lowers_the_error(tmp_path):
    tiny_llama(tmp_path / "source", dtype=torch.bfloat16)
    best = plain(tmp_path / "source", tmp_path / "best", "int4")
    nearest = plain(tmp_path / "source", tmp_path / "nearest", "int4", "--method-config", '{"search": false}')
    assert best["rms_error"] < 0.95 * nearest["rms_error"]


def test_experts_in_one_tensor_are_taken_apart(tmp_path):
    from safetensors.torch import save_file

    tiny_qwen3_moe(tmp_path / "apart", dtype=torch.bfloat16)
    tensors = tensors_of(tmp_path / "apart")
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp.experts"
        taken = {part: [tensors.pop(f"{prefix}.{e}.{part}_proj.weight") for e in range(4)] for part in ("gate", "up", "down")}
        pairs = zip(taken["gate"], taken["up"], strict=True)
        tensors[f"{prefix}.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in pairs])
        tensors[f"{prefix}.down_proj"] = torch.stack(taken["down"])
    (tmp_path / "whole").mkdir()
    save_file(tensors, tmp_path / "whole" / "model.safetensors", {"format": "pt"})
    (tmp_path / "whole" / "config.json").write_bytes((tmp_path / "apart" / "config.json").read_bytes())
    for method in ("int8", "gguf_q8_0"):
        for which in ("apart", "whole"):
            plain(tmp_path / which, tmp_path / f"{which}-{method}", method)
        first, second = (logits_of(tmp_path / f"{which}-{method}") for which in ("apart", "whole"))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_files_of_limited_size_with_an_index(tmp_path):
    tiny_llama(tmp_path / "source", dtype=torch.bfloat16)
    plain(tmp_path / "source", tmp_path / "one", "int8")
    plain(tmp_path / "source", tmp_path / "many", "int8", "--max-file-size", "0.0001")
    files = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    one, many = tensors_of(tmp_path / "one"), tensors_of(tmp_path / "many")
    assert one.keys() == many.keys() == index["weight_map"].keys()
    assert all(torch.equal(one[name].view(torch.uint8), many[name].view(torch.uint8)) for name in one)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in many.values())
    assert worst(logits_of(tmp_path / "many"), logits_of(tmp_path / "one")) == 0


def test_tensors_of_odd_lengths_leave_others_aligned(tmp_path):
    from safetensors import safe_open

    from engine.quantize.output import SafetensorsOutput

    output = SafetensorsOutput(tmp_path, 1 << 30, 4000)
    made = {"a": torch.arange(3, dtype=torch.uint8), "b": torch.randn(4, 4), "c": torch.randn(3).half(), "d": torch.randn(5, 8).bfloat16(),
            "e": torch.tensor(7), "f": torch.zeros(0, 4), "g": torch.randn(3)}  # fmt: skip
    for name, tensor in made.items():
        output.add(name, tensor)
    output.finish()
    raw = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    assert (size + 8) % 512 == 0
    for name, entry in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % made[name].element_size() == 0, name
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in made.items())


def test_what_is_ignored_stays_as_it_was(tmp_path):
    tiny_llama(tmp_path / "source", dtype=torch.bfloat16)
    ignored = ("--ignore", "*.down_proj", "--ignore", "model.layers.1")
    report = plain(tmp_path / "source", tmp_path / "out", "int4", *ignored, "--group-size", "32", "--no-include-head")
    before, after = tensors_of(tmp_path / "source"), tensors_of(tmp_path / "out")
    kept = [name for name in before if "down_proj" in name or ".layers.1." in name or "norm" in name or "embed" in name]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    assert report["quantized"] == 6
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert {"lm_head", "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"} <= set(config["ignore"])
    assert config["config_groups"]["group_0"]["weights"]["group_size"] == 32
    assert "model.layers.0.mlp.up_proj" not in config["ignore"]


def test_the_vocabulary_of_a_known_split_is_in_the_file(tmp_path):
    """A tokenizer.json with GPT-2's split comes back from the GGUF file alone, with its template."""
    from engine.plugin import Checkpoint
    from engine_plugins.tokenizers import auto
    from tests.gguf.test_tokenizer import TEXTS

    tiny_llama(tmp_path / "source", dtype=torch.bfloat16, vocab_size=2048)
    import engine.bundled

    demo = type(tmp_path)(engine.bundled.__path__[0]) / "demo"
    vocabulary = json.loads((demo / "tokenizer.json").read_text())
    vocabulary["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (tmp_path / "source" / "tokenizer.json").write_text(json.dumps(vocabulary))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "source" / name).write_bytes((demo / name).read_bytes())
    report = quantize(tmp_path / "source", tmp_path / "out", "gguf_q4_0", "--no-perplexity")
    assert report["warnings"] == []
    alone = tmp_path / "alone" / "m.gguf"
    alone.parent.mkdir()
    (tmp_path / "out" / "model-Q4_0.gguf").rename(alone)

    def opened(path, folder):
        return auto.engine_create_tokenizer(Checkpoint(str(path), str(path), str(folder), str(folder)))

    from engine.plugin import Use

    wanted, made = opened(tmp_path / "source", tmp_path / "source"), opened(alone, alone.parent)
    assert not isinstance(made, Use)
    if isinstance(wanted, Use):
        from engine_plugins.tokenizers._fast import FastTokenizer

        wanted = FastTokenizer(tmp_path / "source")
    for text in TEXTS:
        assert made.encode(text) == wanted.encode(text), text
    assert made.chat_template() == wanted.chat_template()
    assert (made.eos_token_id, made.special_ids()) == (wanted.eos_token_id, wanted.special_ids())
