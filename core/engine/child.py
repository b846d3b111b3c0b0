"""A process that the event loop waits for, started deaf to what asks its group to end."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import threading
from collections.abc import Mapping, Sequence

from engine.parent import held_ends


class Child:
    """Started at once, by the thread of the running event loop; it hears Ctrl-C only once it asks to.

    Event loops of their own kind start processes with all signals open, which Python at its start answers with a traceback.
    Raises :class:`OSError` where no process is to be had.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], keep: Sequence[int] = ()) -> None:
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[int] = loop.create_future()
        with held_ends():
            self._process = subprocess.Popen(command, env=environment, pass_fds=keep)
        threading.Thread(target=self._see_end, args=(loop,), name="child", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, as :class:`subprocess.Popen` says it; None while it lives."""
        return self._over.result() if self._over.done() else None

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def wait(self) -> int:
        """Until it has ended; its return code."""
        return await asyncio.shield(self._over)

    def _see_end(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._over.set_result, code)
