"""A client whose stream runs again and again while others misbehave; every run must give what it gave alone."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import httpx

BODY = {"prompt": "The neighbour", "max_tokens": 40, "temperature": 1.0, "seed": 11, "ignore_eos": True, "stream": True}


class Neighbour:
    """``odd``: the runs that gave something else than :attr:`alone`."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.url = url
        self.headers = headers
        self.alone = self.read()
        self.runs = 0
        self.odd: list[str] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._repeat)

    def read(self) -> str:
        """One run."""
        text = ""
        with httpx.stream("POST", f"{self.url}/v1/completions", json=BODY, headers=self.headers, timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    text += event["choices"][0]["text"] if "choices" in event else f"<{event}>"
        return text

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It runs while the block does."""
        self._thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._thread.join(60)

    def _repeat(self) -> None:
        while not self._ending.is_set():
            try:
                text = self.read()
            except httpx.HTTPError as error:
                text = repr(error)
            self.runs += 1
            if text != self.alone:
                self.odd.append(text)
