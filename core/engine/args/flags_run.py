"""Flags about running: cache, scheduler, workers, graphs."""

from __future__ import annotations

from engine.args.flag import Flag

KV_CACHE = (
    Flag("--kv-cache-dtype", "str", "auto", "Storage type of the KV cache; auto is the model's.", kind="kv_cache_dtype",
         choices=("auto", "fp8", "fp8_e5m2", "fp8_e4m3")),
    Flag("--block-size", "int", None, "Tokens per KV block; unset is the device's own (16 on CUDA and CPU).",
         choices=("8", "16", "32", "64", "128")),
    Flag("--enable-prefix-caching", "pair", None, "Reuse the KV blocks of equal prompt beginnings; unset is on.",
         aliases=("--no-enable-prefix-caching",)),
    Flag("--disable-sliding-window", "flag", False, "Attend to everything, and cap the length at the window."),
    Flag("--use-v2-block-manager", "flag", True, "Accepted for old command lines; changes nothing."),
    Flag("--swap-space", "float", 4.0,
         "GiB of host memory per device for swapped-out blocks; taken only where the preemption mode swaps.",
         metavar="GIB"),
    Flag("--gpu-memory-utilization", "float", 0.9,
         "Share of the device's memory that this instance may use in all, 0 to 1.", metavar="SHARE"),
    Flag("--num-gpu-blocks-override", "int", None, "Exactly this many KV blocks on the device.", metavar="BLOCKS"),
    Flag("--kv-transfer-config", "json", None, "Connector that moves KV blocks between instances.",
         until="a connector between instances"),
    Flag("--calculate-kv-scales", "flag", False, "Compute the scales of an fp8 KV cache from the first forward pass."),
)  # fmt: skip

SCHEDULER = (
    Flag("--num-lookahead-slots", "int", 0, "Further KV slots reserved per sequence and step."),
    Flag("--max-num-batched-tokens", "int", None,
         "Token budget of one step; unset is 2048 (the whole model length without chunked prefill), "
         "and on a CPU 256 while sequences decode and few wait.", metavar="TOKENS"),
    Flag("--max-num-partial-prefills", "int", 1, "Prompts that may be partly computed at the same time."),
    Flag("--max-long-partial-prefills", "int", 1, "How many of those may be long ones."),
    Flag("--long-prefill-token-threshold", "int", 0,
         "Prompts with more tokens left than this are long; 0 is 4 % of the model length where several prompts "
         "may be partial.", metavar="TOKENS"),
    Flag("--max-num-seqs", "int", None, "Most sequences in one step; unset is 256.", metavar="SEQS"),
    Flag("--num-scheduler-steps", "int", 1, "Decode steps per scheduler call.", until="multi-step scheduling"),
    Flag("--multi-step-stream-outputs", "switch", True, "Stream after each of several steps.",
         until="multi-step scheduling"),
    Flag("--scheduler-delay-factor", "float", 0.0,
         "Wait with new prompts for this many prefill times, to gather larger batches."),
    Flag("--enable-chunked-prefill", "switch", None,
         "Split prompts over steps that they share with decodes; unset is on."),
    Flag("--preemption-mode", "str", None,
         "How a sequence gives up its KV blocks when memory is short; unset is recompute.", kind="preemption",
         choices=("recompute", "swap")),
    Flag("--disable-async-output-proc", "flag", False, "Do not schedule and answer while the next step runs."),
    Flag("--scheduling-policy", "str", "fcfs", "The order of requests.", kind="policy", choices=("fcfs", "priority")),
    Flag("--scheduler-cls", "str", "vllm.core.scheduler.Scheduler", "Scheduler class.", until="other scheduler classes",
         accepts=("engine.scheduler.Scheduler",)),
)  # fmt: skip

EXECUTOR = (
    Flag("--distributed-executor-backend", "str", None,
         "Who starts the workers; unset is uni for one worker and mp for several.", kind="executor",
         choices=("ray", "mp", "uni", "external_launcher")),
    Flag("--pipeline-parallel-size", "int", 1, "Pipeline stages.", aliases=("-pp",), until="pipeline parallelism"),
    Flag("--tensor-parallel-size", "int", 1, "Workers that share every layer.", aliases=("-tp",)),
    Flag("--enable-expert-parallel", "flag", False, "Spread whole experts over the workers.",
         until="expert parallelism"),
    Flag("--max-parallel-loading-workers", "int", None, "Workers that may read weights at the same time."),
    Flag("--ray-workers-use-nsight", "flag", False, "Run ray's workers under the Nsight profiler.",
         until="the ray executor"),
    Flag("--seed", "int", None,
         "Seed of everything random that has no seed of its own: with the order of requests it decides their outputs; "
         "unset is a fresh one each start."),
    Flag("--disable-custom-all-reduce", "flag", False,
         "Use the collective library's own all-reduce, as this engine always does."),
    Flag("--worker-cls", "str", "auto", "Worker class.", until="other worker classes"),
    Flag("--worker-extension-cls", "str", "", "Class mixed into the worker.", until="worker extension classes"),
    Flag("--enable-sleep-mode", "flag", False, "Let weights and cache be released and restored.", until="sleep mode"),
)  # fmt: skip

COMPILE = (
    Flag("--enforce-eager", "flag", False, "Never record and replay steps (CUDA graphs)."),
    Flag("--max-seq-len-to-capture", "int", 8192, "Longest context that a recorded step serves.", metavar="TOKENS"),
    Flag("--compilation-config", "literal", None, "torch.compile level 0-3 or settings.", aliases=("-O",),
         metavar="LEVEL", until="torch.compile", accepts=(0, {"level": 0})),
)  # fmt: skip
