"""The model's tokenizer.json through the tokenizers library; other vocabularies through transformers."""

from __future__ import annotations

from pathlib import Path

from engine.plugin import Checkpoint, Tokenizer, Use, hookimpl

from ._settings import gguf_vocabulary

ENGINE_API = 1


@hookimpl
def engine_create_tokenizer(checkpoint: Checkpoint) -> Tokenizer | Use:
    place = Path(checkpoint.tokenizer_path)
    file = gguf_vocabulary(checkpoint)
    if file is not None:
        from ._gguf import GgufTokenizer

        return GgufTokenizer(file)
    if not (place / "tokenizer.json").exists():
        return Use("slow", f"{place} has no tokenizer.json, so transformers converts the vocabulary that is there")
    from ._fast import FastTokenizer

    return FastTokenizer(place)
