"""Flags of capabilities around generation: adapters, media, speculation, guidance, reasoning, observation."""

from __future__ import annotations

from engine.args.flag import Flag
from engine.args.flags_model import QUANTIZATIONS

_LORA = "LoRA adapters"
_PROMPT = "prompt adapters"
_MEDIA = "multimodal input"
_SPEC = "speculative decoding"

MULTIMODAL = (
    Flag("--allowed-local-media-path", "str", "", "Directory below which requests may name local media files.",
         until=_MEDIA),
    Flag("--limit-mm-per-prompt", "counts", None, "Most items per prompt and modality.", metavar="KEY=INT,…",
         until=_MEDIA),
    Flag("--mm-processor-kwargs", "json", None, "Arguments of the multimodal processor.", until=_MEDIA),
    Flag("--disable-mm-preprocessor-cache", "flag", False, "Do not keep preprocessed media between requests.",
         until=_MEDIA),
)  # fmt: skip

GUIDED = (
    Flag("--guided-decoding-backend", "str", "xgrammar",
         "Who constrains outputs, with options: NAME or NAME:no-fallback.", kind="guided_decoding",
         choices=("xgrammar", "outlines", "lm-format-enforcer", "guidance", "auto"), options=True),
)  # fmt: skip

LORA = (
    Flag("--enable-lora", "flag", False, "Serve LoRA adapters.", until=_LORA),
    Flag("--enable-lora-bias", "flag", False, "Accept adapters with a bias.", until=_LORA),
    Flag("--max-loras", "int", 1, "Most adapters in one batch.", until=_LORA),
    Flag("--max-lora-rank", "int", 16, "Largest rank of an adapter.",
         choices=("8", "16", "32", "64", "128", "256", "320", "512"), until=_LORA),
    Flag("--lora-extra-vocab-size", "int", 256, "Room for tokens that adapters add.", choices=("256", "512"),
         until=_LORA),
    Flag("--lora-dtype", "str", "auto", "Type of adapter weights.", choices=("auto", "float16", "bfloat16"),
         until=_LORA),
    Flag("--long-lora-scaling-factors", "floats", None, "Rope factors of long-context adapters.", metavar="X,…",
         until=_LORA),
    Flag("--max-cpu-loras", "int", None, "Adapters kept in host memory; unset is --max-loras.", until=_LORA),
    Flag("--fully-sharded-loras", "flag", False, "Share both matrices of an adapter among the workers.", until=_LORA),
)  # fmt: skip

PROMPT_ADAPTER = (
    Flag("--enable-prompt-adapter", "flag", False, "Serve prompt-tuning adapters.", until=_PROMPT),
    Flag("--max-prompt-adapters", "int", 1, "Most prompt adapters in one batch.", until=_PROMPT),
    Flag("--max-prompt-adapter-token", "int", 0, "Most virtual tokens of a prompt adapter.", until=_PROMPT),
)  # fmt: skip

SPECULATION = (
    Flag("--speculative-config", "literal", None, "All speculative settings in one object.", metavar="JSON",
         until=_SPEC),
    Flag("--speculative-model", "text", None, "Draft model, or ngram.", until=_SPEC),
    Flag("--speculative-model-quantization", "text", None, "Quantization of the draft model.", kind="quantization",
         choices=QUANTIZATIONS, until=_SPEC),
    Flag("--num-speculative-tokens", "int", None, "Draft tokens per step.", until=_SPEC),
    Flag("--speculative-disable-mqa-scorer", "flag", False, "Score drafts by expanding the batch.", until=_SPEC),
    Flag("--speculative-draft-tensor-parallel-size", "int", None, "Workers that share the draft model.",
         aliases=("-spec-draft-tp",), until=_SPEC),
    Flag("--speculative-max-model-len", "int", None, "Longest sequence that is drafted for.", until=_SPEC),
    Flag("--speculative-disable-by-batch-size", "int", None, "Stop drafting from this many requests on.", until=_SPEC),
    Flag("--ngram-prompt-lookup-max", "int", None, "Longest n-gram looked up.", until=_SPEC),
    Flag("--ngram-prompt-lookup-min", "int", None, "Shortest n-gram looked up.", until=_SPEC),
    Flag("--spec-decoding-acceptance-method", "str", "rejection_sampler", "How drafts are verified.", kind="acceptance",
         choices=("rejection_sampler", "typical_acceptance_sampler"), until=_SPEC),
    Flag("--typical-acceptance-sampler-posterior-threshold", "float", None,
         "Upper bound of the typical acceptance threshold.", until=_SPEC),
    Flag("--typical-acceptance-sampler-posterior-alpha", "float", None, "Entropy factor of that threshold.",
         until=_SPEC),
    Flag("--disable-logprobs-during-spec-decoding", "switch", None, "Leave out log-probabilities while speculating.",
         until=_SPEC),
)  # fmt: skip

REASONING = (
    Flag("--enable-reasoning", "flag", False, "Split chat answers into reasoning and content; --reasoning-parser alone does it too."),
    Flag("--reasoning-parser", "str", None, "Who splits them: NAME, NAME:{JSON options}, or auto (by the chat template).",
         kind="reasoning_parser", choices=("deepseek_r1",), options=True),
)  # fmt: skip

OBSERVABILITY = (
    Flag("--disable-log-stats", "flag", False, "No statistics line and no engine metrics."),
    Flag("--show-hidden-metrics-for-version", "str", None, "Show the metrics hidden since release X.Y, where that is the minor "
         "release before this one.", metavar="X.Y"),
    Flag("--otlp-traces-endpoint", "str", None, "Send a span per request to this OpenTelemetry collector; by gRPC unless "
         "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is http/protobuf.", metavar="URL"),
    Flag("--collect-detailed-traces", "names", None, "Add the times of forward passes (model) and of steps (worker) to traces and metrics.",
         choices=("model", "worker", "all"), metavar="MODULE,…"),
    Flag("--disable-log-requests", "flag", False, "Do not log each request."),
)  # fmt: skip
