"""Facts about a checkpoint, a model and a device: frozen, torch-free, sendable to every process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

#: Bytes of one element by the names that config.json and safetensors headers use for dtypes.
DTYPE_BYTES: dict[str, float] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip


#: Key of a model's configuration that the engine alone sets: {"directory": …, "revision": …} of Python code that may be run for it.
CODE = "_code"


class Checkpoint(msgspec.Struct, frozen=True):
    """Where a model's files are.

    ``model`` is what the user typed, ``path`` the local directory (or single file) that it resolved to,
    ``config_path`` and ``tokenizer_path`` the directories that config and tokenizer are read from (usually ``path``).
    ``download_dir``: where the user wants files that the engine makes or fetches (--download-dir). ``code_path``: the directory whose
    Python code may be run (--trust-remote-code); None: none may. ``code_revision``: of code in repositories that this code names.
    """

    model: str
    path: str
    config_path: str
    tokenizer_path: str
    revision: str | None = None
    trust_remote_code: bool = False
    download_dir: str | None = None
    code_path: str | None = None
    code_revision: str | None = None

    @property
    def directory(self) -> Path:
        """``path`` as a :class:`~pathlib.Path`."""
        return Path(self.path)


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor as a file's header states it: dtype in torch's spelling, shape in elements, size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str


class AttentionSpec(msgspec.Struct, frozen=True):
    """One attention layer. Heads are those of the whole model; ``sharded(tp)`` gives one rank's.

    ``scale`` multiplies Q·K. ``window``: a query at position p sees the keys p-window+1 … p; None is all of them.
    ``soft_cap`` c replaces each score s by c·tanh(s/c). ``sinks``: the layer has one learned extra logit per head.
    ``k_scale``, ``v_scale``: the cache holds k / k_scale and v / v_scale, in 8 bits saturated at the largest value of the type.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None
    soft_cap: float | None = None
    sinks: bool = False
    k_scale: float = 1.0
    v_scale: float = 1.0

    def sharded(self, tensor_parallel: int) -> AttentionSpec:
        """The spec of one tensor-parallel rank; KV heads are replicated where there are fewer than ranks."""
        return msgspec.structs.replace(
            self,
            num_heads=self.num_heads // tensor_parallel,
            num_kv_heads=max(1, self.num_kv_heads // tensor_parallel),
        )


class ModelInfo(msgspec.Struct, frozen=True):
    """What the rest of the engine needs to know of a model, read from its config alone.

    ``layers`` has one entry per layer that owns KV cache pages. ``max_model_len`` is the longest context that the config allows.
    ``dtype`` is the checkpoint's own. ``logits_size`` is the width of the logits (≥ tokenizer length where padded).
    ``supports`` holds of: tensor_parallel, pipeline_parallel, lora, prompt_adapter, quantization, speculation.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    layers: tuple[AttentionSpec, ...]
    max_model_len: int
    dtype: str = "float32"
    logits_size: int = 0
    num_experts: int = 0
    tasks: tuple[str, ...] = ("generate",)
    supports: frozenset[str] = frozenset()
    tied_embeddings: bool = False
    eos_token_ids: tuple[int, ...] = ()
    bos_token_id: int | None = None

    def kv_bytes_per_token(self, dtype_bytes: float, tensor_parallel: int = 1) -> int:
        """Bytes of K and V that one token occupies on one rank, over all layers."""
        heads = (spec.sharded(tensor_parallel) for spec in self.layers)
        return int(sum(2 * spec.num_kv_heads * spec.head_dim for spec in heads) * dtype_bytes)


class QuantizationFacts(msgspec.Struct, frozen=True):
    """What holds of a quantization method on every checkpoint.

    ``files``: JSON files in the model's folder that may hold its config where config.json has none. ``online``: it can work without
    a config, on plain weights that it quantizes while loading. ``dtypes``: the activations that its definition covers, best first;
    empty: any. ``successors``: methods that may take over its checkpoints, asked in this order (``engine_claim_quantization``).
    """

    files: tuple[str, ...] = ()
    online: bool = False
    dtypes: tuple[str, ...] = ()
    successors: tuple[str, ...] = ()


class DeviceFacts(msgspec.Struct, frozen=True):
    """What a device plugin knows of this machine without importing torch. All sizes in bytes.

    ``available`` False comes with the ``reason``. ``priority``: ``auto`` takes the highest available.
    ``total_memory`` is what may be used at all (cgroup limits counted), ``free_memory`` what is left now.
    ``shared_memory`` True: device memory is the host's (so a swap space takes from the same pool).
    ``fills_host``: its steps keep every processor busy that the engine may use, so that whatever the host does beside them delays them.
    ``mixed_tokens``: tokens of a step with prompts and running sequences together, where the user sets no budget, until steps have shown
    how long they take; 0: as others.
    ``layouts``: quantized layouts that it has kernels for, as :meth:`Quantizer.layouts` spells them; None: not said.
    ``fetches_weights``: weights may stay in host memory and are copied over for each product (:meth:`Device.weight_transfer`).
    ``runtime_bytes``: what the processes of a server occupy beside weights and cache (interpreters, libraries), measured.
    """

    name: str
    available: bool
    reason: str
    priority: int = 0
    count: int = 0
    total_memory: int = 0
    free_memory: int = 0
    shared_memory: bool = False
    fills_host: bool = False
    mixed_tokens: int = 0
    runtime_bytes: int = 0
    block_size: int = 16
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    description: str = ""
    layouts: tuple[str, ...] | None = None
    fetches_weights: bool = False


class Json(msgspec.Struct, frozen=True):
    """A JSON object as it travels between processes (config.json, plugin options)."""

    data: dict[str, Any]
