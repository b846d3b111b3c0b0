"""The live page at ``/ui``: files of the package, served from memory with a policy that lets them speak to this server alone."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from engine.server.health import as_json
from engine.server.service import Service

#: File → media type.
FILES = {"index.html": "text/html; charset=utf-8", "style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": _POLICY, "cache-control": "no-cache", "x-content-type-options": "nosniff"}


async def page(service: Service, request: Request) -> Response:
    """The page itself, at /ui; its two other files below it."""
    name = request.path_params.get("name", "index.html")
    if name not in FILES or (name == "index.html" and "name" in request.path_params):
        raise HTTPException(404)
    return Response(_content(name), media_type=FILES[name], headers=HEADERS)


async def slash(service: Service, request: Request) -> Response:
    """/ui/ leads to /ui, whose files have addresses relative to that: a proxy's prefix stays."""
    return Response(status_code=307, headers={"location": "../ui"})


async def plan(service: Service, request: Request) -> Response:
    """The plan as ``engine plan --json`` prints it."""
    return as_json(service.config.plan)


@lru_cache(maxsize=len(FILES))
def _content(name: str) -> bytes:
    return (resources.files("engine.server.ui") / name).read_bytes()
