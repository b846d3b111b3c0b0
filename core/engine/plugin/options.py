"""Options of a plugin: a typed dataclass or Struct named ``Options`` in its module, filled from a JSON object."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec

from engine.errors import ConfigError
from engine.plugin import spec
from engine.plugin.api import Choice
from engine.plugin.blame import origin
from engine.plugin.kinds import Kind


def takes_raw_options(hook: str) -> bool:
    """Whether the hook's specification passes ``options`` on as the plain JSON object that the user wrote."""
    parameter = inspect.signature(getattr(spec, hook)).parameters.get("options")
    return parameter is None or "dict" in str(parameter.annotation)


def describe_options(plugin: Any) -> Iterator[tuple[str, str, str]]:
    """(name, type, default) of each option; the default of a required one is empty."""
    kind = getattr(plugin, "Options", None)
    if kind is None:
        return
    hints = get_type_hints(kind)
    for field in _fields(kind):
        hint = hints[field.name]
        default = "" if field.required else repr(field.default)
        yield field.name, hint.__name__ if isinstance(hint, type) else str(hint), default


def fill_options(kind: Kind[Any], choice: Choice, plugin: Any, values: dict[str, Any]) -> Any:
    """The plugin's ``Options`` from ``values``, None where it has none; unknown keys and wrong types are refused."""
    wanted = getattr(plugin, "Options", None)
    if wanted is None:
        if values:
            raise ConfigError(
                f"{origin(kind, choice)} takes no options, but was given {_list(values)}.",
                fix="leave the options out, or name the plugin that they are meant for",
            )
        return None
    known = {name: f"{name}: {shown}" for name, shown, _ in describe_options(plugin)}
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(
            f"{origin(kind, choice)} has no option {_list(unknown)}. It knows: {', '.join(known.values()) or 'none'}.",
            fix="correct the option's name",
        )
    try:
        return msgspec.convert(values, wanted)
    except msgspec.ValidationError as error:
        text, _, path = str(error).rpartition(" - at `$.")
        where = f"option {path.rstrip('`')!r}: {text}" if text else str(error)
        raise ConfigError(f"{origin(kind, choice)}: {where}.", fix="correct the option's value") from error


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    required: bool
    default: Any


def _fields(kind: Any) -> Iterator[_Field]:
    """The fields of a dataclass or of a msgspec Struct."""
    if dataclasses.is_dataclass(kind):
        for item in dataclasses.fields(kind):
            factory = item.default_factory
            default = factory() if factory is not dataclasses.MISSING else item.default
            yield _Field(item.name, default is dataclasses.MISSING, default)
        return
    for field in msgspec.structs.fields(kind):
        yield _Field(field.encode_name, field.required, None if field.required else _struct_default(field))


def _struct_default(field: Any) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _list(keys: Any) -> str:
    return ", ".join(repr(key) for key in keys)
