"""The table everything derives from: one row per kind of plugin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from engine.plugin.contracts.device import Device
from engine.plugin.contracts.executor import Executor
from engine.plugin.contracts.generation import AcceptanceMethod, GuideCompiler, LogitsProcessor, Proposer
from engine.plugin.contracts.loading import ConfigFormat, Loader
from engine.plugin.contracts.packed import Quantizer
from engine.plugin.contracts.producing import Producer
from engine.plugin.contracts.scheduling import KVCacheType, PreemptionMode, SchedulingPolicy
from engine.plugin.contracts.serving import KVConnector, ModelArchitecture, ModelImplementation, Task
from engine.plugin.contracts.text import ReasoningParser, Tokenizer, TokenizerPool, ToolParser

T = TypeVar("T")


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of plugin: its name, the flag that chooses one, the hook that creates it and the contract of what is created.

    ``flag`` None: chosen by something else than a flag (``model``: the config's architectures). ``about`` is one line for listings.
    """

    name: str
    flag: str | None
    hook: str
    contract: type[T]
    about: str

    @property
    def group(self) -> str:
        """The entry-point group."""
        return f"engine.{self.name}"


#: The hooks of extensions, of which each has at least one.
EXTENSION_HOOKS = ("engine_add_arguments", "engine_add_routes", "engine_started", "engine_stopping", "engine_request_finished")


class Extension:
    """Fan-out plugins have no object: their module's hooks are called (see :mod:`engine.plugin.spec`)."""


# Type checkers: abstract classes are meant here, as the contracts of what factories return.
LOADER = Kind("loader", "--load-format", "engine_create_loader", Loader, "reads a checkpoint's tensors")  # type: ignore[type-abstract]
CONFIG_FORMAT = Kind("config_format", "--config-format", "engine_create_config_format", ConfigFormat, "reads a model's configuration")  # type: ignore[type-abstract]
TOKENIZER = Kind("tokenizer", "--tokenizer-mode", "engine_create_tokenizer", Tokenizer, "turns text into tokens and back")  # type: ignore[type-abstract]
TOKENIZER_POOL = Kind(
    "tokenizer_pool", "--tokenizer-pool-type", "engine_create_tokenizer_pool", TokenizerPool, "tokenizes off the event loop"  # type: ignore[type-abstract]
)
QUANTIZATION = Kind("quantization", "--quantization", "engine_create_quantizer", Quantizer, "reads quantized weights")  # type: ignore[type-abstract]
DEVICE = Kind("device", "--device", "engine_create_device", Device, "hardware and its kernels")  # type: ignore[type-abstract]
EXECUTOR = Kind("executor", "--distributed-executor-backend", "engine_create_executor", Executor, "starts and drives workers")  # type: ignore[type-abstract]
POLICY = Kind("policy", "--scheduling-policy", "engine_create_policy", SchedulingPolicy, "orders requests")  # type: ignore[type-abstract]
PREEMPTION = Kind("preemption", "--preemption-mode", "engine_create_preemption", PreemptionMode, "takes pages back from a request")  # type: ignore[type-abstract]
KV_CACHE_DTYPE = Kind("kv_cache_dtype", "--kv-cache-dtype", "engine_create_kv_cache_type", KVCacheType, "storage type of the KV cache")  # type: ignore[type-abstract]
GUIDED_DECODING = Kind("guided_decoding", "--guided-decoding-backend", "engine_create_guide", GuideCompiler, "constrains the output")  # type: ignore[type-abstract]
MODEL_IMPL = Kind("model_impl", "--model-impl", "engine_create_model_impl", ModelImplementation, "provides architectures")  # type: ignore[type-abstract]
MODEL = Kind("model", None, "engine_create_model", ModelArchitecture, "one architecture")  # type: ignore[type-abstract]
SPECULATION = Kind("speculation", "--speculative-config", "engine_create_proposer", Proposer, "proposes draft tokens")  # type: ignore[type-abstract]
ACCEPTANCE = Kind("acceptance", "--spec-decoding-acceptance-method", "engine_create_acceptance", AcceptanceMethod, "verifies draft tokens")  # type: ignore[type-abstract]
KV_CONNECTOR = Kind("kv_connector", "--kv-transfer-config", "engine_create_kv_connector", KVConnector, "moves KV pages between instances")  # type: ignore[type-abstract]
LOGITS_PROCESSOR = Kind("logits_processor", None, "engine_create_logits_processor", LogitsProcessor, "changes logits on request")  # type: ignore[type-abstract]
REASONING_PARSER = Kind(
    "reasoning_parser", "--reasoning-parser", "engine_create_reasoning_parser", ReasoningParser, "splits thought from answer"  # type: ignore[type-abstract]
)
TOOL_PARSER = Kind("tool_parser", "--tool-call-parser", "engine_create_tool_parser", ToolParser, "finds tool calls in the answer")  # type: ignore[type-abstract]
TASK = Kind("task", "--task", "engine_create_task", Task, "what an instance serves")  # type: ignore[type-abstract]
PRODUCER = Kind("producer", "--method", "engine_create_producer", Producer, "writes quantized checkpoints (engine quantize)")  # type: ignore[type-abstract]
EXTENSION = Kind("extension", "--extensions", "engine_started", Extension, "observers and routes (all that are enabled)")

KINDS: tuple[Kind[Any], ...] = (
    LOADER, CONFIG_FORMAT, TOKENIZER, TOKENIZER_POOL, QUANTIZATION, DEVICE, EXECUTOR, POLICY, PREEMPTION, KV_CACHE_DTYPE,
    GUIDED_DECODING, MODEL_IMPL, MODEL, SPECULATION, ACCEPTANCE, KV_CONNECTOR, LOGITS_PROCESSOR, REASONING_PARSER, TOOL_PARSER,
    TASK, PRODUCER, EXTENSION,
)  # fmt: skip


def kind(name: str) -> Kind[Any]:
    """The row of that name; ``KeyError`` where there is none."""
    return {row.name: row for row in KINDS}[name]
