"""``engine bench``: measure a model offline, a server over HTTP, or both against what the machine can do at most."""

from __future__ import annotations

from importlib import import_module

from engine.args.spelling import nearest
from engine.errors import ConfigError

COMMANDS = {
    "latency": "how long one batch takes, and each of its tokens",
    "throughput": "tokens per second of many requests at once",
    "serve": "a server over HTTP: times to first token and between tokens, throughput, goodput",
    "roofline": "decode and prefill as shares of this machine's memory bandwidth and arithmetic",
}


def run(argv: list[str]) -> int:
    """``engine bench latency|throughput|roofline MODEL`` or ``engine bench serve --url URL``."""
    if argv and argv[0] in ("-h", "--help"):
        print("usage: engine bench latency|throughput|roofline MODEL [flags]\n       engine bench serve --url URL [flags]\n")
        print("\n".join(f"  {name:<11} {about}" for name, about in COMMANDS.items()))
        return 0
    if not argv or argv[0] not in COMMANDS:
        near = nearest(argv[0], COMMANDS) if argv else None
        given = f"{argv[0]}: no such benchmark" if argv else "No benchmark is named"
        raise ConfigError(f"{given} ({', '.join(COMMANDS)}).", fix=f"engine bench {near or 'latency'} MODEL")
    status: int = import_module(f"engine.cli.bench.{argv[0]}").run(argv[1:])
    return status
