"""An extension: routes that fail, an observer that fails at requests of the name ``fail``, flags of its own."""

from __future__ import annotations

from engine.plugin import hookimpl

ENGINE_API = 1


@hookimpl
def engine_add_routes(app):
    from fastapi import HTTPException

    def raises():
        raise ValueError("a bug")

    def refuses():
        raise HTTPException(418, "a teapot")

    def fine():
        return {"fine": True}

    app.get("/chaos/raises")(raises)
    app.get("/chaos/refuses")(refuses)
    app.get("/chaos/fine")(fine)


@hookimpl
def engine_request_finished(record):
    if record.output_tokens == 1:
        raise ValueError("a bug")
