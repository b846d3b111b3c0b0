"""Engines without a server in turns, each in a process of its own that stays: seconds per load, medians, ratios to the first.

    python benchmarks/peers/in_turns.py --load 32,128,64 --load 1,1024,1 --repeats 4 \\
        "engine=python benchmarks/peers/engine_loads.py MODEL" \\
        "openvino=PEERS/openvino/bin/python benchmarks/peers/openvino_genai_offline.py EXPORTED --threads 4 --turns"

A command prints ``ready``, then reads lines of ``batch inputs outputs [shared [known]]`` (prompts.py) and answers each with the seconds
that so many prompts of random ids took at once. Every load is run once before it is measured.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import IO


class Peer:
    """A process that runs loads."""

    def __init__(self, name: str, command: str) -> None:
        self.name = name
        self._process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._answer(lambda line: line.startswith("ready"))

    def run(self, load: tuple[int, ...]) -> float:
        """Seconds."""
        print(*load, file=self._pipe(self._process.stdin), flush=True)
        return float(self._answer(lambda line: line.strip().replace(".", "", 1).isdigit()))

    def close(self) -> None:
        """End it: it has no more to read."""
        self._pipe(self._process.stdin).close()
        self._process.wait()

    def _answer(self, wanted: Callable[[str], bool]) -> str:
        for line in self._pipe(self._process.stdout):
            if wanted(line):
                return line
        raise SystemExit(f"{self.name} ended")

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise RuntimeError("the process has no such pipe")
        return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="+", metavar="NAME=COMMAND")
    parser.add_argument("--load", action="append", required=True, metavar="BATCH,INPUTS,OUTPUTS[,SHARED[,KNOWN]]")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.5)
    options = parser.parse_args()
    peers = [Peer(*text.split("=", 1)) for text in options.peers]
    for text in options.load:
        load = tuple(map(int, text.split(",")))
        seconds: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for turn in range(options.repeats + 1):
            for peer in peers if turn % 2 else peers[::-1]:
                time.sleep(options.pause)
                seconds[peer.name].append(peer.run(load))
        medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
        tokens = load[0] * (load[2] if load[2] > 1 else load[1])
        for name, median in medians.items():
            taken = " ".join(f"{each:.3f}" for each in seconds[name][1:])
            ratio = median / medians[peers[0].name]
            print(f"{text:15} {name:10} {median:7.3f} s  {tokens / median:7.1f} tok/s  {ratio:5.2f} x  ({taken})", flush=True)
    for peer in peers:
        peer.close()


if __name__ == "__main__":
    main()
