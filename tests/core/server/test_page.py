"""The live page: its routes, headers and key."""

from __future__ import annotations

import base64
import re

import msgspec
import pytest

from tests.core.server.serving import in_memory, make_config

PLAN = {"model": {"architecture": "Toy"}, "plugins": [{"kind": "loader", "name": "auto", "reason": "asked for"}]}


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()}


async def test_the_page_is_three_files_that_ask_nobody_else():
    async with in_memory() as http:
        page = await http.get("/ui")
        assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert sorted(named) == ["data:,", "ui/page.js", "ui/style.css"]
        for file, kind in (("style.css", "text/css"), ("page.js", "text/javascript")):
            answer = await http.get(f"/ui/{file}")
            assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
            assert not re.search(r"https?://|//[a-z]+\.", answer.text), "an address of somebody else"
        for each in (page, answer):
            policy = each.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
            assert each.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["index.html", "secret", "page.py", "..%2fpage.py", "%2e%2e/page.py", "__init__.py"])
async def test_nothing_else_lies_below_the_page(name):
    async with in_memory() as http:
        assert (await http.get(f"/ui/{name}")).status_code == 404


async def test_a_slash_too_many_leads_to_the_page():
    async with in_memory() as http:
        answer = await http.get("/ui/")
        assert answer.status_code == 307 and answer.headers["location"] == "../ui"


async def test_the_plan_is_what_the_command_prints():
    async with in_memory(config=msgspec.structs.replace(make_config(), plan=PLAN)) as http:
        assert (await http.get("/ui/plan")).json() == PLAN


async def test_a_browser_is_asked_for_the_key_as_a_password():
    async with in_memory(config=make_config(api_keys=("k:1", "k2"))) as http:
        for path in ("/ui", "/ui/plan", "/ui/page.js", "/ui/nothing"):
            answer = await http.get(path)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Basic realm="), path
            assert (await http.get(path, headers=basic("k2"))).status_code == (404 if "nothing" in path else 200)
        assert (await http.get("/v1/models")).headers["www-authenticate"] == "Bearer"
        for path in ("/v1/models", "/metrics"):
            assert (await http.get(path, headers=basic("k:1"))).status_code == 200
        for bad in (basic(""), basic("k"), basic("k2 "), *({"authorization": text} for text in ("Basic k2", "Basic !!", "Basic"))):
            assert (await http.get("/ui", headers=bad)).status_code == 401, bad


async def test_another_sites_page_cannot_use_the_password_that_a_browser_keeps():
    async with in_memory(config=make_config(api_keys=("k",))) as http:
        for site, status in (("same-origin", 200), ("none", 200), ("cross-site", 401), ("same-site", 401)):
            assert (await http.get("/v1/models", headers={**basic("k"), "sec-fetch-site": site})).status_code == status, site
        # a link from elsewhere opens the page
        assert (await http.get("/ui", headers={**basic("k"), "sec-fetch-site": "cross-site"})).status_code == 200
        mine = {"authorization": "Bearer k", "sec-fetch-site": "cross-site"}
        assert (await http.get("/v1/models", headers=mine)).status_code == 200
