"""The bundled model through every method: what the report says, and that it answers as before."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from engine.cli import main
from tests.quantize.runs import quantize

#: Each measurement starts two engines.
MEASURED = ("int4", "gguf_q8_0")
METHODS = ("int4", "int8", "fp8", "nf4", "gguf_q8_0", "gguf_q4_0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Method → (folder, report), each made once, with its perplexity."""
    held = {}

    def make(method):
        if method not in held:
            out = tmp_path_factory.mktemp("made") / method
            held[method] = out, quantize("demo", out, method, *([] if method in MEASURED else ["--no-perplexity"]))
        return held[method]

    return make


@pytest.mark.parametrize("method", METHODS)
def test_the_report(method, made):
    if method == "nf4":
        pytest.importorskip("bitsandbytes")
    out, report = made(method)
    assert report["bytes_before"] == 10_493_952
    ratio = report["bytes_after"] / report["bytes_before"]
    assert ratio < (0.32 if method in ("int4", "nf4", "gguf_q4_0") else 0.54)
    eight = method in ("int8", "fp8", "gguf_q8_0")
    assert 0.002 < report["rms_error"] < (0.03 if eight else 0.12)
    if method not in MEASURED:
        assert report["perplexity_after"] is None
    else:
        check_perplexity(report, 0.03 if eight else 0.1)
    assert (out / "tokenizer.json").exists() and (out / "chat_template.jinja").exists() and (out / "generation_config.json").exists()
    assert (out / "config.json").exists() != method.startswith("gguf")


def check_perplexity(report, most):
    assert report["tokens"] > 1500
    assert 1.1 < report["perplexity_before"] < 1.6
    assert abs(report["perplexity_after"] / report["perplexity_before"] - 1) < most


def exact(model, samples):
    """Share of answers whose every token has the highest logit."""
    from tests.plugins.models.harness import Player, Sequence
    from tests.quant.checkpoints import load_model

    network, context = load_model(model, native=True, dtype="bfloat16")
    right = 0
    for start in range(0, len(samples), 16):
        batch = samples[start : start + 16]
        player = Player(network, context, pages=1 + sum(len(ids) // 4 + 1 for ids, _ in batch), dtype=context.dtype)
        logits = player.step([(Sequence(list(ids), 0), len(ids)) for ids, _ in batch]).float()
        for (ids, mask), rows in zip(batch, logits.split([len(ids) for ids, _ in batch]), strict=True):
            best = rows.argmax(-1).tolist()
            right += all(best[place - 1] == ids[place] for place in range(1, len(ids)) if mask[place])
    return right / len(samples)


@pytest.mark.parametrize("method", METHODS)
def test_at_most_one_answer_in_a_hundred_is_lost(method, made):
    if method == "nf4":
        pytest.importorskip("bitsandbytes")
    from tests.quant.demo import SOURCE, questions

    samples = questions()
    assert exact(made(method)[0], samples) >= exact(SOURCE, samples) - 0.01


def test_the_served_model_answers(made, engine_server):
    import httpx

    server = engine_server(str(made("gguf_q4_0")[0]))
    name = httpx.get(f"{server.url}/v1/models", timeout=60).json()["data"][0]["id"]
    body = {"model": name, "messages": [{"role": "user", "content": "How much is 12 plus 30?"}], "temperature": 0}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["message"]["content"].endswith("42")


def test_the_table(made, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("What is 3 plus 4? The answer is 7.\n" * 20)
    flags = ("--include-head", "--text", str(text), "--tokens", "100")
    assert main(["quantize", "demo", "--method", "int4", "--out", str(tmp_path / "out"), *flags]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'out'}: demo by int4 (format compressed-tensors, pack-quantized, bits 4, group size 128")
    assert lines[2].split()[:5] == ["weights", "10.49", "MB", "2.71", "MB"]
    assert lines[3].split()[0] == "perplexity"
    assert "quantized   43 matrices; kept as they are: none" in printed
    assert "text        " in printed and "note        The embedding is quantized, which the engine reads" in printed


def test_a_repository_of_the_hub_with_links(tmp_path):
    """Files of the hub's cache are links to blobs; what is written has the contents."""
    from tests.quant.demo import SOURCE

    cache = tmp_path / "cache"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    for file in SOURCE.iterdir():
        (cache / "blobs" / f"hash-of-{file.name}").write_bytes(file.read_bytes())
        (cache / "snapshots" / file.name).symlink_to(f"../blobs/hash-of-{file.name}")
    quantize(cache / "snapshots", tmp_path / "out", "int8", "--no-perplexity")
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (SOURCE / "tokenizer.json").read_bytes()


def test_a_repository_that_is_fetched(tmp_path):
    """MODEL is a hub's name."""
    from tests.hub import environment, serving
    from tests.quant.demo import SOURCE

    files = {file.name: file.read_bytes() for file in SOURCE.iterdir() if file.is_file()}
    with serving(files) as (hub, url):
        command = [sys.executable, "-m", "engine", "quantize", "owner/tiny", "--method", "int4", "--out", str(tmp_path / "out"), "--json"]
        done = subprocess.run([*command, "--no-perplexity"], capture_output=True, text=True, env=environment(tmp_path, url), check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == "owner/tiny" and report["quantized"] == 43
    quantize("demo", tmp_path / "local", "int4", "--no-perplexity")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "local" / "model.safetensors").read_bytes()
    assert any(asked[0].endswith("model.safetensors") for asked in hub.asked)


def test_memory_is_that_of_the_largest_tensor(tmp_path):
    """An embedding of 105 MB, quantized in a process of its own: less than its own size and that of the result beside it."""
    import torch
    from safetensors.torch import save_file

    place = tmp_path / "source"
    place.mkdir()
    vocab, hidden = 102_400, 512
    sizes = {"hidden_size": hidden, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 8, "num_key_value_heads": 8}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "tie_word_embeddings": True,
              "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "dtype": "bfloat16", **sizes}  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    names = [f"model.layers.0.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                   "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")]  # fmt: skip
    norms = ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"]
    tensors = {f"{name}.weight": torch.randn(hidden, hidden).bfloat16() for name in names}
    tensors |= {f"{name}.weight": torch.ones(hidden).bfloat16() for name in norms}
    tensors["model.embed_tokens.weight"] = torch.randn(vocab, hidden).bfloat16()
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    largest = tensors["model.embed_tokens.weight"].nbytes
    del tensors
    alone = _peak(["quantize", "--help"], torch=True)
    argv = ["quantize", str(place), "--method", "int8", "--out", str(tmp_path / "out")]
    peak = _peak([*argv, "--skip-tokenizer-init", "--no-perplexity"])
    assert peak - alone < largest + largest // 2 + (150 << 20)


def _peak(argv, *, torch=False):
    """Largest resident bytes of a process that runs the command."""
    code = f"from engine.cli import main\n{'import torch' if torch else ''}\nassert main({argv!r}) == 0"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    report = f"""import resource, subprocess, sys
subprocess.run([sys.executable, '-c', {code!r}], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, env=environment, check=True)
    return int(done.stdout) << 10
