"""``engine bench serve``: a server over HTTP, and another beside it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from engine.args.flag import Flag
from engine.cli.bench.http import Target
from engine.cli.bench.loads import FORM
from engine.cli.bench.plot import draw, require
from engine.cli.bench.requests import ENDPOINTS, Server, first_model
from engine.cli.bench.results import FLAGS as RESULTS
from engine.cli.bench.results import check_counts, deliver
from engine.cli.bench.rounds import Round, calibrate, run_round
from engine.cli.bench.summary import columns, number, over_repeats
from engine.cli.start import Command
from engine.errors import ConfigError

COMMAND = Command(
    "bench serve", "engine bench serve --url URL [flags]",
    "Measure a server that speaks the OpenAI API, ours or another: times to the first token and between tokens, throughput.",
    engine=False,
    own=(
        Flag("--url", "text", None, "The server.", metavar="URL"),
        Flag("--vs", "text", None, "Another server, measured in turns with the first; ratios are printed.", metavar="URL"),
        Flag("--model", "text", None, "The model's name there; without, the first that each server lists."),
        Flag("--vs-model", "text", None, "The model's name at the other server."),
        Flag("--api-key", "text", None, "Key for both.", metavar="KEY"),
        Flag(
            "--endpoint", "str", "completions", "completions (prompts are token ids where the server has /tokenize) or chat.",
            choices=ENDPOINTS,
        ),
        Flag("--num-prompts", "int", 32, "Requests per repetition."),
        Flag("--concurrency", "int", 32, "Most requests at once; the next is sent when one ends."),
        Flag("--request-rate", "float", 0.0, "Requests per second, at random times (Poisson); 0: as soon as --concurrency allows."),
        Flag("--repeats", "int", 1, "Measured repetitions; medians count."),
        Flag("--pause", "float", 0.0, "Seconds before each repetition; other servers' threads may spin after theirs.", metavar="SECONDS"),
        Flag("--warmup", "int", 1, "Requests before measuring."),
        Flag("--goodput", "counts", None, "Milliseconds that a request may take to count as good: ttft=500,tpot=50,e2e=5000."),
        Flag("--extra-body", "json", None, "Merged into every request."),
        Flag("--request-timeout", "float", 600.0, "Seconds until a request counts as failed.", metavar="SECONDS"),
        Flag("--plot", "text", None, "Draw the distributions (needs matplotlib: the extra bench).", metavar="FILE.png"),
        Flag("--warm-prefix", "flag", False, "One shared prefix for warm-up and all repetitions; without, a new one each time."),
        *FORM,
        Flag(
            "--prompt-seed", "int", 0, "Seed of the made-up load: the same prompts, lengths and times each time.", aliases=("--seed",),
            metavar="SEED",
        ),
        *RESULTS,
    ),
)  # fmt: skip
#: What the table and the comparison show: name, label, and whether more is better.
ROWS = (
    ("output_tokens_per_second", "output tok/s", True), ("requests_per_second", "requests/s", True),
    ("goodput_per_second", "good requests/s", True), ("ttft_ms.mean", "TTFT mean ms", False),
    ("ttft_ms.p50", "TTFT p50 ms", False), ("ttft_ms.p99", "TTFT p99 ms", False), ("itl_ms.mean", "ITL mean ms", False),
    ("itl_ms.p50", "ITL p50 ms", False), ("itl_ms.p99", "ITL p99 ms", False), ("tpot_ms.mean", "TPOT mean ms", False),
    ("tpot_ms.p99", "TPOT p99 ms", False), ("e2e_ms.p50", "end to end p50 ms", False), ("e2e_ms.p99", "end to end p99 ms", False),
)  # fmt: skip
_SETTING = (
    "endpoint", "num_prompts", "concurrency", "request_rate", "lengths", "input_len", "output_len", "shared_prefix", "warm_prefix",
    "repeats", "goodput", "prompt_seed",
)  # fmt: skip
TOTALS = (
    ("completed", "requests completed"), ("failed", "requests failed"), ("input_tokens", "input tokens"),
    ("output_tokens", "output tokens"),
)  # fmt: skip


def run(argv: list[str]) -> int:
    """Measure and print; status 1 where requests failed."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    own = line.own
    _check(own)
    result, rounds = asyncio.run(_measure(own))
    if own["plot"]:
        draw(own["plot"], rounds)
    deliver(result, _text(result), own)
    failed = sorted({error for server in result["servers"] for error in server["errors"]})
    for error in failed:
        print(f"engine bench: a request failed: {error}", file=sys.stderr)
    return 1 if failed else 0


