"""What ``engine plan`` shows: every decision with its reason, the memory, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.combinations import combinations, summary
from engine.errors import EngineError, advised
from engine.plan import gib
from engine.plugin import kinds

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs
    from engine.args.resolve import Resolver
    from engine.config import EngineConfig
    from engine.plugin.host import PluginHost


def examine(args: EngineArgs, host: PluginHost | None = None) -> tuple[dict[str, Any], EngineError | None]:
    """The report, as far as the decisions got, and the error that ended them. Reads headers alone; torch stays unimported."""
    from engine.args.resolve import Resolver
    from engine.plugin.host import PluginHost

    resolver = Resolver(args, host or PluginHost())
    try:
        config = resolver.resolve()
        return config.plan | {"warnings": [*config.plan["warnings"], *_check_texts(config, resolver.host)]}, None
    except EngineError as error:
        found = report(resolver)
        found["refused"] = [refusal(error)]
        return found, error


def _check_texts(config: EngineConfig, host: PluginHost) -> list[str]:
    """What a start would find of tokenizer and chat template; raises its errors. Warnings otherwise."""
    from engine.plugin.kinds import TOKENIZER
    from engine.render.template import load_templates

    model = config.model
    if model.skip_tokenizer_init:
        return []
    tokenizer = host.create(TOKENIZER, config.choices["tokenizer"], checkpoint=model.checkpoint, name=model.tokenizer_name).plugin
    load_templates(config.server.chat_template, tokenizer.chat_template(), tokenizer.special_tokens())
    width = model.info.logits_size or model.info.vocab_size
    if tokenizer.size() > width:
        return [f"The tokenizer has {tokenizer.size()} tokens, the model {width}; prompts with the others are refused."]
    return []


def refusal(error: EngineError) -> dict[str, Any]:
    """An error as the report lists it."""
    return {"error": type(error).__name__, "status": error.status, "cause": str(error), "fix": error.fix}


def report(resolver: Resolver) -> dict[str, Any]:
    """Plain values only: the report travels between processes and becomes JSON. Sizes are bytes."""
    found: dict[str, Any] = {
        "model": _model(resolver),
        "plugins": _plugins(resolver),
        "device": None if resolver.device is None else _device(resolver),
        "quantization": resolver.quantized,
        "weights": None,
        "kv_cache": None,
        "scheduler": None,
        "expected_rss": None,
        "combinations": combinations(),
        "warnings": list(resolver.warnings),
        "refused": [],
    }
    if resolver.weights is not None:
        weights = resolver.weights
        found["weights"] = {"tensors": weights.tensors, "stored_bytes": weights.stored, "bytes": weights.resident} | _offloaded(resolver)
    if resolver.scheduler is not None:
        found["scheduler"] = {name: getattr(resolver.scheduler, name) for name in resolver.scheduler.__struct_fields__}
    if resolver.cache is not None and resolver.max_model_len is not None:
        found["kv_cache"] = _cache(resolver)
        found["expected_rss"] = resolver.cache.rss + (found["weights"] or {}).get("offloaded_bytes", 0)
    return found


def _offloaded(resolver: Resolver) -> dict[str, Any]:
    """What --cpu-offload-gb does here; nothing where it is not given."""
    args, weights, device = resolver.args, resolver.weights, resolver.device
    if not args.cpu_offload_gb or weights is None or device is None:
        return {}
    if device.shared_memory:
        return {"offload": f"--cpu-offload-gb {args.cpu_offload_gb:g}: all weights are in host memory on {device.name} anyway"}
    workers = args.tensor_parallel_size
    kept = weights.offloaded(int(args.cpu_offload_gb * 2**30), workers)
    return {
        "offloaded_bytes": kept,
        "offload": f"--cpu-offload-gb {args.cpu_offload_gb:g}: up to {gib(kept)} stay in host memory and are copied over during each step, "
        f"{gib(weights.on_device(int(args.cpu_offload_gb * 2**30), workers))} are on {device.name}",
    }  # fmt: skip


def _model(resolver: Resolver) -> dict[str, Any]:
    info, checkpoint = resolver.info, resolver.checkpoint
    found: dict[str, Any] = {"name": resolver.args.model, "path": checkpoint.path if checkpoint else None}
    if info is not None:
        found |= {
            "architecture": info.architecture, "checkpoint_dtype": info.dtype, "dtype": resolver.dtype,
            "dtype_reason": resolver.dtype_reason, "max_model_len": resolver.max_model_len, "vocab_size": info.vocab_size,
            "layers": len(info.layers), "task": resolver.task,
            "eos_token_ids": list(info.eos_token_ids),
        }  # fmt: skip
    return found


def _plugins(resolver: Resolver) -> list[dict[str, Any]]:
    """The chosen plugin of each kind, why, and who else is installed."""
    found = []
    for kind in kinds.KINDS:
        choice = resolver.choices.get(kind.name)
        if choice is None:
            continue
        others = sorted({entry.name for entry in resolver.host.entries(kind)} - {choice.name})
        why = choice.reason or _why(resolver, kind.flag, choice.name)
        found.append({
            "kind": kind.name, "name": choice.name, "asked": choice.asked, "reason": why, "distribution": choice.distribution,
            "module": choice.module, "others": others,
        })  # fmt: skip
    return found


def _why(resolver: Resolver, flag: str | None, name: str) -> str:
    if flag is None:
        return "the config's architectures"
    dest = flag.lstrip("-").replace("-", "_")
    if dest in resolver.args.given:
        return f"{flag} {getattr(resolver.args, dest)}"
    if dest == "quantization":
        return "the checkpoint's quantization_config"
    if dest == "distributed_executor_backend":
        return f"default for {resolver.args.tensor_parallel_size} worker(s)"
    return "default"


def _device(resolver: Resolver) -> dict[str, Any]:
    facts = resolver.device
    if facts is None:
        return {}
    processes = resolver.args.tensor_parallel_size if facts.shared_memory else 1
    return {
        "name": facts.name, "description": facts.description, "total_memory": facts.total_memory, "free_memory": facts.free_memory,
        "shared_memory": facts.shared_memory,
        "runtime_bytes": facts.runtime_bytes * processes, "memory_fraction": resolver.args.gpu_memory_utilization,
    }  # fmt: skip


def _cache(resolver: Resolver) -> dict[str, Any]:
    size, length = resolver.cache, resolver.max_model_len
    if size is None or length is None:
        return {}
    return {
        "dtype": resolver.storage, "bytes_per_token": size.bytes_per_token, "block_size": size.block_size, "page_bytes": size.page_bytes,
        "blocks": size.pages, "host_blocks": size.host_pages, "bytes": size.pages * size.page_bytes,
        "host_bytes": size.host_pages * size.page_bytes, "tokens": size.pages * size.block_size,
        "max_concurrency": round(size.concurrency(length), 2), "budget_bytes": size.budget,
        "prefix_caching": resolver.args.enable_prefix_caching is not False,
    }  # fmt: skip


def render(found: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"model      {found['model']['name']}  ({found['model']['path'] or 'not found'})"]
    model, device = found["model"], found["device"]
    if "architecture" in model:
        lines.append(
            f"           {model['architecture']}, {model['dtype']} ({model['dtype_reason']}), up to {model['max_model_len']} tokens"
        )
    if device:
        free = f"{gib(device['free_memory'])} free of {gib(device['total_memory'])}"
        lines.append(f"device     {device['name']}: {device['description']}; {free}")
    if found["quantization"]:
        about = ", ".join(_described(key, value) for key, value in found["quantization"].items() if key != "method")
        lines.append(f"quantized  {found['quantization']['method']}: {about}")
    if found["weights"]:
        weights = found["weights"]
        lines.append(
            f"weights    {gib(weights['bytes'])} in {weights['tensors']} tensors ({gib(weights['stored_bytes'])} on disk)"
        )
        if "offload" in weights:
            lines.append(f"           {weights['offload']}")
    if found["kv_cache"]:
        lines += _cache_lines(found["kv_cache"], model)
    if found["expected_rss"]:
        lines.append(
            f"memory     {gib(found['expected_rss'])} resident in all, {gib(device['runtime_bytes'])} of it for the server itself"
        )
    lines.append("plugins")
    for row in found["plugins"]:
        others = f"; also: {', '.join(row['others'])}" if row["others"] and row["kind"] != "model" else ""
        asked = f" (for {row['asked']})" if row["asked"] != row["name"] else ""
        lines.append(f"  {row['kind']:<15} {row['name']}{asked}: {row['reason']}, from {row['distribution']}{others}")
    lines.append(f"together   {summary(found['combinations'])}")
    lines += [f"warning    {warning}" for warning in found["warnings"]]
    for row in found["refused"]:
        lines.append(f"refused    {advised(row['cause'], row['fix'])}")
    return "\n".join(lines)


def _described(key: str, value: object) -> str:
    """A fact about a quantization, or the facts by layout, in words."""
    if isinstance(value, dict):
        return f"{key}: " + "; ".join(f"{part}, {what}" for part, what in value.items())
    return f"{key} {value}"


def _cache_lines(cache: dict[str, Any], model: dict[str, Any]) -> list[str]:
    swap = f", {cache['host_blocks']} host blocks" if cache["host_blocks"] else ""
    return [
        f"kv cache   {gib(cache['bytes'])}: {cache['blocks']} blocks of {cache['block_size']} tokens in {cache['dtype']}{swap}",
        f"           {gib(cache['bytes_per_token'])} per token, {gib(cache['page_bytes'])} per block; "
        f"{cache['max_concurrency']:g} sequences of {model['max_model_len']} tokens at once",
    ]
