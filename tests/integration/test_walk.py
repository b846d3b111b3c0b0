"""Every route of a server, those of plugins and of the page included, wants the key, and no spelling of a path goes round it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.routing import Route

from engine.server.auth import OPEN_PATHS
from engine_plugins.extensions import key_limits
from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import create_app, in_memory, make_config, on_socket

KEYS = ("right-key",)
WRONG = [
    {}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer "}, {"authorization": "right-key"}, {"x-api-key": ""},
    {"host": "x/health"}, {"x-forwarded-path": "/health"}, {"x-original-url": "/health"}, {"cookie": "key=right-key"},
]  # fmt: skip
SPELLINGS = ["//{}", "/./{}", "/health/../{}", "/health/%2e%2e/{}", "/{}?/health", "/{};/health", "/%2f{}", "/health/{}"]


def add_routes(app):
    key_limits.engine_add_routes(app)

    async def plain(request: Request) -> dict[str, str]:
        return {"secret": "told"}

    app.get("/plugin/secret")(plain)


def walk() -> Iterator[tuple[str, str]]:
    app = create_app(make_config(api_keys=KEYS), FakeClient(), byte_tokenizer(), add_routes=add_routes)
    for route in app.routes:
        assert isinstance(route, Route), f"{route} is of a kind that this test does not walk"
        for method in route.methods or ():
            yield method, route.path.replace("{name:path}", "toy").replace("{name}", "page.js")


ROUTES = sorted(set(walk()))


def test_the_walk_sees_all_kinds_of_routes():
    paths = {path for _, path in ROUTES}
    assert paths >= {"/ui", "/ui/plan", "/ui/page.js", "/plugin/secret", "/key_limits", "/metrics", "/docs", "/openapi.json"}
    assert not [path for path in paths if "collective_rpc" in path or "reset" in path]


@pytest.mark.parametrize("wrong", WRONG, ids=map(str, WRONG))
async def test_no_route_without_the_key(wrong):
    async with in_memory(config=make_config(api_keys=KEYS), add_routes=add_routes) as http:
        for method, path in ROUTES:
            answer = await http.request(method, path, headers=wrong)
            assert (answer.status_code == 401) == (path not in OPEN_PATHS), (method, path, answer.status_code)
            if path not in OPEN_PATHS:
                assert answer.headers["www-authenticate"] and answer.headers["x-request-id"]
                assert answer.content == b"" if method == "HEAD" else "right-key" not in answer.text


async def test_every_route_with_the_key():
    async with in_memory(config=make_config(api_keys=KEYS), add_routes=add_routes) as http:
        for method, path in ROUTES:
            answer = await http.request(method, path, headers={"authorization": "Bearer right-key"}, json={} if method == "POST" else None)
            assert answer.status_code not in (401, 403, 405, 500), (method, path, answer.text)


async def test_no_spelling_goes_round_the_key():
    async with on_socket(FakeClient(), make_config(api_keys=KEYS), add_routes=add_routes) as url, httpx.AsyncClient() as http:
        for path in ("v1/models", "metrics", "plugin/secret", "ui"):
            for spelling in SPELLINGS:
                target = httpx.URL(url).copy_with(raw_path=spelling.format(path).encode())
                answer = await http.get(target)
                assert answer.status_code == 401, (spelling, path, answer.text)
        absolute = f"GET http://{url[7:]}/health/../metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(absolute.encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_the_documents_can_be_removed():
    async with in_memory(config=make_config(disable_fastapi_docs=True)) as http:
        for path in ("/docs", "/redoc", "/openapi.json"):
            assert (await http.get(path)).status_code == 404