def _check(own: Mapping[str, Any]) -> None:
    if not own["url"]:
        raise ConfigError("No server is given.", fix="--url http://127.0.0.1:8000")
    if own["endpoint"] not in ENDPOINTS:
        raise ConfigError(f"--endpoint {own['endpoint']}: not one of {', '.join(ENDPOINTS)}.", fix="--endpoint completions")
    check_counts(own)
    for name in ("request_rate", "request_timeout"):
        if own[name] < 0 or own[name] != own[name]:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} {own[name]}: must not be negative.", fix=f"leave {flag} out")
    unknown = sorted(set(own["goodput"] or ()) - {"ttft", "tpot", "e2e"})
    if unknown:
        raise ConfigError(f"--goodput {unknown[0]}: not one of ttft, tpot, e2e.", fix="--goodput ttft=500,tpot=50")
    if own["plot"]:
        require()


async def _measure(own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Round]]]:
    """Each repetition asks every server, the order turning round, so that a slow minute meets all of them."""
    servers = [await _server(own, own["url"], own["model"], "--url")]
    if own["vs"]:
        servers.append(await _server(own, own["vs"], own["vs_model"] or own["model"], "--vs"))
    rounds: dict[str, list[Round]] = {server.target.url: [] for server in servers}
    if len({server.target.place for server in servers}) < len(servers):
        raise ConfigError(f"--vs {own['vs']}: the same server as --url.", fix="another server's address")
    for server in servers:
        if own["warmup"]:
            await run_round(server, {**own, "num_prompts": own["warmup"], "request_rate": 0.0}, f"{own['prompt_seed']}/warm-up")
    for repeat in range(own["repeats"]):
        for server in servers if repeat % 2 == 0 else servers[::-1]:
            await asyncio.sleep(own["pause"])
            print(f"engine bench: {server.target.url}: {repeat + 1} of {own['repeats']}", file=sys.stderr)
            rounds[server.target.url].append(await run_round(server, own, f"{own['prompt_seed']}/{repeat}"))
    shown = {name: own[name] for name in _SETTING}
    return {**shown, "servers": [_describe(server, rounds[server.target.url]) for server in servers]}, rounds


async def _server(own: Mapping[str, Any], url: str, model: str | None, flag: str) -> Server:
    target = Target(url, own["api_key"], flag)
    name = model or await first_model(target)
    server = Server(target, name, own["endpoint"], own["extra_body"] or {}, own["request_timeout"])
    await calibrate(server)
    return server


def _describe(server: Server, rounds: Sequence[Round]) -> dict[str, Any]:
    summaries = [each.summary() for each in rounds]
    good = [summary for summary in summaries if summary["completed"]]
    return {
        "url": server.target.url, "model": server.model, "prompts_as": "token ids" if server.ordinary else "text",
        "errors": sorted({error for each in rounds for error in each.errors()}),
        "medians": over_repeats(good) if good else {}, "repeats": summaries,
    }  # fmt: skip


def _text(result: Mapping[str, Any]) -> str:
    servers = result["servers"]
    head = ["", *(server["url"] for server in servers)]
    if len(servers) == 2:
        head.append("first : other")
    rows = []
    for name, label, more in ROWS:
        cells = [server["medians"].get(name) for server in servers]
        if not any(cells):
            continue
        row = [label, *(_cell(cell) for cell in cells)]
        if len(servers) == 2:
            row.append(_ratio(cells, more))
        rows.append(row)
    for name, label in TOTALS:
        total = [str(sum(repeat[name] for repeat in server["repeats"])) for server in servers]
        rows.append([label, *total, *([""] if len(servers) == 2 else [])])
    return columns(head, rows)


def _cell(values: Mapping[str, float] | None) -> str:
    """The median, and the extremes where repetitions differ."""
    if values is None:
        return "-"
    spread = f" ({number(values['min'])}-{number(values['max'])})" if values["min"] != values["max"] else ""
    return number(float(values["median"])) + spread


def _ratio(cells: Sequence[Mapping[str, float] | None], more: bool) -> str:
    first, other = cells
    if not first or not other or not other["median"]:
        return "-"
    ratio = first["median"] / other["median"]
    return f"{ratio:.2f}{' better' if (ratio > 1) == more and ratio != 1 else ''}"


