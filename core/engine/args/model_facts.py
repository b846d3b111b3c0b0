"""From a checkpoint to what the engine knows of its model: configuration, architecture, dtype, length."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from engine.args.config_keys import unread_overrides
from engine.errors import ConfigError, ModelFileError
from engine.plugin.api import Choice
from engine.plugin.facts import CODE, Checkpoint, DeviceFacts, ModelInfo
from engine.plugin.kinds import CONFIG_FORMAT, MODEL, MODEL_IMPL

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs
    from engine.plugin.host import PluginHost

_DTYPES = {"half": "float16", "float": "float32"}
_LONG_VARIABLES = ("ENGINE_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_ALLOW_LONG_MAX_MODEL_LEN")


def read_config(
    args: EngineArgs, host: PluginHost, checkpoint: Checkpoint
) -> tuple[dict[str, Any], dict[str, Any], Choice, list[str]]:
    """The model's configuration after the flags' overrides, its generation config, the plugin that read them, and warnings."""
    created = host.create(CONFIG_FORMAT, args.config_format, checkpoint=checkpoint)
    config = created.plugin.read()
    warnings = list(unread_overrides(args.hf_overrides or {}, config))
    return _with_code(override(args, config), checkpoint), created.plugin.generation(), created.choice, warnings


def _with_code(config: dict[str, Any], checkpoint: Checkpoint) -> dict[str, Any]:
    """The config with where its Python code is, which it cannot say itself; without any mention of code where none may be run."""
    config.pop(CODE, None)
    if checkpoint.code_path is None:
        config.pop("auto_map", None)
    elif config.get("auto_map"):
        config[CODE] = {"directory": checkpoint.code_path, "revision": checkpoint.code_revision}
    return config


def override(args: EngineArgs, config: dict[str, Any]) -> dict[str, Any]:
    """--hf-overrides, --rope-scaling, --rope-theta and --disable-sliding-window, merged in that order."""
    config = {**config, **(args.hf_overrides or {})}
    table = config.get("rope_parameters")
    if (args.rope_scaling is not None or args.rope_theta is not None) and isinstance(table, dict):
        if any(isinstance(value, dict) for value in table.values()):
            raise ConfigError(
                "--rope-scaling and --rope-theta cannot say which layer type of this model's rope_parameters they mean.",
                fix="--hf-overrides '{\"rope_parameters\": …}'",
            )
        config.pop("rope_parameters")
        if config.get("rope_theta") is None:
            config["rope_theta"] = table.get("rope_theta", 10000.0)
        scaling = config.get("rope_scaling") or {key: value for key, value in table.items() if key != "rope_theta"}
        default = scaling.get("rope_type", scaling.get("type")) in (None, "default")
        config["rope_scaling"] = None if default else scaling
    if args.rope_scaling is not None:
        config["rope_scaling"] = dict(args.rope_scaling)
    if args.rope_theta is not None:
        config["rope_theta"] = args.rope_theta
    if args.disable_sliding_window:
        config = _without_window(config)
    return config


def _without_window(config: dict[str, Any]) -> dict[str, Any]:
    """Full attention in every layer, and no longer than the window was."""
    window = config.get("sliding_window")
    config = {**config, "sliding_window": None, "use_sliding_window": False}
    if isinstance(config.get("layer_types"), list):
        config["layer_types"] = ["full_attention"] * len(config["layer_types"])
    if isinstance(window, int) and not isinstance(window, bool) and window > 0:
        length = config.get("max_position_embeddings")
        config["max_position_embeddings"] = min(window, length) if isinstance(length, int) else window
    return config


def describe(args: EngineArgs, host: PluginHost, config: dict[str, Any]) -> tuple[ModelInfo, dict[str, Choice]]:
    """The model's facts, and who provides it: kinds ``model_impl`` and, for a native architecture, ``model``."""
    architectures = config.get("architectures")
    if (
        not isinstance(architectures, list)
        or not all(isinstance(name, str) for name in architectures)
        or not architectures
    ):
        raise ModelFileError(
            f"config.json: architectures is {architectures!r}; it must be a list of at least one name.",
            fix='--hf-overrides \'{"architectures": ["LlamaForCausalLM"]}\'',
        )
    native = {entry.name: entry.distribution for entry in host.entries(MODEL)}
    created = host.create(MODEL_IMPL, args.model_impl)
    choices = {MODEL_IMPL.name: created.choice}
    found = created.plugin.architecture(config, native)
    if isinstance(found, str):
        architecture = host.create(MODEL, found)
        choices[MODEL.name] = architecture.choice
        return architecture.plugin.describe(config), choices
    return found.describe(config), choices


