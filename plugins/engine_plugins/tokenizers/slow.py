"""The model's tokenizer through transformers, the slow implementation where there is one."""

from __future__ import annotations

from pathlib import Path

from engine.plugin import Checkpoint, Tokenizer, Use, hookimpl

from ._settings import gguf_vocabulary

ENGINE_API = 1


@hookimpl
def engine_create_tokenizer(checkpoint: Checkpoint) -> Tokenizer | Use:
    if gguf_vocabulary(checkpoint) is not None:
        return Use("auto", "the vocabulary is in a GGUF file, which is read in one way only")
    from ._transformers import TransformersTokenizer

    return TransformersTokenizer(Path(checkpoint.tokenizer_path), trust_remote_code=checkpoint.trust_remote_code)
