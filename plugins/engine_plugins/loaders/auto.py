"""Chooses the loader by the files there are: safetensors, else PyTorch's .bin, else .pt."""

from __future__ import annotations

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, Use, hookimpl

from ._files import SAFETENSORS, TORCH, listing, weight_files

ENGINE_API = 1


@hookimpl
def engine_create_loader(checkpoint: Checkpoint) -> Use:
    if checkpoint.path.endswith(".gguf"):
        return Use("gguf", f"{checkpoint.path} is a GGUF file")
    if checkpoint.model.startswith("s3://"):
        return Use("runai_streamer", f"{checkpoint.model} is in an object store")
    found = sorted(checkpoint.directory.glob("*.safetensors")) if checkpoint.directory.is_dir() else []
    if found and all(file.name.startswith("consolidated") for file in found):
        return Use("mistral", f"only {found[0].name} is there, the publisher's original")
    if found and all(file.match("model-rank-*-part-*.safetensors") for file in found):
        return Use("sharded_state", f"only files such as {found[0].name} are there, which engine save-sharded wrote")
    for name, patterns in (("safetensors", SAFETENSORS), ("pt", TORCH)):
        if files := weight_files(checkpoint, patterns):
            return Use(name, f"{len(files)} file{'s' if len(files) > 1 else ''} such as {files[0].name}")
    raise ModelFileError(
        f"{checkpoint.path} holds no weights (*.safetensors, *.bin or *.pt); there is {listing(checkpoint.directory)}.",
        fix="--load-format dummy for random weights, or give the directory that holds the weights",
    )
