"""Classes from Python code that a model's repository ships, where the user trusts it."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.plugin.facts import CODE

TRUST = "--trust-remote-code, after reading what the code does"


def remote_class(config: dict[str, Any], kind: str) -> Any:
    """The class that ``auto_map`` names for ``kind`` (AutoConfig, AutoModelForCausalLM); None where code may not be run or names none.

    A reference ``owner/name--module.Class`` is code of another hub repository, fetched in the revision that the user named. Raises
    :class:`ModelFileError` where the code cannot be had or fails while it is imported.
    """
    place, classes = config.get(CODE), config.get("auto_map")
    if place is None or not isinstance(classes, dict) or classes.get(kind) is None:
        return None
    reference = classes[kind]
    if not isinstance(reference, str) or "." not in reference:
        raise ModelFileError(f"config.json: auto_map.{kind} is {reference!r:.200}; it must be 'module.Class'.")
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    try:
        return get_class_from_dynamic_module(reference, place["directory"], code_revision=place["revision"])
    except Exception as error:  # anything can happen in foreign code; the message says what did
        reason = " ".join(str(error).split())
        raise ModelFileError(
            f"The repository's own code {reference!r} cannot be used ({type(error).__name__}: {reason:.300}).",
            fix="a --code-revision whose code works with the installed transformers",
        ) from error
