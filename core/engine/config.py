"""The resolved configuration: frozen, one slice per part; ``resolve`` (engine.args.resolve) is the only place that makes one."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.plugin.api import Choice
from engine.plugin.facts import Checkpoint, DeviceFacts, ModelInfo


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which model, read how. ``config`` is the normalised config.json after overrides; ``dtype`` the torch name of activations.

    ``quantization``: the config of the chosen quantization method, wherever it stands; None where there is none.
    """

    checkpoint: Checkpoint
    config: dict[str, Any]
    generation: dict[str, Any]
    info: ModelInfo
    dtype: str
    max_model_len: int
    served_names: tuple[str, ...]
    seed: int | None = None
    task: str = "generate"
    skip_tokenizer_init: bool = False
    tokenizer_name: str | None = None
    tokenizer_pool_size: int = 0
    tokenizer_pool_options: dict[str, Any] = {}
    quantization: dict[str, Any] | None = None


class LoadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How weights are read."""

    options: dict[str, Any] = {}
    progress: bool = True
    cpu_offload_bytes: int = 0


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The KV cache. ``pages``/``host_pages``: what the plan computed (workers may offer fewer, never more are used).

    ``scaled``: elements are divided by scales per layer, the checkpoint's or (``calculate_scales``) those of the first step.
    """

    block_size: int
    dtype: str
    pages: int
    host_pages: int
    page_bytes: int
    prefix_caching: bool
    memory_fraction: float
    pages_override: int | None = None
    scaled: bool = False
    calculate_scales: bool = False


class SchedulerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and habits of the scheduler; see the flags of the same names."""

    max_num_batched_tokens: int
    max_num_seqs: int
    chunked_prefill: bool = True
    max_num_partial_prefills: int = 1
    max_long_partial_prefills: int = 1
    long_prefill_token_threshold: int = 0
    delay_factor: float = 0.0
    lookahead_slots: int = 0
    mixed_tokens: int = 0


class ParallelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Workers."""

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    loading_workers: int | None = None


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How steps run on the device. ``overlap``: the engine schedules a step and sends the last one's outputs while one runs,
    where the executor can."""

    enforce_eager: bool = False
    max_seq_len_to_capture: int = 8192
    overlap: bool = True


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The HTTP side and request defaults."""

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    max_logprobs: int = 20
    chat_template: str | None = None
    chat_template_content_format: str = "auto"
    request_templates: bool = False
    response_role: str = "assistant"
    return_tokens_as_token_ids: bool = False
    enable_request_id_headers: bool = False
    enable_prompt_tokens_details: bool = False
    enable_server_load_tracking: bool = False
    disable_fastapi_docs: bool = False
    disable_log_stats: bool = False
    disable_log_requests: bool = False
    max_log_len: int | None = None
    uvicorn_log_level: str = "info"
    disable_uvicorn_access_log: bool = False
    root_path: str = ""
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_ca_certs: str | None = None
    ssl_cert_reqs: int = 0
    ssl_refresh: bool = False
    allow_credentials: bool = False
    allowed_origins: tuple[str, ...] = ()
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)
    middleware: tuple[str, ...] = ()
    frontend_multiprocessing: bool = True
    restart: bool = True
    silence_timeout: float = 20.0
    step_timeout: float = 600.0
    drain_timeout: float = 30.0
    max_queued_requests: int | None = 8192
    max_queued_tokens: int | None = None
    default_sampling: dict[str, Any] = {}
    max_new_tokens: int | None = None
    auto_tool_choice: bool = False
    reasoning_options: dict[str, Any] = {}
    tool_options: dict[str, Any] = {}
    extensions: tuple[str, ...] = ()
    extension_options: dict[str, Any] = {}


class GuidedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Guided decoding: the default ``backend``, whether others may take what it lacks, whether JSON may hold white space between
    its parts; ``warm``: the backend is loaded at the start, not with the first constraint; ``choices``: every installed backend by name."""

    backend: str = "xgrammar"
    fallback: bool = True
    any_whitespace: bool = True
    warm: bool = False
    choices: dict[str, Choice] = {}


class ProcessorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Logits processors: ``choices``: every installed one by name; ``pattern``: the Python names that requests may use beside them."""

    pattern: str | None = None
    choices: dict[str, Choice] = {}


class ObservabilityConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured beyond the usual. ``traces_endpoint``: the collector's URL, with the protocol ``grpc`` or ``http/protobuf``;
    ``details``: ``model`` and ``worker``; ``hidden_since``: the release X.Y whose hidden metrics are wanted."""

    traces_endpoint: str | None = None
    traces_protocol: str = "grpc"
    details: tuple[str, ...] = ()
    hidden_since: str | None = None


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything. Each part receives its own slice; nothing is written after ``resolve``.

    ``choices``: kind name → the resolved plugin. ``device``: the probe's facts. ``plan``: what ``engine plan`` prints.
    """

    model: ModelConfig
    load: LoadConfig
    cache: CacheConfig
    scheduler: SchedulerConfig
    parallel: ParallelConfig
    run: RunConfig
    server: ServerConfig
    device: DeviceFacts
    choices: dict[str, Choice]
    guided: GuidedConfig = GuidedConfig()
    processors: ProcessorConfig = ProcessorConfig()
    observability: ObservabilityConfig = ObservabilityConfig()
    plan: dict[str, Any] = {}
