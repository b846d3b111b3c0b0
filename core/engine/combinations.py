"""Which features were tried together, and what came of it: written by a test run (``tools/combinations``), shown by ``engine plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("combinations.json")


def combinations() -> dict[str, Any]:
    """``features``: their names; ``pairs``: [one, other, outcome] with the outcome ``same`` (the plain path's tokens), ``shaped`` (both may
    change them, and both hold) or what went wrong."""
    found: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


def summary(found: dict[str, Any]) -> str:
    """In one line."""
    outcomes = [outcome for _, _, outcome in found["pairs"]]
    same, shaped = outcomes.count("same"), outcomes.count("shaped")
    wrong = [f"{one} with {other}: {outcome}" for one, other, outcome in found["pairs"] if outcome not in ("same", "shaped")]
    tried = f"{len(found['features'])} features, {len(outcomes)} pairs: {same} give the plain path's tokens, {shaped} shape them together"
    return "; ".join([tried, *wrong])
