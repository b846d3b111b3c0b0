"""Writes into docs/guided-decoding.md what each backend enforces, as the probe finds it: ``python -m tools.guided.table``."""

from __future__ import annotations

from pathlib import Path

from engine.plugin.host import PluginHost
from engine.plugin.kinds import GUIDED_DECODING
from tools.guided.cases import CASES
from tools.guided.probe import ByteTokenizer, Outcome, probe

PAGE = Path(__file__).parents[2] / "docs" / "guided-decoding.md"
BEGIN, FINISH = "<!-- generated: python -m tools.guided.table -->", "<!-- end -->"
BACKENDS = ("xgrammar", "guidance", "outlines", "lm-format-enforcer")
MARKS = {Outcome.ENFORCED: "yes", Outcome.NARROWER: "narrower", Outcome.REFUSED: "–", Outcome.VIOLATED: "**violated**"}


def table() -> str:
    """The table in Markdown."""
    tokenizer = ByteTokenizer()
    compilers = [
        PluginHost().create(GUIDED_DECODING, name, tokenizer=tokenizer, vocab_size=tokenizer.size(), options={}).plugin
        for name in BACKENDS
    ]
    lines = [f"| feature | {' | '.join(BACKENDS)} |", "|---" * (1 + len(BACKENDS)) + "|"]
    for case in CASES:
        marks = [MARKS[probe(compiler, case)[0]] for compiler in compilers]
        lines.append(f"| {case.name} | {' | '.join(marks)} |")
    return "\n".join(lines)


def insert(page: str, text: str) -> str:
    """The page with its generated part replaced."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{FINISH}{rest.partition(FINISH)[2]}"


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text(encoding="utf-8"), table()), encoding="utf-8")
