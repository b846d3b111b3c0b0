"""Which quantization method reads a checkpoint: its own word, side files, methods that take another's checkpoints, the flag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from engine.args.spelling import nearest
from engine.errors import ConfigError, ModelFileError, PluginError
from engine.plugin.api import Choice
from engine.plugin.facts import Checkpoint, DeviceFacts, ModelInfo, QuantizationFacts
from engine.plugin.kinds import LOADER, QUANTIZATION

if TYPE_CHECKING:
    from engine.args.engine_args import EngineArgs
    from engine.plugin.contracts.packed import Quantizer
    from engine.plugin.host import PluginHost

#: What other engines and their tools call a method in a checkpoint.
_SPELLINGS = {"modelopt_fp8": "modelopt", "modelopt_fp4": "modelopt", "modelopt_mixed": "modelopt", "inc": "auto-round"}
#: Largest side file that is read.
_FILE_LIMIT = 64 << 20


class Quantization(NamedTuple):
    """The method, its configuration (None: it quantizes a plain checkpoint while loading) and where that stands."""

    choice: Choice
    config: dict[str, Any] | None
    source: str
    facts: QuantizationFacts


class Found(NamedTuple):
    """A quantization config and where it stands; ``method`` "" where it names none."""

    config: dict[str, Any]
    source: str
    method: str


def choose_quantization(
    args: EngineArgs, host: PluginHost, checkpoint: Checkpoint, config: dict[str, Any], device: DeviceFacts, load_format: str,
    adapter: dict[str, Any] | None = None,
) -> Quantization | None:  # fmt: skip
    """The method that flag and checkpoint agree on; None for plain weights. ``adapter``: the config of an adapter beside plain weights.

    Without a flag the checkpoint's word holds, where no other method claims it. Raises :class:`ConfigError` naming both where the flag
    contradicts it, :class:`ModelFileError` where a config is missing, doubled or damaged.
    """
    methods = _Methods(host, device)
    asked = args.quantization or methods.implied(load_format)
    found = own_config(config)
    if adapter is not None:
        if found is not None:
            raise ConfigError(
                f"--qlora-adapter-name-or-path goes with a plain model, but {found.source} says that this one is quantized already.",
                fix="the unquantized model that the adapter was trained on",
            )
        found = Found(adapter, "adapter_config.json", "bitsandbytes")
    found = found or side_config(checkpoint, methods, asked)
    if found is None:
        return None if asked is None else _without_config(checkpoint, methods, asked)
    if load_format == "dummy":
        raise ConfigError(
            f"--load-format dummy invents plain weights, but {found.source} says that they are quantized.",
            fix="--hf-overrides '{\"quantization_config\": null}'",
        )
    own = methods.spelled(found.method)
    claimed = methods.claimed(found.config, own, asked)
    if claimed is None and asked not in (None, own):
        raise ConfigError(
            f"--quantization {asked} contradicts the checkpoint: {found.source} says {found.method}.",
            fix=f"--quantization {own}" if own in methods.installed else "leave --quantization out",
        )
    name, reason = claimed or (own, "")
    choice = methods.resolve(name, f"{found.source}'s quantization" if asked is None else "--quantization")
    if asked is None:
        reason = f"{found.source} says {found.method or 'nothing, but has the keys of ' + name}" + (f"; {reason}" if reason else "")
        choice = msgspec.structs.replace(choice, asked=found.method or name, reason=reason)
    else:
        choice = msgspec.structs.replace(choice, asked=asked, reason=f"--quantization {asked}" + (f"; {reason}" if reason else ""))
    return Quantization(choice, found.config, found.source, methods.facts(name))


def own_config(config: dict[str, Any]) -> Found | None:
    """What the model's config says: ``quantization_config``, else its text model's, else ``compression_config``."""
    text = config.get("text_config")
    places = (
        ("config.json: quantization_config", config.get("quantization_config")),
        ("config.json: text_config.quantization_config", text.get("quantization_config") if isinstance(text, dict) else None),
        ("config.json: compression_config", config.get("compression_config")),
    )
    for source, found in places:
        if found is None:
            continue
        method = found.get("quant_method", _unnamed(found, source)) if isinstance(found, dict) else None
        if not isinstance(method, str) or not method:
            raise ModelFileError(f"{source}.quant_method is {method!r}; it must name a method.")
        return Found(found, source, method.lower())
    return None


def _unnamed(config: dict[str, Any], source: str) -> str | None:
    """The method of a config that does not say: the key under which it stands, or switches of bitsandbytes, which once named none."""
    if source.endswith("compression_config"):
        return "compressed-tensors"
    return "bitsandbytes" if config.get("load_in_8bit") is True or config.get("load_in_4bit") is True else None


def side_config(checkpoint: Checkpoint, methods: _Methods, asked: str | None) -> Found | None:
    """The config in a JSON file of the model's folder: one that the asked method names, or that some method recognises."""
    folder = Path(checkpoint.config_path)
    if asked is not None:
        present = _present(folder, methods.facts(asked).files)
        if len(present) > 1:
            files = " and ".join(path.name for path in present)
            raise ModelFileError(f"--quantization {asked}: the model has {files}; only one can be the config.", fix="remove one of them")
        return _read(present[0], asked) if present else None
    return recognised(folder, methods)


def recognised(folder: Path, methods: _Methods) -> Found | None:
    """The config of a model that says nothing in config.json: a side file whose method is named in it or claims it."""
    candidates = {path for path in folder.glob("*quant*config*.json") if path.name != "config.json"} if folder.is_dir() else set()
    if not candidates:
        return None
    found = []
    for name in sorted(methods.installed):
        for path in _present(folder, methods.facts(name).files):
            content = _read(path, "")
            own = content.method in (name, "") if content.method else methods.claim(name, content.config, "", None) is not None
            if path in candidates and own:
                found.append(Found(content.config, content.source, name))
    if len(found) > 1:
        pairs = ", ".join(f"{each.method} ({each.source})" for each in found)
        raise ModelFileError(f"The model's folder has more than one quantization config: {pairs}.", fix=f"--quantization {found[0].method}")
    return found[0] if found else None


