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
#: Seconds after which another thread that caught the interruption is interrupted again, and between two looks at calls.
_AGAIN = 0.5
_LOOK = 0.2
#: Looks without any call after which the next call has to wake the thread that looks.
_QUIET = 50


class PluginTimeout(BaseException):
    """Raised inside a plugin that took too long; no ``except Exception`` of its own can keep it."""


class Alarm:
    """The process's handler of SIGALRM. A thread of its own looks for calls that are late: those on the main thread it sends the signal,
    others an exception. A signal that comes after the call's end does nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        #: When the main thread's call is late (monotonic); 0 between calls.
        self.late = 0.0
        self.main = threading.main_thread().ident or 0
        self._lock = threading.Lock()
        #: Other thread → when it is late; negative once it was interrupted.
        self._others: dict[int, float] = {}
        self._asleep = True
        self._awake = threading.Event()
        threading.Thread(target=self._run, name="plugin-alarm", daemon=True).start()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if 0.0 < self.late < time.monotonic():
            raise PluginTimeout

    def begin(self) -> None:
        """A call begins on the main thread; its end sets ``late`` to 0."""
        self.late = time.monotonic() + self.seconds
        if self._asleep:
            self._awake.set()

    def follow(self, thread: int) -> bool:
        """A call begins on another thread; False where one is limited there already."""
        with self._lock:
            if thread in self._others:
                return False
            self._others[thread] = time.monotonic() + self.seconds
        if self._asleep:
            self._awake.set()
        return True

    def leave(self, thread: int) -> None:
        """It is over; an interruption that it did not see any more is taken back."""
        with self._lock:
            if self._others.pop(thread, 0.0) < 0:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

    def _run(self) -> None:
        quiet = _QUIET
        while True:
            quiet = quiet + 1 if not self.late and not self._others else 0
            if quiet > _QUIET:
                self._asleep, quiet = True, 0
                if not self.late and not self._others:
                    self._awake.wait()
                self._asleep = False
                self._awake.clear()
            time.sleep(_LOOK)
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        if 0.0 < self.late < now:
            signal.pthread_kill(self.main, signal.SIGALRM)
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


def installed() -> Alarm | None:
    """The process's alarm, if it has one."""
    handler = signal.getsignal(signal.SIGALRM)
    return handler if type(handler) is Alarm else None


class limited:
    """``with limited():`` raises :class:`PluginTimeout` inside the block when it takes longer.

    Only in a process with :func:`install`; elsewhere, and inside another limit, it does nothing. On the main thread it interrupts whatever
    lets signals in (sleeps, locks, regular expressions), on others Python code alone.
    """

    __slots__ = ("_alarm", "_thread")

    def __init__(self, alarm: Alarm | None = None) -> None:
        self._alarm = alarm or installed()
        self._thread = 0

    def __enter__(self) -> None:
        alarm, thread = self._alarm, threading.get_ident()
        if alarm is None:
            return
        if thread != alarm.main:
            self._thread = thread
            self._alarm = alarm if alarm.follow(thread) else None
        elif alarm.late:
            self._alarm = None
        else:
            alarm.begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._alarm is None:
            return
        if not self._thread:
            self._alarm.late = 0.0
            return
        try:
            self._alarm.leave(self._thread)
        except PluginTimeout:
            self._alarm.leave(self._thread)
            raise
