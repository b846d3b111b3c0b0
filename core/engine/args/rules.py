"""What flags may say by themselves and together; checked before anything is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from engine.args.flag import Problem

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs

#: (flag, smallest, largest) of numbers; None is open.
_BOUNDS: tuple[tuple[str, float | None, float | None], ...] = (
    ("max_model_len", 1, None), ("block_size", 1, None), ("pipeline_parallel_size", 1, None), ("tensor_parallel_size", 1, None),
    ("max_parallel_loading_workers", 1, None), ("num_lookahead_slots", 0, None), ("swap_space", 0, None), ("cpu_offload_gb", 0, None),
    ("num_gpu_blocks_override", 1, None), ("max_num_batched_tokens", 1, None), ("max_num_partial_prefills", 1, None),
    ("max_long_partial_prefills", 1, None), ("long_prefill_token_threshold", 0, None), ("max_num_seqs", 1, None),
    ("max_logprobs", 0, None),
    ("num_scheduler_steps", 1, None), ("scheduler_delay_factor", 0, None), ("tokenizer_pool_size", 0, None), ("max_loras", 1, None),
    ("max_cpu_loras", 1, None), ("max_prompt_adapters", 1, None), ("max_prompt_adapter_token", 0, None),
    ("num_speculative_tokens", 1, None),
    ("speculative_disable_by_batch_size", 2, None), ("ngram_prompt_lookup_max", 1, None), ("ngram_prompt_lookup_min", 1, None),
    ("typical_acceptance_sampler_posterior_threshold", 0, None), ("typical_acceptance_sampler_posterior_alpha", 0, None),
    ("max_seq_len_to_capture", 1, None), ("max_log_len", 0, None), ("port", 0, 65535), ("gpu_memory_utilization", None, 1),
    ("max_queued_requests", 0, None), ("max_queued_tokens", 0, None), ("drain_timeout", 0, None),
    ("seed", -(2**63), 2**64 - 1),
)  # fmt: skip

#: (flag, a value that it takes) of numbers that must be above 0.
_ABOVE_ZERO = (("gpu_memory_utilization", "0.9"), ("step_timeout", "600"))

#: What means nothing without a tokenizer.
_NEED_TOKENIZER = (
    "tokenizer", "tokenizer_pool_size", "reasoning_parser", "tool_call_parser", "guided_decoding_backend", "chat_template",
)  # fmt: skip


def flag_name(dest: str) -> str:
    """``max_model_len`` → ``--max-model-len``."""
    return "--" + dest.replace("_", "-")


def check_rules(args: EngineArgs) -> list[Problem]:
    """Every rule that the arguments break."""
    return [problem for rule in _RULES for problem in rule(args)]


def _bounds(args: EngineArgs) -> Iterator[Problem]:
    for dest, low, high in _BOUNDS:
        value = getattr(args, dest)
        if value is None:
            continue
        if low is not None and value < low:
            yield Problem(f"{flag_name(dest)} {value}: must be at least {low}.", f"{flag_name(dest)} {low}")
        elif high is not None and value > high:
            yield Problem(f"{flag_name(dest)} {value}: must be at most {high}.", f"{flag_name(dest)} {high}")
    for dest, example in _ABOVE_ZERO:
        if getattr(args, dest) <= 0:
            yield Problem(f"{flag_name(dest)} {getattr(args, dest)}: must be above 0.", f"{flag_name(dest)} {example}")
    if args.engine_silence_timeout <= 1:
        yield Problem(
            f"--engine-silence-timeout {args.engine_silence_timeout:g}: must be above 1, as the engine gives a sign of life every second.",
            "--engine-silence-timeout 20",
        )


def _partners(args: EngineArgs) -> Iterator[Problem]:
    if args.enable_reasoning and not args.reasoning_parser:
        yield Problem("--enable-reasoning needs --reasoning-parser.", "--reasoning-parser auto")
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        yield Problem("--enable-auto-tool-choice needs --tool-call-parser.", "--tool-call-parser auto")
    if args.qlora_adapter_name_or_path and args.quantization != "bitsandbytes":
        yield Problem("--qlora-adapter-name-or-path needs --quantization bitsandbytes.", "--quantization bitsandbytes")
    if args.ray_workers_use_nsight and args.distributed_executor_backend != "ray":
        yield Problem(
            "--ray-workers-use-nsight needs --distributed-executor-backend ray.", "leave --ray-workers-use-nsight out"
        )
    connector = args.kv_transfer_config
    if (
        connector
        and connector.get("kv_connector")
        and connector.get("kv_role") not in ("kv_producer", "kv_consumer", "kv_both")
    ):
        yield Problem(
            "--kv-transfer-config: kv_connector needs kv_role, one of kv_producer, kv_consumer, kv_both.",
            '"kv_role": "kv_both"',
        )
    if bool(args.ssl_keyfile) != bool(args.ssl_certfile):
        yield Problem("--ssl-keyfile and --ssl-certfile belong together.", "give both, or neither")
    for dest in ("enable_ssl_refresh", "ssl_cert_reqs", "ssl_ca_certs"):
        if getattr(args, dest) and not args.ssl_certfile:
            yield Problem(f"{flag_name(dest)} needs --ssl-certfile.", "--ssl-certfile FILE --ssl-keyfile FILE")


def _without_tokenizer(args: EngineArgs) -> Iterator[Problem]:
    for dest in _NEED_TOKENIZER if args.skip_tokenizer_init else ():
        if dest in args.given and getattr(args, dest):
            text = f"--skip-tokenizer-init and {flag_name(dest)} contradict each other: it needs a tokenizer."
            yield Problem(text, "leave one of them out")


def _scheduling(args: EngineArgs) -> Iterator[Problem]:
    chunked = args.enable_chunked_prefill is not False
    tokens, seqs = args.max_num_batched_tokens, args.max_num_seqs
    if tokens is not None and seqs is not None and tokens < seqs:
        yield Problem(
            f"--max-num-batched-tokens {tokens} is smaller than --max-num-seqs {seqs}.", f"--max-num-seqs {tokens}"
        )
    if tokens is not None and not chunked and args.max_model_len is not None and tokens < args.max_model_len:
        yield Problem(
            f"--max-num-batched-tokens {tokens} is smaller than --max-model-len {args.max_model_len}, and chunked prefill is off.",
            f"--max-num-batched-tokens {args.max_model_len}",
        )
    partial, long = args.max_num_partial_prefills, args.max_long_partial_prefills
    if partial > 1 and not chunked:
        yield Problem(
            "--max-num-partial-prefills above 1 needs chunked prefill.", "leave --enable-chunked-prefill=false out"
        )
    if long > partial >= 1:
        yield Problem(
            f"--max-long-partial-prefills {long} is more than --max-num-partial-prefills {partial}.",
            f"--max-long-partial-prefills {partial}",
        )
    if args.num_scheduler_steps > 1:
        if args.speculative_config or args.speculative_model:
            yield Problem(
                "--num-scheduler-steps above 1 does not go with speculative decoding.", "--num-scheduler-steps 1"
            )
        if chunked and args.pipeline_parallel_size > 1:
            yield Problem(
                "--num-scheduler-steps above 1 does not go with chunked prefill and pipeline stages.",
                "--num-scheduler-steps 1",
            )


def _workers(args: EngineArgs) -> Iterator[Problem]:
    if args.distributed_executor_backend == "external_launcher":
        if args.pipeline_parallel_size > 1:
            yield Problem(
                "--distributed-executor-backend external_launcher does not go with --pipeline-parallel-size.",
                "--pipeline-parallel-size 1",
            )
        if args.scheduler_delay_factor:
            yield Problem(
                "--distributed-executor-backend external_launcher does not go with --scheduler-delay-factor.",
                "--scheduler-delay-factor 0",
            )
    if args.distributed_executor_backend == "uni" and args.tensor_parallel_size > 1:
        yield Problem(
            f"--distributed-executor-backend uni is one worker, --tensor-parallel-size {args.tensor_parallel_size} needs as many.",
            "--distributed-executor-backend mp",
        )
    if args.pipeline_parallel_size > 1 and (args.speculative_config or args.speculative_model):
        yield Problem(
            "--pipeline-parallel-size above 1 does not go with speculative decoding.", "--pipeline-parallel-size 1"
        )


def _adapters(args: EngineArgs) -> Iterator[Problem]:
    if args.enable_lora and args.cpu_offload_gb > 0:
        yield Problem("--enable-lora does not go with --cpu-offload-gb.", "--cpu-offload-gb 0")
    if args.max_cpu_loras is not None and args.max_cpu_loras < args.max_loras:
        yield Problem(
            f"--max-cpu-loras {args.max_cpu_loras} is less than --max-loras {args.max_loras}.",
            f"--max-cpu-loras {args.max_loras}",
        )
    if args.enable_prompt_adapter and args.max_prompt_adapter_token == 0:
        yield Problem(
            "--enable-prompt-adapter needs --max-prompt-adapter-token above 0.", "--max-prompt-adapter-token 64"
        )


def _speculation(args: EngineArgs) -> Iterator[Problem]:
    low, high = args.ngram_prompt_lookup_min, args.ngram_prompt_lookup_max
    if low is not None and high is not None and low > high:
        yield Problem(
            f"--ngram-prompt-lookup-min {low} is more than --ngram-prompt-lookup-max {high}.",
            f"--ngram-prompt-lookup-min {high}",
        )
    if args.num_speculative_tokens is not None and not (args.speculative_model or args.speculative_config):
        yield Problem("--num-speculative-tokens needs --speculative-model.", "--speculative-model ngram")


def _memory(args: EngineArgs) -> Iterator[Problem]:
    host = host_memory()
    asked = args.swap_space * 2**30 * args.tensor_parallel_size
    if host and "swap_space" in args.given and asked > 0.7 * host:
        fits = int(0.7 * host / 2**30 / args.tensor_parallel_size)
        yield Problem(
            f"--swap-space {args.swap_space:g}: {asked / 2**30:.1f} GiB in all is more than 70 % of the host's {host / 2**30:.1f} GiB.",
            f"--swap-space {fits}",
        )
    kept = args.cpu_offload_gb * 2**30 * args.tensor_parallel_size
    if 0 < host < kept:
        yield Problem(
            f"--cpu-offload-gb {args.cpu_offload_gb:g}: {kept / 2**30:.1f} GiB in all is more than the host's {host / 2**30:.1f} GiB.",
            f"--cpu-offload-gb {int(host / 2 / 2**30 / args.tensor_parallel_size)}",
        )
    path = args.allowed_local_media_path
    if path and not os.path.isdir(path):
        yield Problem(f"--allowed-local-media-path {path}: no such directory.", "name a directory that exists")


def host_memory() -> int:
    """Bytes of the machine's memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _configs(args: EngineArgs) -> Iterator[Problem]:
    scaling = args.rope_scaling
    if scaling is not None:
        new, old = scaling.get("rope_type"), scaling.get("type")
        if new is None and old is None:
            yield Problem(
                "--rope-scaling: rope_type is missing.", '--rope-scaling \'{"rope_type": "linear", "factor": 2.0}\''
            )
        elif new is not None and old is not None and new != old:
            yield Problem(
                f"--rope-scaling: rope_type {new!r} and type {old!r} contradict each other.", "leave type out"
            )
    if args.rope_theta is not None and args.rope_theta <= 0:
        yield Problem(f"--rope-theta {args.rope_theta:g}: must be above 0.", "--rope-theta 10000")
    if "" in args.api_key:
        yield Problem("--api-key: the key is empty.", "name a key, or leave --api-key out to serve without one")
    if any(not key.isprintable() for key in args.api_key):
        yield Problem("--api-key: the key holds a control character, which no header carries.", "a key of printable characters")
    for name in args.served_model_name or ():
        if not name.strip():
            yield Problem("--served-model-name: a name is empty.", "--served-model-name NAME")


def _files(args: EngineArgs) -> Iterator[Problem]:
    for dest in ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs"):
        path = getattr(args, dest)
        if path is not None and not os.path.isfile(path):
            yield Problem(f"{flag_name(dest)} {path}: no such file.", "check the path")
    template = args.chat_template
    if template is not None and not any(mark in template for mark in "{}\n") and not os.path.isfile(template):
        yield Problem(f"--chat-template {template}: no such file, and no template itself.", "check the path")


_RULES: tuple[Callable[[EngineArgs], Iterator[Problem]], ...] = (
    _bounds, _partners, _without_tokenizer, _scheduling, _workers, _adapters, _speculation, _memory, _configs, _files,
)  # fmt: skip
