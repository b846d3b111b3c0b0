"""Whose request the present task serves: the name of an API key, never the key."""

from __future__ import annotations

from contextvars import ContextVar

#: ``key1`` for the first of the server's API keys, and so on; empty where the server has none.
CALLER: ContextVar[str] = ContextVar("engine_caller", default="")
