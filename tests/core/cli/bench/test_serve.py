"""``engine bench serve`` against the server with a fake engine, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys

import pytest

from engine.cli.bench import run
from engine.cli.bench.http import HttpFailure, Target, fetch, opened
from engine.cli.bench.loads import Sizes
from engine.cli.bench.plot import draw
from engine.cli.bench.requests import Measured, Server, first_model
from engine.cli.bench.rounds import Round, calibrate, make_prompts, run_round
from engine.cli.bench.serve import COMMAND, _measure, _text
from engine.errors import ConfigError
from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import on_socket


def flags(*words: str) -> dict:
    line = COMMAND.read(["--url", "http://127.0.0.1:1", *words])
    assert line is not None
    return line.own


def server(url: str, endpoint: str = "completions", timeout: float = 20.0) -> Server:
    return Server(Target(url), "toy", endpoint, {}, timeout)


@contextlib.asynccontextmanager
async def answering(*pieces: bytes, pause: float = 0.0):
    """A server that answers every request with these bytes, and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


async def test_a_stream_is_timed_and_counted_by_the_server():
    client = FakeClient(delay=0.02, script=byte_tokenizer().encode("abcdef", add_special_tokens=False))
    async with on_socket(client) as url:
        measured = await server(url).send([65] * 7, Sizes(7, 6))
    assert measured.error is None
    assert measured.input_tokens == 7 and measured.output_tokens == 6 and len(measured.moments) == 6
    assert 0.015 < measured.ttft < 0.2 and 0.09 < measured.e2e < 1.0
    assert all(0.01 < gap < 0.15 for gap in measured.itl)
    assert client.seen[0].prompt_token_ids == [65] * 7 and client.seen[0].params.ignore_eos


async def test_the_first_piece_of_a_chat_is_not_its_role():
    client = FakeClient(delay=0.05, script=byte_tokenizer().encode("abc", add_special_tokens=False))
    async with on_socket(client) as url:
        measured = await server(url, "chat").send("abc", Sizes(3, 3))
    assert measured.error is None and measured.output_tokens == 3 and len(measured.moments) == 3
    assert measured.ttft > 0.04, "the role comes at once, the first token after a step"


async def test_ids_are_learned_from_the_server():
    async with on_socket(FakeClient()) as url:
        found = server(url)
        await calibrate(found)
        assert len(found.ordinary) > 15
        assert set(byte_tokenizer().decode(found.ordinary)) <= set("abcdefghijklmnopqrstuvwxyz ")
        chat = server(url, "chat")
        await calibrate(chat)
    assert chat.ordinary == [] and 3.0 < chat.tokens_per_word < 7.0, "a byte is a token here"
    prompts = make_prompts(chat, [Sizes(200, 1)] * 2, 0, random.Random(1), random.Random(1))
    assert all(isinstance(prompt, str) and 140 < len(prompt) < 260 for prompt in prompts)


async def test_no_more_than_the_concurrency_runs_at_once():
    client = FakeClient(delay=0.01)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(client.running))
            await asyncio.sleep(0.002)

    async with on_socket(client) as url:
        found = server(url)
        await calibrate(found)
        watching = asyncio.ensure_future(watch())
        done = await run_round(found, flags("--num-prompts", "9", "--concurrency", "3", "--output-len", "4", "--input-len", "20"), "s")
        watching.cancel()
    assert most == 3 and len(done.completed()) == 9
    summary = done.summary()
    assert summary["input_tokens"] == 180 and summary["output_tokens"] == 36
    assert summary["output_tokens_per_second"] == pytest.approx(36 / done.seconds)


async def test_a_rate_spreads_the_requests():
    async with on_socket(FakeClient()) as url:
        found = server(url)
        await calibrate(found)
        own = flags("--num-prompts", "20", "--request-rate", "100", "--output-len", "2", "--input-len", "4")
        done = await run_round(found, own, "s")
    sent = [request.sent for request in done.requests]
    assert 0.05 < sent[-1] - sent[0] < 1.0 and sent == sorted(sent)


@pytest.mark.parametrize(("warm", "cold"), [(("--warm-prefix",), False), ((), True)])
async def test_shared_prefixes(warm, cold):
    client = FakeClient()
    async with on_socket(client) as url:
        found = server(url)
        await calibrate(found)
        own = flags("--num-prompts", "3", "--input-len", "40", "--shared-prefix", "30", "--output-len", "1", *warm)
        for seed in ("a", "b"):
            await run_round(found, own, seed)
    heads = [tuple(request.prompt_token_ids[:30]) for request in client.seen]
    assert len(set(heads[:3])) == 1 and (heads[0] != heads[3]) is cold
    assert len({tuple(request.prompt_token_ids) for request in client.seen}) == 6


async def test_a_seed_makes_the_same_load_again():
    loads = []
    for seed in ("7", "7", "8"):
        client = FakeClient()
        async with on_socket(client) as url:
            words = ("--num-prompts", "4", "--lengths", "chat", "--input-len", "20", "--output-len", "5", "--repeats", "2")
            result, _ = await _measure({**flags(*words, "--concurrency", "1", "--seed", seed), "url": url})
        assert result["prompt_seed"] == int(seed)
        loads.append([(tuple(request.prompt_token_ids), request.params.max_tokens) for request in client.seen])
    assert loads[0] == loads[1] and not set(loads[0][-8:]) & set(loads[2][-8:])
    assert len(set(loads[0][-8:])) == 8


