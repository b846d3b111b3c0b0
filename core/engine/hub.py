"""Downloads what is needed of a hub repository, through ``huggingface_hub`` and its environment variables."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.errors import ModelFileError

_CONFIG = ["*.json", "*.jinja"]
_TOKENIZER = ["*.json", "*.jinja", "*.txt", "*.model", "*.model.v*", "*.tiktoken", "*.spm"]
#: Weight files, best first: only those of the first pattern that matches anything are fetched.
_WEIGHTS = ["*.safetensors", "*.bin", "*.pt"]
_NO_WEIGHTS = ["training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"]
_SECONDS = 10.0
_TRANSPORTS = ("httpx", "httpcore", "requests", "urllib")
_DEFAULT_IGNORE = ["original/**/*"]


def download(
    repository: str, flag: str, revision: str | None, folder: str | None, ignore: Sequence[str],
    *, wants: str, code: bool, missing: Callable[[str], ModelFileError],
) -> Path:  # fmt: skip
    """The local snapshot of a repository; ``wants``: all, config, tokenizer or code. ``code``: its Python files too.

    HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE hold as everywhere; where the hub does not answer, an earlier
    download serves. ``missing`` makes the error for a reason.
    """
    from huggingface_hub import constants, errors

    ignored = list(ignore) or _DEFAULT_IGNORE
    try:
        names = None if constants.HF_HUB_OFFLINE else _files(repository, revision)
        known: dict[str, list[list[str]]] = {"config": [_CONFIG], "tokenizer": [_TOKENIZER], "code": [[]]}
        wanted = known.get(wants) or _weight_patterns(names, ignored)
        more = ["*.py"] if code else []
        options = {"revision": revision, "cache_dir": folder, "ignore_patterns": [*ignored, *_NO_WEIGHTS]}
        began = time.time()
        place = _snapshot(repository, [patterns + more for patterns in wanted], local=names is None, options=options)
        _verify(place, began)
        return place
    except errors.GatedRepoError as error:
        fix = "HF_TOKEN=… of an account that has accepted it"
        raise ModelFileError(f"{flag} {repository}: the hub wants its licence accepted.", fix=fix) from error
    except errors.RevisionNotFoundError as error:
        cause = f"{flag} {repository}: the repository has no revision {revision}."
        raise ModelFileError(cause, fix="--revision main") from error
    except errors.RepositoryNotFoundError as error:
        raise missing("the hub has no such repository, or it is private and HF_TOKEN is unset") from error
    except errors.LocalEntryNotFoundError as error:
        silent = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub does not answer"
        raise missing(f"{silent}, and it was not downloaded before") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        raise missing(_first_line(error)) from error


def _snapshot(repository: str, wanted: list[list[str]], *, local: bool, options: dict[str, Any]) -> Path:
    """The snapshot with the first of the ``wanted`` patterns that can be had; ``local``: of earlier downloads alone."""
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    for patterns in wanted[:-1]:
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(hub.snapshot_download(repository, allow_patterns=patterns, local_files_only=local, **options))
    return Path(hub.snapshot_download(repository, allow_patterns=wanted[-1], local_files_only=local, **options))


def _verify(place: Path, since: float) -> None:
    """Check what was fetched since then against the hub's checksum; a file that differs is removed.

    The hub's cache names large files by their SHA-256, small ones by another checksum that the client compares itself.
    """
    for file in place.rglob("*"):
        blob = file.resolve()
        if not file.is_file() or not re.fullmatch("[0-9a-f]{64}", blob.name) or blob.stat().st_mtime < since - 1:
            continue
        with blob.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != blob.name:
            blob.unlink()
            file.unlink(missing_ok=True)
            raise ModelFileError(
                f"{file.name} came damaged: SHA-256 {blob.name} expected, {found} found; it was removed.",
                fix="start again, it is fetched anew",
            )


def _files(repository: str, revision: str | None) -> list[str] | None:
    """The repository's files; None where the hub cannot be reached.

    ``model_info`` asks once, where the calls that list files try six times over half a minute.
    """
    import huggingface_hub as hub

    try:
        found = hub.HfApi().model_info(repository, revision=revision, timeout=_SECONDS).siblings
    except Exception as error:  # the type depends on the hub client's transport; anything else goes on
        if not _is_transport(error):
            raise
        return None
    return [sibling.rfilename for sibling in found or ()]


def _is_transport(error: Exception) -> bool:
    """Whether the network failed, not the hub: an error of the HTTP library itself."""
    library = type(error).__module__.partition(".")[0].rstrip("0123456789")
    return library in _TRANSPORTS or isinstance(error, ConnectionError | TimeoutError)


def _weight_patterns(names: Sequence[str] | None, ignored: Sequence[str]) -> list[list[str]]:
    """What to fetch, in order of preference: the first weight pattern that any file matches, ``*.safetensors`` where
    none does. Where the files are not known, an earlier download may have been made for any pattern."""
    every = [[*_TOKENIZER, pattern] for pattern in _WEIGHTS]
    if names is None:
        return every
    skipped = [*ignored, *_NO_WEIGHTS]
    kept = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in skipped)]
    return [patterns for patterns in every if any(fnmatch.fnmatch(name, patterns[-1]) for name in kept)][:1] or every[:1]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
