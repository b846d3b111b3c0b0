"""``engine quantize``: a smaller checkpoint of a model, and what it lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.args.flag import Flag
from engine.cli.start import Command

if TYPE_CHECKING:
    from engine.args.engine_args import CommandLine
    from engine.quantize.report import Report

COMMAND = Command(
    "quantize", "engine quantize MODEL --method M --out DIR [flags]",
    "Write a quantized checkpoint of a plain one, tensor by tensor, and say what it lost.",
    own=(
        Flag("--method", "str", None, "How weights are kept.", kind="producer", metavar="M"),
        Flag("--out", "text", None, "Directory to write; it must be new or empty.", metavar="DIR"),
        Flag("--group-size", "int", None, "Inputs that share a scale, where the method has groups; 0: one scale per output.", metavar="N"),
        Flag("--include-head", "pair", None, "Quantize the embedding and the head as the other layers. Default: in 8 bits.",
             aliases=("--no-include-head",)),
        Flag("--ignore", "each", [], "Leave layers alone whose name, or a name above it, matches, such as '*.down_proj'. Repeatable.",
             metavar="PATTERN"),
        Flag("--method-config", "json", None, "Further options of the method (engine plugins show METHOD)."),
        Flag("--text", "text", None, "Text to measure perplexity on. Default: conversations that come with the engine.", metavar="FILE"),
        Flag("--tokens", "int", 8192, "Tokens of it that are read at most."),
        Flag("--no-perplexity", "flag", False, "Do not run the two models."),
        Flag("--max-file-size", "float", 5.0, "Largest safetensors file, in GB.", metavar="GB"),
        Flag("--json", "flag", False, "Print the report as JSON."),
    ),
)  # fmt: skip


def run(argv: list[str]) -> int:
    """Write, measure, report."""
    line = COMMAND.read(argv)
    if line is None:
        return 0
    text = _check(line.own)
    config = COMMAND.resolve(line, loads=False)
    from engine.quantize.run import Wish, ended_by_signals, quantize

    own = line.own
    wish = Wish(
        own["method"], Path(own["out"]).expanduser(), _options(own), own["ignore"], own["include_head"],
        int(own["max_file_size"] * 1e9), line.args.use_tqdm_on_load,
    )  # fmt: skip
    report = quantize(config, wish)
    try:
        if not own["no_perplexity"]:
            with ended_by_signals():
                report = _measured(line, report, text)
    except KeyboardInterrupt:
        _show(report.with_note(f"{report.out} is complete. Perplexity was not measured: interrupted."), own["json"])
        raise
    _show(report, own["json"])
    return 0


def _show(report: Report, as_json: bool) -> None:
    print(json.dumps(report.data(), indent=2) if as_json else "\n".join(report.lines()))


def _check(own: dict[str, Any]) -> str | None:
    """Refuse what cannot be meant before anything is loaded; returns the text."""
    from engine.errors import ConfigError

    for name, example in (("method", "int4"), ("out", "DIR")):
        if not own[name]:
            raise ConfigError(f"--{name} is missing.", fix=f"--{name} {example}")
    for name, default in (("max_file_size", 5), ("tokens", 8192)):
        if own[name] <= 0:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} {own[name]}: must be above 0.", fix=f"{flag} {default}")
    if not own["text"]:
        return None
    from engine.quantize.quality import read_text

    return read_text(Path(own["text"]).expanduser())


def _options(own: dict[str, Any]) -> dict[str, Any]:
    from engine.errors import ConfigError

    options = dict(own["method_config"] or {})
    if own["group_size"] is None:
        return options
    if "group_size" in options:
        raise ConfigError("--group-size and the group_size of --method-config are both given.", fix="give one of them")
    return options | {"group_size": own["group_size"]}


def _measured(line: CommandLine, report: Report, text: str | None) -> Report:
    """With the perplexities of both models, which are loaded one after the other; a model that has no room costs only these."""
    from engine.errors import MemoryShortage
    from engine.quantize.quality import SHARED_FLAGS, perplexity

    given = line.args.given_values()
    shared = {name: value for name, value in given.items() if name in SHARED_FLAGS}
    show = sys.stderr.isatty() and not line.own["json"]
    if show:
        print("Measuring perplexity …", file=sys.stderr)
    whole = {name: value for name, value in given.items() if name != "model"}
    try:
        before = perplexity(line.args.model, whole, text, line.own["tokens"])
        after = perplexity(report.out, shared, text, line.own["tokens"]) if before is not None else None
    except MemoryShortage as error:
        return report.with_note(f"Perplexity was not measured. {error.line()}")
    if before is None or after is None:
        print("engine quantize: warning: the model has no tokenizer, so there is no perplexity.", file=sys.stderr)
        return report
    return report.with_perplexity(before, after)
