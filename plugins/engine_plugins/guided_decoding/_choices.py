"""A list of texts as a grammar or as a regular expression."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence


def choice_grammar(choices: Sequence[str]) -> str:
    """GBNF whose sentences are exactly the texts."""
    return "root ::= " + " | ".join(map(_literal, choices))


def choice_regex(choices: Sequence[str]) -> str:
    """A regular expression that matches exactly the texts."""
    return "(" + "|".join(re.sub(r"([^\w\s])", r"\\\1", choice) for choice in choices) + ")"


def _literal(text: str) -> str:
    # JSON's escapes are GBNF's, but for characters beyond 16 bits, which stay as they are.
    return json.dumps(text, ensure_ascii=False)
