"""What lies beside a vocabulary: special tokens, added tokens and chat templates."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError
from engine.plugin import Checkpoint

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LIMIT = 200_000_000


@dataclass(frozen=True)
class AddedToken:
    """One token beside the vocabulary, with the flags that decide how it matches in a text."""

    content: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False


@dataclass(frozen=True)
class Settings:
    """Special tokens by role, and the chat template(s).

    ``declared`` tokens hold with exactly these flags; ``special`` ones need only be there, with whatever flags.
    Both are added in this order where the vocabulary's own file lacks them.
    """

    named: dict[str, str]
    declared: tuple[AddedToken, ...]
    special: tuple[AddedToken, ...]
    chat_template: str | dict[str, str] | None


def read_settings(place: Path) -> Settings:
    """From tokenizer_config.json, special_tokens_map.json, added_tokens.json and chat template files.

    ``add_bos_token`` and ``add_eos_token`` are not read: tokenizer.json's own post-processor says what is added, as
    transformers 5 has it too. Raises :class:`ModelFileError` naming file and key.
    """
    config = read_json(place / "tokenizer_config.json")
    decoder = config.get("added_tokens_decoder")
    values = config if decoder is not None else config | read_json(place / "special_tokens_map.json")
    declared = [
        _token(place / "tokenizer_config.json", "added_tokens_decoder", token, special=False)
        for _, token in sorted((decoder or {}).items(), key=lambda item: int(item[0]))
    ]
    named: dict[str, str] = {}
    special: list[AddedToken] = []
    # the usual roles first, then the model's own such as image_token: new tokens get their ids in this order
    roles = [key for key in values if key in NAMED and values[key] is not None]
    roles += [key for key in values if key.endswith("_token") and key not in NAMED and isinstance(values[key], str | dict)]
    for key in sorted(roles, key=lambda key: NAMED.index(key) if key in NAMED else len(NAMED)):
        token = _token(place / "tokenizer_config.json", key, values[key], special=True)
        named[key] = token.content
        special.append(token)
    extra = values.get("extra_special_tokens") or values.get("additional_special_tokens") or []
    for value in extra.values() if isinstance(extra, dict) else extra:
        special.append(_token(place / "tokenizer_config.json", "extra_special_tokens", value, special=True))
    if decoder is None:
        declared = _legacy(place, {token.content for token in special})
    return Settings(named, tuple(declared), tuple(special), _chat_template(place, config))


def gguf_vocabulary(checkpoint: Checkpoint) -> Path | None:
    """The GGUF file that holds the vocabulary: one that --tokenizer names, or the model where nothing lies beside it."""
    place = Path(checkpoint.tokenizer_path)
    if place.is_file():
        return place
    beside = any((place / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))
    return checkpoint.directory if checkpoint.directory.is_file() and not beside else None


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where the file does not exist."""
    if not file.exists():
        return {}
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LIMIT:
        raise ModelFileError(f"{file} is not a regular file of at most {_LIMIT} bytes.", fix="download it again")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{file} is not valid JSON: {error}.", fix="download it again") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{file} holds no JSON object.", fix="download it again")
    return content


def _token(file: Path, key: str, value: Any, *, special: bool) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=special)
    flags = ("lstrip", "rstrip", "single_word", "normalized")
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ModelFileError(f"{file}: {key} holds {value!r:.100}, which is not a token.", fix="download it again")
    return AddedToken(
        value["content"],
        special=bool(value.get("special", special)) or special,
        **{flag: bool(value.get(flag, False)) for flag in flags},
    )


def _legacy(place: Path, special: set[str]) -> list[AddedToken]:
    """The tokens of added_tokens.json, by id."""
    found = read_json(place / "added_tokens.json")
    ordered = sorted(found.items(), key=lambda item: item[1])
    return [AddedToken(text, special=text in special, normalized=text not in special) for text, _ in ordered]


def _chat_template(place: Path, config: dict[str, Any]) -> str | dict[str, str] | None:
    """Template files come before the configuration's entry."""
    found: dict[str, str] = {}
    if (place / "chat_template.jinja").is_file():
        found["default"] = (place / "chat_template.jinja").read_text(encoding="utf-8")
    for file in sorted((place / "additional_chat_templates").glob("*.jinja")):
        found[file.stem] = file.read_text(encoding="utf-8")
    entry = None if found else read_json(place / "chat_template.json").get("chat_template", config.get("chat_template"))
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list):
        try:
            found = {str(item["name"]): str(item["template"]) for item in entry}
        except (TypeError, KeyError) as error:
            raise ModelFileError(f"{place}: chat_template is a list without name and template.") from error
    elif isinstance(entry, dict):
        found = {str(name): str(template) for name, template in entry.items()}
    elif entry is not None:
        raise ModelFileError(f"{place}: chat_template is {entry!r:.100}, which is no template.")
    return found["default"] if list(found) == ["default"] else found or None
