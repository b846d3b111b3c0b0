"""Downloads what is needed of a hub repository, through ``huggingface_hub`` and its environment variables."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import ModelFileError

_CONFIG = ["*.json", "*.jinja"]
_TOKENIZER = ["*.json", "*.jinja", "*.txt", "*.model", "*.model.v*", "*.tiktoken", "*.spm"]
#: Weight files, best first: only those of the first pattern that matches anything are fetched.
_WEIGHTS = ["*.safetensors", "*.bin", "*.pt"]
_NO_WEIGHTS = ["training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt"]
_DEFAULT_IGNORE = ["original/**/*"]


def download(
    repository: str, flag: str, revision: str | None, folder: str | None, ignore: Sequence[str],
    *, wants: str, code: bool, missing: Callable[[str], ModelFileError],
) -> Path:  # fmt: skip
    """The local snapshot of a repository; ``wants``: all, config or tokenizer. ``code``: its Python files too.

    HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE hold as everywhere. ``missing`` makes the error for a reason.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    ignored = list(ignore) or _DEFAULT_IGNORE
    patterns = {"config": _CONFIG, "tokenizer": _TOKENIZER}.get(wants, [*_TOKENIZER, *_WEIGHTS]) + (
        ["*.py"] if code else []
    )
    try:
        if wants == "all" and not constants.HF_HUB_OFFLINE:
            names = hub.HfApi().list_repo_files(repository, revision=revision)
            patterns = _TOKENIZER + _weights(names, ignored) + (["*.py"] if code else [])
        return Path(hub.snapshot_download(
            repository, revision=revision, cache_dir=folder, allow_patterns=patterns, ignore_patterns=[*ignored, *_NO_WEIGHTS],
        ))  # fmt: skip
    except errors.GatedRepoError as error:
        raise ModelFileError(
            f"{flag} {repository}: access needs an accepted licence and a token.", fix="huggingface-cli login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelFileError(
            f"{flag} {repository}: the repository has no revision {revision}.", fix="--revision main"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise missing("the hub has no such repository, or it is private and HF_TOKEN is unset") from error
    except errors.LocalEntryNotFoundError as error:
        raise missing(
            "offline, and not among the downloads" if constants.HF_HUB_OFFLINE else "the hub does not answer"
        ) from error
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError, ValueError) as error:
        raise missing(_first_line(error)) from error
    except Exception as error:
        # the hub client's transport (httpx, requests) has errors of its own that do not derive from OSError
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "requests"):
            raise
        raise missing(f"the hub does not answer ({_first_line(error)})") from error


def _weights(names: Sequence[str], ignored: Sequence[str]) -> list[str]:
    """The first weight pattern that any file matches, ``*.safetensors`` where none does."""
    kept = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in [*ignored, *_NO_WEIGHTS])]
    return next(
        ([pattern] for pattern in _WEIGHTS if any(fnmatch.fnmatch(name, pattern) for name in kept)), [_WEIGHTS[0]]
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
