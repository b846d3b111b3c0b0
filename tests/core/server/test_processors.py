"""The field logits_processors: what reaches the engine, and what is refused."""

from __future__ import annotations

import msgspec
import pytest

from engine.config import ProcessorConfig
from engine.plugin import Choice
from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import in_memory, make_config

CHOICES = {"no_repeat_ngram": Choice(kind="logits_processor", name="no_repeat_ngram", module="m", distribution="d", asked="a")}
ROUTES = {
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "/v1/responses": {"input": "x", "max_output_tokens": 1},
    "/v1/messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
}
SIZED = {"name": "no_repeat_ngram", "kwargs": {"size": 3}}


def config(pattern=None):
    return msgspec.structs.replace(make_config(), processors=ProcessorConfig(pattern=pattern, choices=CHOICES))


def checking(problem=None):
    client = FakeClient()
    client.answers["check_processors"] = lambda asked: [problem for _ in asked]
    return client


@pytest.mark.parametrize("path", ROUTES)
async def test_names_and_arguments_reach_the_engine(path):
    made = [{"qualname": "acme.made", "args": [1], "kwargs": {"a": 2}}, {"name": "acme.made", "args": []}]
    asked = [SIZED, "no_repeat_ngram", "acme.plain", *made]
    async with in_memory(checking(), config=config(r"acme\.\w+")) as http:
        response = await http.post(path, json={**ROUTES[path], "logits_processors": asked})
        assert response.status_code == 200, response.text
        assert http.engine.seen[0].params.logits_processors == (
            ("no_repeat_ngram", {"size": 3}), ("no_repeat_ngram", {}), ("acme.plain", {}), ("acme.made", {"args": [1], "kwargs": {"a": 2}}),
            ("acme.made", {"args": [], "kwargs": {}}),
        )  # fmt: skip


REFUSED = {
    "unknown": (None, ["other"], "logits_processors[0]"),
    "no pattern": (None, [SIZED, "acme.plain"], "logits_processors[1]"),
    "a part matches": (r"acme", ["acme.plain"], "logits_processors[0]"),
    "a line follows": (r"acme\.\w+", ["acme.plain\n"], "logits_processors[0]"),
    "positional": (None, [{"name": "no_repeat_ngram", "args": [3]}], "logits_processors[0].args"),
    "two names": (".*", [{"name": "a.b", "qualname": "a.b"}], "logits_processors[0]"),
    "other key": (None, [{**SIZED, "size": 3}], "logits_processors[0]"),
    "number": (None, [3], "logits_processors[0]"),
    "name type": (None, [{"name": 3}], "logits_processors[0].name"),
    "long name": (".*", ["a" * 300], "logits_processors[0].name"),
    "args type": (".*", [{"name": "a.b", "kwargs": [1]}], "logits_processors[0]"),
    "too many": (None, ["no_repeat_ngram"] * 17, "logits_processors"),
    "type": (None, "no_repeat_ngram", "logits_processors"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals(name):
    pattern, value, param = REFUSED[name]
    async with in_memory(checking(), config=config(pattern)) as http:
        response = await http.post("/v1/completions", json={**ROUTES["/v1/completions"], "logits_processors": value})
        assert response.status_code == 400 and not http.engine.seen
        assert response.json()["error"]["param"] == param


async def test_what_the_worker_refuses_is_a_400():
    async with in_memory(checking("size must be a whole number"), config=config()) as http:
        response = await http.post("/v1/completions", json={**ROUTES["/v1/completions"], "logits_processors": [SIZED]})
        assert response.status_code == 400 and "size must be a whole number" in response.json()["error"]["message"]
        assert not http.engine.seen
