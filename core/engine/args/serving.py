"""The HTTP side of the configuration, and the defaults of requests."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.args.parsers import split_options
from engine.config import ServerConfig
from engine.errors import ConfigError, ModelFileError
from engine.plugin import kinds

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs
    from engine.plugin.host import PluginHost

#: Sampling defaults that a generation config may set: name → (type, smallest, largest). A request must be able to live with them.
_DEFAULTS: dict[str, tuple[tuple[type, ...], float, float]] = {
    "temperature": ((int, float), 0, math.inf), "top_p": ((int, float), 0, 1), "top_k": ((int,), -1, math.inf),
    "min_p": ((int, float), 0, 1), "repetition_penalty": ((int, float), 0, 2), "max_new_tokens": ((int,), 1, math.inf),
}  # fmt: skip
#: Those that must be above their smallest value.
_ABOVE = frozenset(("top_p", "repetition_penalty"))
#: Addresses that only this machine reaches.
LOCAL_HOSTS = frozenset(("127.0.0.1", "localhost", "::1"))
_KEY_VARIABLES = ("ENGINE_API_KEY", "VLLM_API_KEY")


def server_config(args: EngineArgs, generation: dict[str, Any]) -> ServerConfig:
    """``generation``: the content of the generation config that :func:`generation_config` chose."""
    defaults = sampling_defaults(generation, args.generation_config, args.override_generation_config or {})
    limit = defaults.pop("max_new_tokens", None)
    keys = [*args.api_key, *(os.environ[name] for name in _KEY_VARIABLES if os.environ.get(name))]
    return ServerConfig(
        host=args.host or "127.0.0.1", port=args.port, api_keys=tuple(dict.fromkeys(keys)), max_logprobs=args.max_logprobs,
        chat_template=read_template(args.chat_template), chat_template_content_format=args.chat_template_content_format,
        request_templates=args.trust_request_chat_template,
        response_role=args.response_role or "assistant", return_tokens_as_token_ids=args.return_tokens_as_token_ids,
        enable_request_id_headers=args.enable_request_id_headers, enable_prompt_tokens_details=args.enable_prompt_tokens_details,
        enable_server_load_tracking=args.enable_server_load_tracking, disable_fastapi_docs=args.disable_fastapi_docs,
        disable_log_stats=args.disable_log_stats, disable_log_requests=args.disable_log_requests, max_log_len=args.max_log_len,
        uvicorn_log_level=args.uvicorn_log_level, disable_uvicorn_access_log=args.disable_uvicorn_access_log,
        root_path=args.root_path or "", ssl_keyfile=args.ssl_keyfile, ssl_certfile=args.ssl_certfile, ssl_ca_certs=args.ssl_ca_certs,
        ssl_cert_reqs=args.ssl_cert_reqs, ssl_refresh=args.enable_ssl_refresh,
        allow_credentials=args.allow_credentials, allowed_origins=tuple(args.allowed_origins),
        allowed_methods=tuple(args.allowed_methods), allowed_headers=tuple(args.allowed_headers), middleware=tuple(args.middleware),
        frontend_multiprocessing=not args.disable_frontend_multiprocessing, restart=not args.disable_engine_restart,
        silence_timeout=args.engine_silence_timeout, step_timeout=args.step_timeout, drain_timeout=args.drain_timeout,
        max_queued_requests=args.max_queued_requests or None, max_queued_tokens=args.max_queued_tokens or None,
        default_sampling=defaults, max_new_tokens=limit,
        extensions=tuple(args.extensions or ()), extension_options=args.extension_options or {},
        auto_tool_choice=args.enable_auto_tool_choice,
        reasoning_options=split_options("--reasoning-parser", args.reasoning_parser or "")[1],
        tool_options=split_options("--tool-call-parser", args.tool_call_parser or "")[1],
    )  # fmt: skip


def check_extensions(host: PluginHost, args: EngineArgs) -> None:
    """Raises PluginError for an extension that is not installed, ConfigError for options that it does not have."""
    options = args.extension_options or {}
    for name in args.extensions or ():
        given = options.get(name, {})
        if not isinstance(given, dict):
            raise ConfigError(f"--extension-options: {name} must have a JSON object.", fix=f'--extension-options \'{{"{name}": {{}}}}\'')
        host.options(kinds.EXTENSION, host.resolve(kinds.EXTENSION, name), given)
    for name in options:
        if name not in (args.extensions or ()):
            raise ConfigError(f"--extension-options: the extension {name} is not enabled.", fix=f"--extensions {name}")


def generation_config(args: EngineArgs, own: dict[str, Any]) -> dict[str, Any]:
    """The generation config that --generation-config names: the model's ``own``, none (``vllm``), or a directory's."""
    source = args.generation_config
    if source == "auto":
        return own
    if source in (None, "vllm"):
        return {}
    path = Path(source).expanduser()
    path = path / "generation_config.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--generation-config {source}: {path} cannot be read ({error}).", fix="--generation-config vllm"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(f"--generation-config {source}: {path} is not a JSON object.", fix="--generation-config vllm")
    return content


def sampling_defaults(generation: dict[str, Any], source: str | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """Request defaults by name.

    Raises :class:`ConfigError` for overrides that are unknown or out of range, :class:`ModelFileError` for values of the file that are.
    """
    known = (*_DEFAULTS, "eos_token_id")
    unknown = [key for key in overrides if key not in known]
    if unknown:
        raise ConfigError(
            f"--override-generation-config: {', '.join(unknown)}: not among {', '.join(known)}.", fix="correct the key"
        )
    found: dict[str, Any] = {}
    for key, (types, low, high) in _DEFAULTS.items():
        where = "--override-generation-config" if key in overrides else f"generation_config.json ({source})"
        value = overrides[key] if key in overrides else generation.get(key)
        if value is None:
            continue
        if not _within(value, types, low, high) or (key in _ABOVE and value <= low):
            beginning = f"above {low}" if key in _ABOVE else f"of at least {low}"
            bounds = beginning + (f" and at most {high:g}" if math.isfinite(high) else "")
            text = f"{where}: {key} is {value!r}; it must be a number {bounds}."
            if key in overrides:
                raise ConfigError(text, fix="--override-generation-config with another value")
            raise ModelFileError(text, fix="--generation-config vllm")
        found[key] = value
    if found.get("top_k") == 0:
        found["top_k"] = -1
    return found


def _within(value: int | float, types: tuple[type, ...], low: float, high: float) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high


def end_tokens(
    generation: dict[str, Any], overrides: dict[str, Any], own: tuple[int, ...], vocab_size: int
) -> tuple[int, ...]:
    """The ids that end an output: the model config's own and the generation config's. Raises as :func:`sampling_defaults`."""
    value = overrides.get("eos_token_id", generation.get("eos_token_id"))
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocab_size for token in ids):
        cause = f"eos_token_id is {value!r}; it must be ids from 0 to {vocab_size - 1}."
        if "eos_token_id" in overrides:
            raise ConfigError(f"--override-generation-config: {cause}", fix="--override-generation-config with other ids")
        raise ModelFileError(f"generation_config.json: {cause}", fix="--generation-config vllm")
    if "eos_token_id" in overrides:
        return tuple(ids)
    return tuple(dict.fromkeys([*own, *ids]))


def read_template(text: str | None) -> str | None:
    """The template itself: a file's content, or the text as it is."""
    if text is None or any(mark in text for mark in "{}\n"):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--chat-template {text}: cannot be read ({error}).", fix="check the file") from error
