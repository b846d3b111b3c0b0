"""Finds a model's files: a local directory, a bundled model, or a hub repository (downloaded)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.errors import ModelFileError
from engine.plugin.facts import Checkpoint

BUNDLED = Path(__file__).parent / "bundled"
_CONFIGS = ("config.json", "params.json")
_OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


def bundled_models() -> list[str]:
    """Names of the models that come with the engine."""
    return sorted(folder.name for folder in BUNDLED.glob("*/") if (folder / "config.json").is_file())


def locate(
    model: str, *, revision: str | None = None, download_dir: str | None = None, ignore_patterns: Sequence[str] = (),
    config_path: str | None = None, tokenizer: str | None = None, tokenizer_revision: str | None = None, trust_remote_code: bool = False,
    code_revision: str | None = None,
) -> Checkpoint:  # fmt: skip
    """Where the files of ``model`` are, downloading what is needed.

    ``config_path`` and ``tokenizer`` are directories or repositories that config and tokenizer are read from instead. ``code_revision``:
    of the model repository's Python files; a local directory has those that it has.
    Raises :class:`ModelFileError` for what does not exist and cannot be had.
    """
    path = _resolve(model, "--model", revision, download_dir, ignore_patterns, wants="all", code=trust_remote_code)
    home = path.parent if path.is_file() else path
    config = (
        home
        if config_path is None
        else _resolve(config_path, "--hf-config-path", revision, download_dir, wants="config")
    )
    tokens = home
    if tokenizer is not None:
        tokens = _resolve(
            tokenizer,
            "--tokenizer",
            tokenizer_revision or revision,
            download_dir,
            wants="tokenizer",
            code=trust_remote_code,
        )
    elif tokenizer_revision is not None and not Path(model).exists() and model not in bundled_models():
        tokens = _resolve(
            model, "--tokenizer", tokenizer_revision, download_dir, wants="tokenizer", code=trust_remote_code
        )
    code = None
    if trust_remote_code:
        code = home
        if code_revision is not None and not Path(model).exists() and model not in bundled_models():
            code = _resolve(model, "--model", code_revision, download_dir, wants="code", code=True)
    return Checkpoint(
        model=model, path=str(path), config_path=str(config), tokenizer_path=str(tokens),
        revision=revision, trust_remote_code=trust_remote_code, download_dir=download_dir,
        code_path=None if code is None else str(code), code_revision=code_revision,
    )  # fmt: skip


def locate_adapter(name: str, download_dir: str | None = None) -> Path:
    """The directory of an adapter, downloaded where it is a repository. Raises :class:`ModelFileError`."""
    return _resolve(name, "--qlora-adapter-name-or-path", None, download_dir, wants="all")


def single_gguf(checkpoint: Checkpoint, load_format: str) -> Checkpoint:
    """The checkpoint with its one GGUF file (or the first of a split one) as its path, where --load-format asks for one or the
    directory holds no other weights. Raises :class:`ModelFileError` where there is none, or more than one.
    """
    place = checkpoint.directory
    if load_format not in ("gguf", "auto") or not place.is_dir():
        return checkpoint
    found = sorted(file for file in place.glob("*.gguf") if not file.name.startswith(("mmproj", ".")))
    models = [file for file in found if _is_first_shard(file)]
    if load_format == "auto" and (not models or any(any(place.glob(other)) for other in _OTHER_WEIGHTS)):
        return checkpoint
    if len(models) == 1:
        return msgspec.structs.replace(checkpoint, path=str(models[0]))
    names = ", ".join(file.name for file in models[:6]) + (" …" if len(models) > 6 else "")
    cause = f"holds {len(models)} models ({names}); one is served" if models else "holds no .gguf file"
    raise ModelFileError(
        f"--load-format {load_format}: {place} {cause}.", fix=f"--model {models[0]}" if models else "leave --load-format out"
    )


def _is_first_shard(file: Path) -> bool:
    """False for the second and further files of a split model."""
    match = re.search(r"-(\d{5})-of-\d{5}$", file.stem)
    return match is None or int(match[1]) == 1


def _resolve(
    name: str,
    flag: str,
    revision: str | None,
    download_dir: str | None,
    ignore: Sequence[str] = (),
    *,
    wants: str,
    code: bool = False,
) -> Path:
    if not name.strip() or "\0" in name:
        raise ModelFileError(f"{flag} {name!r}: no name of a model.", fix="demo")
    local = Path(name).expanduser()
    if name in bundled_models() and not any((local / config).is_file() for config in _CONFIGS):
        return BUNDLED / name
    if local.is_dir():
        return local.resolve()
    if local.exists():
        return _single_file(local, flag)
    if name.startswith("s3://"):
        from engine.object_store import fetch

        return fetch(name, flag, download_dir, code=code)
    if "://" in name:
        raise ModelFileError(
            f"{flag} {name}: of URLs, s3:// alone is understood here.", fix="download it and name the directory"
        )
    if _looks_like_path(name):
        raise _nowhere(name, flag, "no such directory")
    from engine.hub import download

    return download(
        name,
        flag,
        revision,
        download_dir,
        ignore,
        wants=wants,
        code=code,
        missing=lambda reason: _nowhere(name, flag, reason),
    )


def _single_file(path: Path, flag: str) -> Path:
    if path.is_file() and (path.suffix == ".gguf" or _begins(path, b"GGUF")):
        return path.resolve()
    kind = "a file" if path.is_file() else "neither a directory nor a regular file"
    raise ModelFileError(
        f"{flag} {path}: {kind}; a model is a directory with config.json.", fix=f"{flag} {path.parent}"
    )


def _begins(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _looks_like_path(name: str) -> bool:
    """Whether a name can only be meant as a path: hub repositories are ``name`` or ``owner/name``."""
    parts = name.split("/")
    allowed = all(part and all(letter.isalnum() or letter in "-_." for letter in part) for part in parts)
    return (
        len(parts) > 2 or not allowed or name.startswith((".", "~")) or (Path(name).parent.is_dir() and len(parts) == 2)
    )


def _nowhere(name: str, flag: str, reason: str) -> ModelFileError:
    """The error for a model that is nowhere, naming the nearest that is."""
    from engine.args.spelling import nearest

    bundled = bundled_models()
    parent = Path(name).expanduser().parent
    siblings: list[str] = []
    if parent.is_dir():
        siblings = [
            entry for entry in os.listdir(parent) if any((parent / entry / config).is_file() for config in _CONFIGS)
        ]
    near = nearest(Path(name).name, siblings)
    fix = str(parent / near) if near else nearest(name, bundled) or (bundled[0] if bundled else None)
    known = ", ".join(bundled) or "none here"
    return ModelFileError(
        f"{flag} {name}: neither a directory, nor a bundled model ({known}), nor a hub repository that can be reached: {reason}.",
        fix=fix,
    )
