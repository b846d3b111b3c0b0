"""A time limit for a plugin's call: code that loops for ever is interrupted, on the main thread also code that sleeps."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from types import FrameType, TracebackType

from engine.errors import ConfigError

#: Seconds that one call of a plugin may take while a request is served, unless the environment says otherwise. Everybody waits meanwhile.
SECONDS = 5.0
VARIABLE = "ENGINE_PLUGIN_TIMEOUT"
#: Seconds after which one that caught the interruption is interrupted again, and between two looks at other threads.
_AGAIN = 0.5
_LOOK = 0.2


class PluginTimeout(BaseException):
    """Raised inside a plugin that took too long; no ``except Exception`` of its own can keep it."""


class Alarm:
    """The process's handler of SIGALRM, for its main thread, and a thread that watches the others.

    The signal raises only while a call is limited, so a late one does nothing.
    """

    def __init__(self, seconds: float) -> None:
        self.armed = False
        self.seconds = seconds
        self._lock = threading.Lock()
        #: Thread → when it is late; negative once it was interrupted.
        self._others: dict[int, float] = {}
        self._watch: threading.Thread | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            raise PluginTimeout

    def follow(self, thread: int) -> bool:
        """A call has begun on that thread; False where one is limited there already."""
        with self._lock:
            if thread in self._others:
                return False
            self._others[thread] = time.monotonic() + self.seconds
            if self._watch is None:
                self._watch = threading.Thread(target=self._look, name="plugin-alarm", daemon=True)
                self._watch.start()
        return True

    def leave(self, thread: int) -> None:
        """It is over; an interruption that it did not see any more is taken back."""
        with self._lock:
            if self._others.pop(thread, 0.0) < 0:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK)
            now = time.monotonic()
            with self._lock:
                for thread, late in self._others.items():
                    if abs(late) < now:
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(PluginTimeout))
                        self._others[thread] = -(now + _AGAIN)


def allowed_seconds() -> float:
    """What ``$ENGINE_PLUGIN_TIMEOUT`` says, else the default. Raises ConfigError where it is no positive number."""
    stated = os.environ.get(VARIABLE, "")
    try:
        seconds = float(stated or SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{VARIABLE} is {stated!r}, which is no number of seconds.", fix=f"{VARIABLE}={SECONDS:g}")
    return seconds


def install() -> None:
    """Make :class:`limited` work in this process; for processes of the engine's own, from their main thread."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, Alarm(allowed_seconds()))


class limited:
    """``with limited():`` raises :class:`PluginTimeout` inside the block when it takes longer.

    Only in a process with :func:`install`; elsewhere, and inside another limit, it does nothing. On the main thread it interrupts whatever
    lets signals in (sleeps, locks, regular expressions), on others Python code alone.
    """

    __slots__ = ("_alarm", "_thread")

    def __init__(self) -> None:
        self._alarm: Alarm | None = None
        self._thread = 0

    def __enter__(self) -> None:
        handler = signal.getsignal(signal.SIGALRM)
        if type(handler) is not Alarm:
            return
        if threading.current_thread() is not threading.main_thread():
            thread = threading.get_ident()
            if handler.follow(thread):
                self._alarm, self._thread = handler, thread
        elif not handler.armed:
            self._alarm = handler
            handler.armed = True
            signal.setitimer(signal.ITIMER_REAL, handler.seconds, _AGAIN)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._alarm is None:
            return
        if not self._thread:
            self._alarm.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            return
        try:
            self._alarm.leave(self._thread)
        except PluginTimeout:
            self._alarm.leave(self._thread)
            raise
