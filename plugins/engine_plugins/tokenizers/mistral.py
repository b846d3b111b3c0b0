"""Mistral's own vocabularies (tekken.json, tokenizer.model.v*) and chat format, through mistral-common."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Tokenizer, hookimpl

ENGINE_API = 1
PATTERNS = ("tekken.json", "tokenizer.model.v*", "tokenizer.mm.model.v*")


def vocabulary_file(place: Path) -> Path:
    """The one vocabulary in a directory, or the file itself. Raises :class:`ModelFileError` for none and for several."""
    if place.is_file():
        return place
    found = sorted({file for pattern in PATTERNS for file in place.glob(pattern)})
    if len(found) == 1 and found[0].is_file():
        return found[0]
    names = ", ".join(PATTERNS)
    if not found:
        raise ModelFileError(f"{place} has no file of {names}, which --tokenizer-mode mistral reads.", fix="--tokenizer-mode auto")
    raise ModelFileError(
        f"{place} has {len(found)} files of {names}: {', '.join(file.name for file in found)}; one regular file was expected.",
        fix=f"--tokenizer {found[0]}",
    )


@hookimpl
def engine_create_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    from ._mistral import MistralCommonTokenizer

    return MistralCommonTokenizer(vocabulary_file(Path(checkpoint.tokenizer_path)))
