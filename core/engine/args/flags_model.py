"""Flags about the model: where it is, how it is read, what it runs on."""

from __future__ import annotations

from engine.args.flag import Flag

LOAD_FORMATS = (
    "auto", "pt", "safetensors", "npcache", "dummy", "tensorizer", "sharded_state", "gguf", "bitsandbytes", "mistral", "runai_streamer",
)  # fmt: skip
QUANTIZATIONS = (
    "aqlm", "awq", "deepspeedfp", "tpu_int8", "fp8", "ptpc_fp8", "fbgemm_fp8", "modelopt", "nvfp4", "marlin", "gguf", "gptq_marlin_24",
    "gptq_marlin", "awq_marlin", "gptq", "compressed-tensors", "bitsandbytes", "qqq", "hqq", "experts_int8", "neuron_quant", "ipex",
    "quark", "moe_wna16",
)  # fmt: skip
DEVICES = ("auto", "cuda", "neuron", "cpu", "openvino", "tpu", "xpu", "hpu")

LOADER = (
    Flag("--model", "str", "facebook/opt-125m", "Directory, bundled model (demo, demo-draft) or hub repository id."),
    Flag("--revision", "text", None, "Branch, tag or commit of a hub repository; local directories ignore it."),
    Flag("--code-revision", "text", None,
         "Revision of the Python code in the model's repository, where it differs from that of the weights."),
    Flag("--trust-remote-code", "flag", False,
         "Run Python code that the model's repository ships: configuration and network of architectures that no plugin implements, and "
         "tokenizers without tokenizer.json."),
    Flag("--download-dir", "text", None, "Where downloads are kept; unset is the hub's own cache."),
    Flag("--load-format", "str", "auto", "Which loader reads the weights.", kind="loader", choices=LOAD_FORMATS),
    Flag("--dtype", "str", "auto",
         "Floating type of weights and activations. auto keeps the checkpoint's type where the device has it; "
         "float32 checkpoints run as float16 on accelerators and as float32 on the CPU.",
         choices=("auto", "half", "float16", "bfloat16", "float", "float32")),
    Flag("--model-impl", "str", "auto",
         "Who provides the architecture: the native implementations (vllm), transformers, or native first (auto).",
         kind="model_impl", choices=("auto", "vllm", "transformers")),
    Flag("--cpu-offload-gb", "float", 0.0,
         "GiB of weights per device that stay in host memory and are copied over for each step; on the CPU all are there anyway.",
         metavar="GIB"),
    Flag("--use-tqdm-on-load", "pair", True, "Show a progress bar while weights are read.",
         aliases=("--no-use-tqdm-on-load",)),
    Flag("--model-loader-extra-config", "json", None, "Options of the chosen loader, as a JSON object."),
    Flag("--ignore-patterns", "each", [],
         "File patterns that a download leaves out; without any, original/**/*. Repeatable.", metavar="GLOB"),
    Flag("--qlora-adapter-name-or-path", "str", None,
         "QLoRA adapter (directory or repository): the plain base model is rounded to 4 bits as its adapter_config.json says, its weights "
         "are applied beside it."),
)  # fmt: skip

CONFIG_FORMAT = (
    Flag("--hf-config-path", "text", None,
         "Directory or repository that config and generation config are read from instead of the model's."),
    Flag("--config-format", "str", "auto", "Which configuration file describes the model.", kind="config_format",
         choices=("auto", "hf", "mistral")),
    Flag("--max-model-len", "int", None,
         "Longest sequence, prompt plus output, in tokens; unset takes what the config allows. 4k is 4000, 4K "
         "is 4096.", metavar="TOKENS"),
    Flag("--rope-scaling", "json", None, "Replaces rope_scaling of the config."),
    Flag("--rope-theta", "float", None, "Replaces rope_theta of the config."),
    Flag("--hf-overrides", "json", None, "Keys merged into the config before anything is derived from it."),
)  # fmt: skip

TOKENIZER = (
    Flag("--tokenizer", "text", None,
         "Directory, repository or registered name of the tokenizer; unset is the model's."),
    Flag("--skip-tokenizer-init", "flag", False, "Do without a tokenizer: requests carry token ids, answers too."),
    Flag("--tokenizer-revision", "text", None, "Revision of the tokenizer's repository; unset follows --revision."),
    Flag("--tokenizer-mode", "str", "auto", "How the tokenizer is built.", kind="tokenizer",
         choices=("auto", "slow", "mistral", "custom")),
    Flag("--tokenizer-pool-size", "int", 0, "Workers that encode long texts beside the server; 0 is none."),
    Flag("--tokenizer-pool-type", "str", "ray", "What those workers are; means nothing without them.",
         kind="tokenizer_pool", choices=("ray",)),
    Flag("--tokenizer-pool-extra-config", "json", None, "Options of the tokenizer pool."),
)  # fmt: skip

QUANT = (
    Flag("--quantization", "text", None, "Quantization method; unset follows the checkpoint's own.", aliases=("-q",),
         kind="quantization", choices=QUANTIZATIONS),
)  # fmt: skip

DEVICE = (
    Flag("--device", "str", "auto", "Hardware to run on; auto takes the best that is there.", kind="device",
         choices=DEVICES),
    Flag("--override-neuron-config", "json", None, "Neuron compiler settings.", until="the neuron device"),
    Flag("--additional-config", "json", None, "Settings handed to the device plugin.",
         until="options of device plugins"),
)  # fmt: skip

POOLING = (
    Flag("--task", "str", "auto", "What this instance serves.", kind="task",
         choices=("auto", "generate", "embedding", "embed", "classify", "score", "reward", "transcription")),
    Flag("--override-pooler-config", "json", None, "Pooling settings.", until="pooling"),
)  # fmt: skip
