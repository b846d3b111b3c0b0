"""Starts the worker processes and meets them on a private socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from engine.errors import WorkerDied
from engine.plugin import WorkerPlan
from engine.plugin.wire import Listener, listen, private_directory
from engine.plugin.workers import SOCKET_VARIABLE, Hello
from engine_plugins.executors._pending import Pending
from engine_plugins.executors._subprocess import Subprocess

#: Seconds for a new process to import what it needs and connect.
ARRIVAL = 120.0


class Brood:
    """The processes of ranks 1 …, from their start until none of them is left."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan = plan
        self.processes: list[subprocess.Popen[bytes]] = []
        self.directory: str | None = None

    def spawn(self, pending: Pending) -> list[Subprocess]:
        """Start every process and wait until each has connected; in rank order. Raises :class:`WorkerDied`."""
        self.directory = private_directory("engine-mp-")
        listener = listen(os.path.join(self.directory, "workers"))
        environment = {**os.environ, SOCKET_VARIABLE: listener.path}
        for rank in range(1, self._plan.world_size):
            command = [*self._plan.argv, str(rank)]
            self.processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
        try:
            return sorted(self._meet(listener, pending), key=lambda remote: remote.rank)
        finally:
            listener.close()

    def kill(self) -> None:
        """Kill every process; :meth:`close` collects them."""
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        """Leave no process and no socket behind. May be called twice."""
        self.kill()
        for process in self.processes:
            process.wait()
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _meet(self, listener: Listener, pending: Pending) -> list[Subprocess]:
        met: list[Subprocess] = []
        deadline = time.monotonic() + ARRIVAL
        while len(met) < len(self.processes):
            try:
                connection = listener.accept(0.1)
            except TimeoutError:
                self._check_arrivals(deadline)
                continue
            rank = connection.recv(Hello, ARRIVAL).rank
            met.append(Subprocess(rank, self.processes[rank - 1], connection, pending))
        return met

    def _check_arrivals(self, deadline: float) -> None:
        for rank, process in enumerate(self.processes, 1):
            if process.poll() is not None:
                raise WorkerDied(f"Worker {rank} ended with status {process.returncode} before it connected.")
        if time.monotonic() > deadline:
            raise WorkerDied(f"A worker process did not connect within {ARRIVAL:g} s.")
