"""One small checkpoint per quantization method, to be damaged: how it is written, and what of it must be refused when it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.quant import floats, packers, tiles
from tests.quant.cases import AWQ, GPTQ, MARLIN, QQQ
from tests.quant.checkpoints import Quantized, is_linear, tensors_of, tiny_llama, tiny_qwen3_moe, write_quantized

#: The layers whose tensors are damaged: one alone, and one part of a fused layer.
DOWN, KEY = "model.layers.0.mlp.down_proj", "model.layers.0.self_attn.k_proj"
EXPERT = "model.layers.0.mlp.experts.2.down_proj"
#: Sizes that every format's tiles and groups fit.
SIZES: dict[str, Any] = {
    "num_hidden_layers": 1, "hidden_size": 256, "intermediate_size": 256, "num_key_value_heads": 4, "head_dim": 64,
    "tie_word_embeddings": False,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """``pack`` None: a plain checkpoint that the method rounds while loading. ``unused``: suffixes that say nothing that is needed.

    ``optional``: tensors without which there is another meaning, not damage; ``either``: those that another dtype gives one.
    ``files``: side files. ``linear``: the tensors that ``pack`` takes; ``rest`` takes the other linear ones, where it is given.
    """

    method: str
    scheme: str
    pack: Callable[[Tensor], Quantized] | None
    config: dict[str, Any] | None
    flags: dict[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = (DOWN, KEY)
    unused: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    either: frozenset[str] = frozenset()
    files: dict[str, Any] = field(default_factory=dict)
    mixture: bool = False
    linear: Callable[[str], bool] = is_linear
    rest: Callable[[Tensor], Quantized] | None = None

    @property
    def name(self) -> str:
        """What tests call it."""
        return f"{self.method}, {self.scheme}"

    def write(self, path: Path, source: Path) -> None:
        """The sound checkpoint."""
        write_quantized(path, source, self._packed, self.config, side_files=self.files,
                        linear=lambda name: self.linear(name) or is_linear(name))  # fmt: skip

    def _packed(self, layer: str, weight: Tensor) -> Quantized | None:
        pack = self.pack if self.linear(f"{layer}.weight") else self.rest
        return pack(weight) if pack else None

    def suffixes(self, path: Path, layer: str) -> list[str]:
        """The tensors of that layer in the checkpoint."""
        return sorted(name.removeprefix(f"{layer}.") for name in tensors_of(path) if name.startswith(f"{layer}."))


def source(path: Path, mixture: bool) -> Path:
    """The plain model: dense, or with experts."""
    torch.manual_seed(0)
    if mixture:
        return tiny_qwen3_moe(path, num_hidden_layers=1)
    return tiny_llama(path, **SIZES)


def additive(weight: Tensor) -> Quantized:
    """AQLM: two codebooks of 256 vectors of eight."""
    outputs, inputs = weight.shape
    codes = torch.randint(-128, 128, (outputs, inputs // 8, 2)).to(torch.int8)
    books = (torch.randn(2, 256, 1, 8) * weight.std()).half()
    return {"codes": codes, "codebooks": books, "scales": torch.ones(outputs, 1, 1, 1).half()}, weight


def four_bits(weight: Tensor) -> Quantized:
    """bitsandbytes' doubly quantized nf4, from its description; which numbers stand in it does not matter here."""
    import json

    outputs, inputs = weight.shape
    count = weight.numel() // 64
    state = {"quant_type": "nf4", "blocksize": 64, "shape": [outputs, inputs], "dtype": "float32", "nested_blocksize": 256,
             "nested_offset": 0.05, "nested_dtype": "float32"}  # fmt: skip
    tensors = {
        "weight": torch.randint(0, 256, (weight.numel() // 2, 1)).to(torch.uint8),
        "weight.absmax": torch.randint(0, 256, (count,)).to(torch.uint8), "weight.quant_map": torch.linspace(-1, 1, 16),
        "weight.nested_absmax": torch.full((-(-count // 256),), 0.05), "weight.nested_quant_map": torch.linspace(-1, 1, 256),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }  # fmt: skip
    return tensors, weight


def eight_bits(weight: Tensor) -> Quantized:
    """bitsandbytes' int8."""
    made, dense = floats.integer8(weight)
    return {"weight": made["weight"], "SCB": made["weight_scale"] * 127, "weight_format": torch.tensor(0, dtype=torch.uint8)}, dense


def rows_in_a_column(weight: Tensor) -> Quantized:
    """As ``engine quantize --method nf4`` keeps embedding and head: bitsandbytes' int8 in one column."""
    made, dense = eight_bits(weight)
    return {"weight": made["weight"].reshape(-1, 1), "SCB": made["SCB"].reshape(-1)}, dense


def words(weight: Tensor) -> Quantized:
    """compressed-tensors' pack-quantized of 4 bits in groups of 64, with zero points and an order of columns."""
    made, dense = packers.gptq(weight, group=64, symmetric=False, act_order=True, version=2)
    codes = torch.from_numpy(packers.stream(_codes(made["qweight"]).numpy().T.copy(), 4).T.copy())
    zeros = torch.from_numpy(packers.stream(_codes(made["qzeros"].t().contiguous()).numpy().T.copy(), 4).copy())
    return {
        "weight_packed": codes, "weight_scale": made["scales"].t().contiguous(), "weight_zero_point": zeros,
        "weight_g_idx": made["g_idx"], "weight_shape": torch.tensor(list(weight.shape)),
    }, dense  # fmt: skip


def _codes(stored: Tensor) -> Tensor:
    """GPTQ's int32 [n / 8, columns] of 4 bits → [columns, n]."""
    fields = [(stored >> (4 * place)) & 15 for place in range(8)]
    return torch.stack(fields, 1).flatten(0, 1).t().contiguous()


def bitmask(weight: Tensor) -> Quantized:
    """compressed-tensors' 2:4 sparse weights of 8-bit floats."""
    fours = weight.unflatten(1, (-1, 4)).abs()
    order = fours.argsort(-1, descending=True)[..., :2]
    mask = torch.zeros_like(fours).scatter(-1, order, 1.0).flatten(1).bool()
    values, scale, dense = floats.float8(weight * mask, per_output=True)
    kept = values.float()[mask].view(len(weight), -1).to(torch.float8_e4m3fn)
    packed = sum(mask.unflatten(1, (-1, 8))[..., i].to(torch.uint8) << i for i in range(8))
    return {"compressed": kept, "bitmask": packed, "shape": torch.tensor(list(weight.shape)), "weight_scale": scale.unsqueeze(1)}, dense


def scheme(format: str, bits: int, kind: str, inputs: dict[str, Any] | None = None, **weights: Any) -> dict[str, Any]:
    """A quantization_config of compressed-tensors with one group."""
    numbers = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": "channel"} | weights
    group = {"targets": ["Linear"], "weights": numbers, "input_activations": inputs, "output_activations": None, "format": format}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": {"g": group}, "ignore": ["lm_head"]}


SPARSE = {"format": "sparse-24-bitmask", "targets": ["Linear"], "ignore": ["lm_head"]}
STATIC = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "tensor", "dynamic": False}


def _smoothed(weight: Tensor) -> Quantized:
    return floats.nibble_rows(weight, pre_quant_scale=torch.full((weight.shape[1],), 1.5))


def _static8(weight: Tensor) -> Quantized:
    made, dense = floats.integer8(weight, input_scale=torch.tensor([0.05]), input_zero_point=torch.tensor([3], dtype=torch.int8))
    return made | {"weight_scale": made["weight_scale"].unsqueeze(1)}, dense


def _marlin24_names(weight: Tensor) -> Quantized:
    made, dense = tiles.marlin_24(weight)
    return {"weight_packed": made["B_24"], "scale_packed": made["s"], "meta": made["B_meta"]}, dense


def _mxfp4_compressed(weight: Tensor) -> Quantized:
    made, dense = floats.mxfp4(weight)
    return {"weight_packed": made["weight"], "weight_scale": made["weight_scale"]}, dense


SCRATCH = frozenset({"workspace"})
HQQ_UNUSED = frozenset({"nbits", "shape", "packing"})
HQQ = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}}
HQQ_OUTPUTS = {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 0}}}
AQLM = {"quant_method": "aqlm", "in_group_size": 8, "out_group_size": 1, "num_codebooks": 2, "nbits_per_codebook": 8}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "uint8"}
ENDS = ("model.embed_tokens", "lm_head")
EIGHT = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")
ROWS = NF4 | {"int8_rows": [*ENDS, *(f"model.layers.{i}.{name}" for i in range(2) for name in ("self_attn.qkv_proj", "mlp.down_proj"))]}
LLM8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
ORDERED = scheme("pack-quantized", 4, "int", strategy="group", group_size=64, symmetric=False, actorder="group")
MXFP4 = scheme("mxfp4-pack-quantized", 4, "float", strategy="group", group_size=32, scale_dtype="torch.uint8")
AUTO_ROUND = {
    "quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False, "data_type": "int", "packing_format": "auto_round:auto_gptq",
    "extra_config": {KEY: {"bits": 4, "group_size": 32, "sym": False}, "lm_head": {"bits": 16}}, "block_name_to_quantize": "model.layers",
}  # fmt: skip
QUARK8 = floats.quark_config(floats.quark_rule("fp8_e4m3"), floats.quark_rule("fp8_e4m3"))
QUARK4 = floats.quark_config(floats.quark_rule("fp4", "per_group", group_size=32), None)
QUARK_INT = floats.quark_config(floats.quark_rule("int8", "per_channel"), floats.quark_rule("int8"))


