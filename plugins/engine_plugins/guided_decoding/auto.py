"""xgrammar, and what it does not enforce goes to whichever backend does."""

from __future__ import annotations

from engine.plugin import GuideCompiler, Use, hookimpl

ENGINE_API = 1


@hookimpl
def engine_create_guide() -> GuideCompiler | Use:
    return Use("xgrammar", "the fastest; constraints that it does not enforce go to another backend")
