"""Refusals of a shared step in the words of the route that called it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from engine.errors import RequestError


@contextlib.contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Inside, a RequestError that names one of ``names`` names the other field instead, where it begins its message too."""
    try:
        yield
    except RequestError as error:
        name = error.param
        if name is None or name not in names:
            raise
        text, other = str(error), names[name]
        if text.startswith(name):
            text = other + text[len(name) :]
        raise RequestError(text, param=other, code=error.code, fix=error.fix, http_status=error.http_status) from error
