"""Which parsers read the output: by name, or recognised from what the chat template makes the model write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.errors import ConfigError, UnavailablePlugin
from engine.plugin.api import Choice, Use
from engine.plugin.facts import Checkpoint
from engine.plugin.kinds import Kind

if TYPE_CHECKING:
    from engine.plugin.host import PluginHost

AUTO = "auto"
#: Larger files are no tokenizer's.
_LIMIT = 200_000_000


def split_options(flag: str, value: str) -> tuple[str, dict[str, Any]]:
    """``NAME`` or ``NAME:{JSON object}``. Raises ConfigError for options that are no JSON object."""
    name, mark, text = value.partition(":")
    if not mark:
        return name, {}
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{flag} {name}: the options after the colon are not JSON: {error}.", fix=f"{flag} {name}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{flag} {name}: the options after the colon must be a JSON object.", fix=f"{flag} {name}")
    return name, options


def choose_parser(kind: Kind[Any], name: str, host: PluginHost, checkpoint: Checkpoint, template: str | None) -> Choice:
    """The parser that ``name`` means; ``template`` is what --chat-template says. Raises PluginError."""
    choice = host.resolve(kind, name)
    if name != AUTO:
        return choice
    source = template or carried_template(checkpoint)
    answer = host.call(kind, choice, "engine_choose_parser", template=source, tokens=added_tokens(checkpoint))
    if not isinstance(answer, Use):
        names = ", ".join(entry.name for entry in host.entries(kind) if entry.name != AUTO)
        raise UnavailablePlugin(
            f"{kind.flag} auto: the model's chat template and vocabulary show no format that is known. Installed: {names}.",
            fix=f"{kind.flag} NAME",
        )
    return msgspec.structs.replace(host.resolve(kind, answer.name), asked=AUTO, reason=answer.reason)


def carried_template(checkpoint: Checkpoint) -> str:
    """The source of the chat templates beside the tokenizer, one after the other; empty where there is none."""
    place = Path(checkpoint.tokenizer_path)
    found = [file.read_text(encoding="utf-8") for file in (place / "chat_template.jinja",) if file.is_file()]
    found += [file.read_text(encoding="utf-8") for file in sorted((place / "additional_chat_templates").glob("*.jinja"))]
    if not found:
        for name in ("chat_template.json", "tokenizer_config.json"):
            found += _strings(_read(place / name).get("chat_template"))
    return "\n".join(found)


def added_tokens(checkpoint: Checkpoint) -> frozenset[str]:
    """The entries that the tokenizer has beside its vocabulary proper."""
    place = Path(checkpoint.tokenizer_path)
    declared = _read(place / "tokenizer_config.json").get("added_tokens_decoder")
    rows = list(declared.values()) if isinstance(declared, dict) else _read(place / "tokenizer.json").get("added_tokens") or []
    return frozenset(row["content"] for row in rows if isinstance(row, dict) and isinstance(row.get("content"), str))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for text in value.values() if isinstance(text, str)]
    rows = value if isinstance(value, list) else []
    return [row["template"] for row in rows if isinstance(row, dict) and isinstance(row.get("template"), str)]


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is none (the tokenizer that reads it says what is wrong)."""
    if not file.is_file() or file.stat().st_size > _LIMIT:
        return {}
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