def _present(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _read(path: Path, method: str) -> Found:
    """A side file; its ``quant_method`` where it has one, else ``method``."""
    try:
        if path.stat().st_size > _FILE_LIMIT:
            raise ModelFileError(f"{path.name} has {path.stat().st_size} bytes; no quantization config is larger than {_FILE_LIMIT}.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path.name} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path.name} holds {type(content).__name__}; a quantization config is an object.")
    named = content.get("quant_method")
    return Found(content, path.name, named.lower() if isinstance(named, str) and named else method)


def _without_config(checkpoint: Checkpoint, methods: _Methods, asked: str) -> Quantization:
    """A method on a checkpoint that says nothing of quantization: it works online, or needs a config that is not there."""
    choice = methods.resolve(asked, "--quantization")
    facts = methods.facts(asked)
    if not facts.online:
        where = "no quantization_config in config.json" + (f", and no {' or '.join(facts.files)}" if facts.files else "")
        raise ModelFileError(
            f"--quantization {asked} reads checkpoints that are quantized already, but {checkpoint.model} has {where}.",
            fix="leave --quantization out",
        )
    return Quantization(choice, None, "", facts)


class _Methods:
    """The installed methods, and what their modules answer without torch."""

    def __init__(self, host: PluginHost, device: DeviceFacts) -> None:
        self.host, self.device = host, device
        self.installed = {entry.name for entry in host.entries(QUANTIZATION)}

    def implied(self, load_format: str) -> str | None:
        """A load format that is a quantization method too (gguf, bitsandbytes) asks for it."""
        return load_format if load_format in self.installed else None

    def spelled(self, method: str) -> str:
        """The installed name that a checkpoint's spelling means, which may name its vendor first."""
        method = method.rpartition("/")[2]
        method = _SPELLINGS.get(method, method)
        return next((name for name in (method, method.replace("_", "-"), method.replace("-", "_")) if name in self.installed), method)

    def facts(self, name: str) -> QuantizationFacts:
        """What the method says of itself; nothing where it is not installed or does not say."""
        return self._ask(name, "engine_describe_quantization") or QuantizationFacts()

    def claim(self, name: str, config: dict[str, Any], method: str, asked: str | None) -> str | None:
        """Why that method takes a checkpoint of another one; None where it does not."""
        reason = self._ask(name, "engine_claim_quantization", config=config, method=method, asked=asked, device=self.device)
        return str(reason) if reason else None

    def claimed(self, config: dict[str, Any], own: str, asked: str | None) -> tuple[str, str] | None:
        """The first method that takes the checkpoint from its own one, with the reason."""
        names = [*self.facts(own).successors, *([asked] if asked else [])]
        for name in names:
            if name in self.installed and name != own and (reason := self.claim(name, config, own, asked)):
                return name, reason
        return None

    def resolve(self, name: str, where: str) -> Choice:
        """The one plugin of that name."""
        if name in self.installed:
            return self.host.resolve(QUANTIZATION, name)
        near = nearest(name, sorted(self.installed))
        hint = f" Did you mean {near}?" if near else ""
        raise PluginError(
            f"{where} {name}: no such plugin is installed (installed: {', '.join(sorted(self.installed)) or 'none'}).{hint}",
            fix="an unquantized checkpoint of the model",
        )

    def _ask(self, name: str, hook: str, **given: Any) -> Any:
        if name not in self.installed or not hasattr(self.host.module(QUANTIZATION, name), hook):
            return None
        return self.host.call(QUANTIZATION, name, hook, **given)


def check_dtype(found: Quantization, dtype: str, device: DeviceFacts) -> list[str]:
    """A warning where the activations' dtype is not one of the method's; an error where that is a limit of the device's kernels."""
    dtypes = found.facts.dtypes
    if not dtypes or dtype in dtypes:
        return []
    cause = f"Quantization {found.choice.name} is defined for activations in {' or '.join(dtypes)}, not in {dtype}"
    if device.name != "cpu":
        raise ConfigError(f"{cause}.", fix=f"--dtype {dtypes[0]}")
    return [f"{cause}; {device.name} computes it all the same."]


def own_loader(found: Quantization, host: PluginHost) -> str:
    """The load format that a method brings (bitsandbytes), else ``auto``."""
    name = found.choice.name
    return name if name == "bitsandbytes" and any(entry.name == name for entry in host.entries(LOADER)) else "auto"


def describe_quantization(
    host: PluginHost, found: Quantization, checkpoint: Checkpoint, info: ModelInfo, device: DeviceFacts
) -> tuple[Choice, dict[str, Any], Quantizer]:
    """The final choice, what ``engine plan`` shows of it, and the quantizer: a config that it cannot read is refused here."""
    created = host.create(QUANTIZATION, found.choice, checkpoint=checkpoint, config=found.config, info=info)
    config = "none: weights are quantized while loading" if found.config is None else found.source
    kernels = {layout: _kernel(layout, device) for layout in created.plugin.layouts()}
    known = {"kernels": kernels} if kernels and device.layouts is not None else {}
    shown = {"method": created.choice.name, "config": config} | created.plugin.describe() | known
    return created.choice, shown, created.plugin


def _kernel(layout: str, device: DeviceFacts) -> str:
    """What multiplies weights of that layout."""
    if layout in (device.layouts or ()):
        return f"a kernel of {device.name}"
    return f"none of {device.name}: dequantized in slices at each product"
