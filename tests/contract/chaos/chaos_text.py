"""What the misbehaving parsers and tokenizers share: one fault, by name."""

from __future__ import annotations

import sys
import time


def misbehave(fault, right):
    """Do what ``fault`` says, or return ``right``."""
    match fault:
        case "raises":
            raise ValueError("a bug")
        case "exits":
            sys.exit(3)
        case "returns None":
            return None
        case "returns garbage":
            return {"content": 3}
        case "loops":
            while True:
                pass
        case "sleeps":
            time.sleep(3600)
    return right