def _online(method: str, **more: Any) -> Subject:
    return Subject(method, "while loading", None, None, flags={"quantization": method}, **more)


SUBJECTS: tuple[Subject, ...] = (
    Subject("gptq", "act-order", lambda w: packers.gptq(w, symmetric=False, act_order=True), GPTQ | {"sym": False, "desc_act": True},
            {"quantization": "gptq"}),
    Subject("gptq", "3 bits", lambda w: packers.gptq(w, bits=3, symmetric=False), GPTQ | {"bits": 3, "sym": False},
            {"quantization": "gptq"}, optional=frozenset({"g_idx"})),
    Subject("gptq_marlin", "8 bits", lambda w: packers.gptq(w, bits=8), GPTQ | {"bits": 8}, {"quantization": "gptq_marlin"},
            unused=frozenset({"qzeros"}), optional=frozenset({"g_idx"})),
    Subject("ipex", "4 bits", lambda w: packers.gptq(w), GPTQ, {"quantization": "ipex"}, optional=frozenset({"g_idx"})),
    Subject("moe_wna16", "experts", lambda w: packers.gptq(w, symmetric=False), GPTQ | {"sym": False}, {"quantization": "moe_wna16"},
            layers=(EXPERT,), optional=frozenset({"g_idx"}), mixture=True),
    Subject("marlin", "4 bits", tiles.marlin, MARLIN | {"checkpoint_format": "marlin"}, unused=SCRATCH),
    Subject("gptq_marlin_24", "4 bits", tiles.marlin_24, MARLIN | {"checkpoint_format": "marlin_24"}, unused=SCRATCH),
    Subject("awq", "4 bits", packers.awq, AWQ, {"quantization": "awq"}),
    Subject("awq_marlin", "8 bits", lambda w: packers.awq(w, bits=8), AWQ | {"bits": 8}, {"quantization": "awq_marlin"}),
    Subject("awq", "gemv_fast", packers.gemv_fast, AWQ | {"version": "gemv_fast"}, {"quantization": "awq"}),
    Subject("awq", "gemv", packers.gemv, AWQ | {"version": "gemv"}, {"quantization": "awq"}),
    Subject("awq", "llm-awq", packers.llm_awq, AWQ | {"backend": "llm-awq"}, {"quantization": "awq"}),
    Subject("auto-round", "zero points", lambda w: packers.gptq(w, symmetric=False, index=False), AUTO_ROUND),
    Subject("auto-round", "as awq", packers.awq, AUTO_ROUND | {"packing_format": "auto_round:auto_awq"}),
    Subject("qqq", "groups", tiles.qqq, QQQ, unused=SCRATCH),
    Subject("qqq", "one group", lambda w: tiles.qqq(w, -1), QQQ | {"group_size": -1}, unused=SCRATCH | {"s_group"}),
    Subject("hqq", "4 bits", packers.hqq, HQQ, unused=HQQ_UNUSED),
    Subject("hqq", "axis 0", packers.hqq_outputs, HQQ_OUTPUTS, unused=HQQ_UNUSED | {"axis"}),
    Subject("compressed-tensors", "ordered words", words, ORDERED, unused=frozenset({"weight_shape"}),
            optional=frozenset({"weight_g_idx"})),
    Subject("compressed-tensors", "static int8", _static8, scheme("int-quantized", 8, "int", STATIC),
            optional=frozenset({"input_zero_point"})),
    Subject("compressed-tensors", "float8", floats.per_output, scheme("float-quantized", 8, "float")),
    Subject("compressed-tensors", "mxfp4", _mxfp4_compressed, MXFP4, either=frozenset({"weight_scale"})),
    Subject("compressed-tensors", "bitmask", bitmask, scheme("float-quantized", 8, "float") | {"sparsity_config": SPARSE},
            unused=frozenset({"shape"})),
    Subject("compressed-tensors", "marlin-24", _marlin24_names, scheme("marlin-24", 4, "int", strategy="group", group_size=128)),
    Subject("fp8", "static", floats.per_layer, {"quant_method": "fp8", "activation_scheme": "static"}),
    Subject("fp8", "blocks", floats.in_blocks, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    Subject("fbgemm_fp8", "per output", floats.per_output, {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1e3}),
    Subject("modelopt", "FP8", floats.per_layer, floats.modelopt_config("FP8")),
    Subject("modelopt", "W4A16_AWQ", _smoothed, floats.modelopt_config("W4A16_AWQ", group_size=64),
            optional=frozenset({"pre_quant_scale"})),
    Subject("nvfp4", "NVFP4", floats.nvfp4, floats.modelopt_config("NVFP4")),
    Subject("quark", "FP8", floats.per_layer, QUARK8), Subject("quark", "MXFP4", floats.mxfp4, QUARK4, either=frozenset({"weight_scale"})),
    Subject("quark", "int8", lambda w: floats.integer8(w, input_scale=torch.tensor(0.05)), QUARK_INT),
    Subject("bitsandbytes", "nf4", four_bits, NF4),
    Subject("bitsandbytes", "int8", eight_bits, LLM8, unused=frozenset({"weight_format"}), either=frozenset({"weight"})),
    Subject("bitsandbytes", "int8_rows", rows_in_a_column, ROWS, layers=(DOWN, KEY, *ENDS), either=frozenset({"weight"}),
            linear=lambda name: name.removesuffix(".weight").endswith((*ENDS, *EIGHT)), rest=four_bits),
    Subject("aqlm", "2 × 8", additive, AQLM),
    Subject("deepspeedfp", "6 bits", None, None, {"quantization": "deepspeedfp"},
            files={"quant_config.json": {"bits": 6, "group_size": 64}}),
    _online("fp8"), _online("tpu_int8"), _online("ptpc_fp8"), _online("neuron_quant"), _online("bitsandbytes"),
    _online("experts_int8", layers=(EXPERT,), mixture=True),
)  # fmt: skip