def choose_dtype(args: EngineArgs, info: ModelInfo, device: DeviceFacts) -> tuple[str, str]:
    """The dtype of activations, and why. ``auto``: the checkpoint's own where the device has it; float32 stays only on a CPU."""
    if args.dtype != "auto":
        name = _DTYPES.get(args.dtype, args.dtype)
        if name not in device.dtypes:
            raise ConfigError(
                f"--dtype {args.dtype}: {device.name} ({device.description or 'this device'}) has {', '.join(device.dtypes)}.",
                fix=f"--dtype {device.dtypes[0]}",
            )
        return name, "asked for"
    own = info.dtype if info.dtype != "float64" else "float32"
    if own == "float32" and device.name != "cpu" and "float16" in device.dtypes:
        return "float16", "the checkpoint is float32, which accelerators run as float16"
    if own in device.dtypes:
        return own, "the checkpoint's own"
    return device.dtypes[0], f"the checkpoint is {own}, which {device.name} does not have"


def choose_length(args: EngineArgs, info: ModelInfo) -> tuple[ModelInfo, int, list[str]]:
    """``max_model_len`` with its warnings; the info grows with it where the user insists on more than the config allows."""
    asked = args.max_model_len
    if asked is None or asked <= info.max_model_len:
        return info, asked or info.max_model_len, []
    if any(os.environ.get(name) == "1" for name in _LONG_VARIABLES):
        note = f"--max-model-len {asked} is more than the {info.max_model_len} that the model's config allows; outputs may be wrong beyond."
        return msgspec.structs.replace(info, max_model_len=asked), asked, [note]
    raise ConfigError(
        f"--max-model-len {asked} is more than the {info.max_model_len} tokens that the model's config allows "
        f"({_LONG_VARIABLES[0]}=1 insists).",
        fix=f"--max-model-len {info.max_model_len}",
    )


def check_model(args: EngineArgs, info: ModelInfo, device: DeviceFacts) -> None:
    """What the model and the workers must fit each other in."""
    size = args.tensor_parallel_size
    if size == 1:
        return
    if "tensor_parallel" not in info.supports:
        raise ConfigError(
            f"--tensor-parallel-size {size}: {info.architecture} cannot be shared among workers.",
            fix="--tensor-parallel-size 1",
        )
    for spec in info.layers:
        if spec.num_heads % size or (spec.num_kv_heads % size and size % spec.num_kv_heads):
            fits = max(n for n in range(1, size + 1) if _divides(info, n))
            heads = f"{spec.num_heads} attention heads ({spec.num_kv_heads} KV heads)"
            raise ConfigError(
                f"--tensor-parallel-size {size} does not divide the model's {heads}.",
                fix=f"--tensor-parallel-size {fits}",
            )
    if not device.shared_memory and device.count and size > device.count:
        raise ConfigError(
            f"--tensor-parallel-size {size}: this machine has {device.count} of {device.name}.",
            fix=f"--tensor-parallel-size {device.count}",
        )


def _divides(info: ModelInfo, size: int) -> bool:
    return all(
        spec.num_heads % size == 0 and (spec.num_kv_heads % size == 0 or size % spec.num_kv_heads == 0)
        for spec in info.layers
    )
