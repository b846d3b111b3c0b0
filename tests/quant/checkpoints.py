"""Tiny checkpoints to quantize, the engine's logits of them, and transformers' logits of the same weights made dense."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.plugins.models.checkpoints import randomize
from tests.plugins.models.harness import Alone, Player, Rank, Sequence, Threads

VOCAB = 160
PROMPTS = ([5, 17, 99, 3], [140, 8, 61, 77, 12, 9, 1, 33, 150])
#: What one linear layer becomes: tensors by suffix, and the weight that they stand for (float32 [outputs, inputs]).
Quantized = tuple[Mapping[str, Tensor], Tensor]
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 256, "tie_word_embeddings": False,
}  # fmt: skip


def tiny_llama(path: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A random Llama of transformers (hidden 128, intermediate 256, 2 layers), saved in ``dtype``; ``changes``: config keys."""
    from transformers import LlamaConfig

    return _save(LlamaConfig(**(SIZES | changes)), path, dtype)


def tiny_mixtral(path: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A random Mixtral of four experts, two of them per token."""
    from transformers import MixtralConfig

    sizes = SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}
    return _save(MixtralConfig(**(sizes | changes)), path, dtype)


def tiny_qwen3_moe(path: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A random Qwen3-MoE of four experts of 128, two of them per token."""
    from transformers import Qwen3MoeConfig

    sizes = SIZES | {"moe_intermediate_size": 128, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True}
    return _save(Qwen3MoeConfig(**(sizes | changes)), path, dtype)


def _save(config: Any, path: Path, dtype: torch.dtype) -> Path:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config).eval()
    randomize(model)
    model.to(dtype).save_pretrained(path)
    return path


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Every tensor of a saved checkpoint."""
    return {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def is_linear(name: str) -> bool:
    """Whether a checkpoint tensor is the weight of a linear layer inside a block (no router, no embedding, no head)."""
    return re.search(r"(_proj|\.w[123])\.weight$", name) is not None


def write_quantized(
    path: Path, source: Path, tensors_for_linear: Callable[[str, Tensor], Quantized | None], quantization_config: dict[str, Any] | None,
    *, linear: Callable[[str], bool] = is_linear, side_files: Mapping[str, Any] | None = None, dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Write ``source`` with its linear weights replaced; returns the dense weight of each replaced tensor by its old name.

    ``tensors_for_linear(layer name, float32 weight)`` answers the layer's tensors by suffix with the weight that they mean, or
    None to leave it as it is. ``quantization_config`` None: nothing is written to config.json. ``side_files``: JSON files.
    ``dtype``: that of the tensors that stay as they are (None: unchanged).
    """
    dense: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors_of(source).items():
        made = tensors_for_linear(name.removesuffix(".weight"), tensor.float()) if linear(name) else None
        if made is None:
            kept[name] = tensor if dtype is None else tensor.to(dtype)
            continue
        tensors, dense[name] = made
        kept |= {f"{name.removesuffix('weight')}{suffix}": value.contiguous() for suffix, value in tensors.items()}
    path.mkdir(parents=True, exist_ok=True)
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    if quantization_config is not None:
        config["quantization_config"] = quantization_config
    for file, content in ({"config.json": config} | dict(side_files or {})).items():
        (path / file).write_text(json.dumps(content))
    return dense


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Damage a checkpoint: ``change`` edits its tensors in place, they are written again."""
    tensors = tensors_of(path)
    change(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})


def logits_of_transformers(
    source: Path, dense: Mapping[str, Tensor], scratch: Path, prompts: tuple[list[int], ...] = PROMPTS,
    rounding: Callable[[str, Tensor], Tensor] | None = None,
) -> list[Tensor]:  # fmt: skip
    """Transformers' float32 logits [tokens, vocab] of each prompt, by ``source`` with those weights in place of its own.

    ``rounding(layer name, x)``: what becomes of the activations of the layers that those weights belong to.
    """
    from transformers import AutoModelForCausalLM

    folder = scratch / "dense"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: dense.get(name, t).float().contiguous() for name, t in tensors_of(source).items()}, folder / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    shutil.copy(source / "config.json", folder / "config.json")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for name, layer in model.named_modules():
        if rounding is not None and f"{name}.weight" in dense:
            layer.register_forward_pre_hook(lambda _, inputs, name=name: (rounding(name, inputs[0]),))
    with torch.inference_mode():
        return [model(torch.tensor([ids]), use_cache=False).logits[0] for ids in prompts]


def logits_of(
    path: Path, prompts: tuple[list[int], ...] = PROMPTS, *, native: bool = False, ranks: int = 1, **flags: Any
) -> list[Tensor]:  # fmt: skip
    """The engine's float32 logits [tokens, vocab] of each prompt: flags resolved, plugins loaded, one forward pass of the network.

    ``native``: the CPU device's kernels, else the reference's. ``ranks``: tensor-parallel ranks, as threads. ``flags``: of the engine;
    ``dtype`` is float32 unless given.
    """
    if ranks == 1:
        return _rank_logits(path, prompts, native, Alone(), flags)
    group = Threads(ranks)
    results: list[Any] = [None] * ranks
    failures: list[BaseException] = []

    def work(rank: int) -> None:
        try:
            results[rank] = _rank_logits(path, prompts, native, Rank(group, rank, ranks), flags)
        except BaseException as error:  # noqa: BLE001 - raised again by the test's own thread
            failures.append(error)
            group.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    for mine, others in zip(results[0], results[1], strict=True):
        assert torch.equal(mine, others)
    return results[0]


def _rank_logits(path: Path, prompts: tuple[list[int], ...], native: bool, parallel: Any, flags: dict[str, Any]) -> list[Tensor]:
    model, context = load_model(path, native=native, parallel=parallel, **flags)
    player = Player(model, context, pages=64, dtype=context.dtype)
    return [player.step([(Sequence(list(ids), 0), len(ids))]).float() for ids in prompts]


def load_model(
    path: Path, *, native: bool = False, parallel: Any = None, watch: Callable[[Any, Any], None] | None = None, **flags: Any
) -> tuple[Any, Any]:  # fmt: skip
    """The finished network of a checkpoint and its context, through ``resolve`` and the chosen plugins.

    ``watch`` is told each packed weight with its kernel.
    """
    from engine.args import EngineArgs
    from engine.args.resolve import resolve
    from engine.attention import built_in
    from engine.plugin import ModelContext
    from engine.worker import build
    from engine.worker.kernels import kernel_of

    size = parallel.size if parallel is not None else 1
    given = {"dtype": "float32", "skip_tokenizer_init": True, "use_tqdm_on_load": False, "device": "cpu"} | flags
    config = resolve(EngineArgs(model=str(path), tensor_parallel_size=size, **given))
    device = build.open_device(config, 0)
    choose = kernel_of(device) if native else reference

    def kernel(packed: Any) -> Any:
        made = choose(packed)
        if watch is not None:
            watch(packed, made)
        return made

    context = ModelContext(
        info=config.model.info, config=config.model.config, dtype=build.torch_dtype(config.model.dtype, "--dtype"),
        device=device.torch_device(), parallel=parallel or Alone(), attention=built_in("cpu"),
        kernel=kernel, quantizer=build.create_quantizer(config),
        checkpoint_path=config.model.checkpoint.path, max_model_len=config.model.max_model_len,
    )  # fmt: skip
    model = build.architecture_of(config).build(context)
    build.load_weights(model, config, context.parallel.rank, None)
    return model, context


def reference(packed: Any) -> Any:
    """The reference kernel, also of weights that are made of others: those round activations."""
    from engine.layers.packed import reference_kernel
    from engine.layers.packed_composite import composite_kernel

    return composite_kernel(packed, reference) or reference_kernel(packed)


def packed_weights(path: Path, **flags: Any) -> dict[str, Any]:
    """What each linear layer (by its name in the model; the head is ``head``) was packed into."""
    return {name: packed for name, (packed, _) in layers_of(path, **flags).items()}


def layers_of(path: Path, **flags: Any) -> dict[str, tuple[Any, Any]]:
    """Packed weight and kernel of each linear layer by its name. With ``native`` a weight's memory may have been given back."""
    held: list[tuple[Any, Any]] = []
    model, _ = load_model(path, watch=lambda packed, kernel: held.append((packed, kernel)), **flags)
    names = {id(module.kernel): name for name, module in model.named_modules() if getattr(module, "kernel", None) is not None}
    return {names[id(kernel)]: (packed, kernel) for packed, kernel in held if id(kernel) in names}


def packed_of(path: Path, layer: str, **flags: Any) -> Any:
    """The packed weight that one layer (its name in the model, ``layers.0.attention.o``…) was loaded into."""
    model, _ = load_model(path, **flags)
    return model.get_submodule(layer).kernel.packed


def worst(got: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference of two lists of logits, relative to the largest logit wanted."""
    return max(float((a.float() - b.float()).abs().max() / b.abs().max()) for a, b in zip(got, wanted, strict=True))