async def test_two_servers_in_turns():
    async with on_socket(FakeClient(delay=0.001)) as fast, on_socket(FakeClient(delay=0.03)) as slow:
        words = ("--num-prompts", "2", "--output-len", "4", "--input-len", "8", "--repeats", "2", "--goodput", "ttft=1000")
        own = {**flags(*words), "url": fast, "vs": slow}
        result, rounds = await _measure(own)
        with pytest.raises(ConfigError, match="the same server"):
            await _measure({**own, "vs": f"{fast}/v1"})
    assert [len(each) for each in rounds.values()] == [2, 2]
    first, other = result["servers"]
    assert first["medians"]["itl_ms.p50"]["median"] < other["medians"]["itl_ms.p50"]["median"]
    text = _text(result)
    assert "better" in next(line for line in text.splitlines() if line.startswith("output tok/s"))
    assert next(line for line in text.splitlines() if line.startswith("requests completed")).split()[-2:] == ["4", "4"]
    json.dumps(result)


def test_the_command_prints_json_and_reports_failures(capsys, monkeypatch):
    async def failing(own):
        return {"servers": [{"url": "u", "errors": ["status 500: boom"], "medians": {}, "repeats": []}]}, {}

    monkeypatch.setattr("engine.cli.bench.serve._measure", failing)
    assert run(["serve", "--url", "http://127.0.0.1:1", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["servers"][0]["errors"] == ["status 500: boom"] and "boom" in err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "No server is given"), (["--url", "ftp://x"], "not an http address"), (["--url", "http://x:99999"], "--url"),
        (["--url", "http://x", "--endpoint", "talk"], "--endpoint talk"),
        (["--url", "http://x", "--goodput", "speed=3"], "--goodput speed"),
        (["--url", "http://x", "--request-rate", "-1"], "--request-rate"), (["--url", "http://x", "--num-prompts", "0"], "--num-prompts 0"),
        (["--url", "http://x", "--shared-prefix", "128"], "--shared-prefix 128"), (["--url", "http://x", "demo"], "demo"),
        (["--url", "http://x", "--max-model-len", "5"], "--max-model-len: no such flag"),
        (["--url", "http://127.0.0.1:1"], "does not answer"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(words, match):
    with pytest.raises(Exception, match=match) as caught:
        run(["serve", *words])
    assert caught.value.fix


def test_a_plot_without_matplotlib_is_refused_before_measuring(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="--plot needs matplotlib") as caught:
        run(["serve", "--url", "http://127.0.0.1:1", "--plot", "x.png"])
    assert "engine[bench]" in str(caught.value.fix)


async def test_refusals_are_results():
    async with on_socket(FakeClient()) as url:
        refused = await server(url).send([65], Sizes(1, 100000))
        other = Server(Target(url), "absent", "completions", {}, 20)
        with pytest.raises(HttpFailure, match="absent"):
            await calibrate(other)
        unknown = await Server(Target(f"{url}/nothing"), "toy", "completions", {}, 5).send([65], Sizes(1, 1))
    assert refused.error is not None and refused.error.startswith("status 400: ") and refused.ended > refused.sent
    assert unknown.error is not None and "404" in unknown.error


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((b"not http at all\r\n\r\n",), "broke off"), ((HEAD + b"transfer-encoding: chunked\r\n\r\n", b"5\r\nda"), "broke off"),
        ((HEAD + b"content-length: 50\r\n\r\n", b"data: {}\n\n"), "broke off"), ((b"",), "broke off"),
        ((HEAD + b"\r\n", b"data: [DONE]\n\n"), "no text"), ((HEAD + b"\r\n", b"data: {]\n\n"), "broke off"),
        ((HEAD + b"\r\n", b'data: {"error": {"message": "too hot"}}\n\n'), "too hot"),
    ],
)  # fmt: skip
async def test_broken_answers_are_results(pieces, error):
    async with answering(*pieces) as url:
        measured = await server(url).send("x", Sizes(1, 1))
    assert measured.error is not None and error in measured.error


async def test_a_silent_server_is_given_up():
    async with answering(HEAD + b"\r\n", b": ping\n\n", pause=5) as url:
        measured = await server(url, timeout=0.2).send("x", Sizes(1, 1))
    assert measured.error == "no end within 0.2 s" and measured.e2e < 3


async def test_events_survive_any_cut():
    text = b'data: {"a": "\xc3\xa9"}\r\n\r\n: comment\n\ndata: two\ndata: lines\n\ndata: last'
    async with answering(HEAD + b"\r\n", *(text[i : i + 1] for i in range(len(text)))) as url, opened(Target(url), "GET", "/") as answer:
        assert [data async for data in answer.events()] == ['{"a": "é"}'.encode(), b"two\nlines", b"last"]
    chunked = (b"4;x=y\r\nab\r\n\r\n", b"1\r\nc\r\n0\r\n\r\n")
    async with answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunked) as url:
        assert await fetch(Target(url), "GET", "/") == (200, b"ab\r\nc")


async def test_the_model_is_the_first_listed():
    async with on_socket(FakeClient()) as url:
        assert await first_model(Target(f"{url}/v1/")) == "toy"
    async with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as url:
        with pytest.raises(HttpFailure, match="lists no model"):
            await first_model(Target(url))


def test_a_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rounds = [Round([Measured(0.0, Sizes(1, 3), [0.1, 0.2, 0.4], 0.5, 1, 3), Measured(0.0, Sizes(1, 1), error="x")], 1.0)]
    path = tmp_path / "bench.png"
    draw(str(path), {"http://a": rounds, "http://b": rounds})
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="--plot"):
        draw(str(tmp_path / "absent" / "x.png"), {"http://a": rounds})
