"""The enabled extensions: every one of them is called, and one that fails is named and left behind, not fatal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from engine.errors import EngineError, RequestError
from engine.plugin.activate import check_arguments, registered
from engine.plugin.api import Choice
from engine.plugin.blame import origin
from engine.plugin.faults import Faults
from engine.plugin.host import PluginHost
from engine.plugin.kinds import EXTENSION

_log = logging.getLogger(__name__)


class Extensions:
    """Fan-out to the enabled extensions, in the order of their names.

    A chosen extension that cannot be loaded ends the start with its :class:`engine.errors.PluginError`;
    one that fails later is reported in the log with its distribution, and the request goes on.
    """

    def __init__(self, host: PluginHost, names: Iterable[str], faults: Faults | None = None) -> None:
        self._faults = faults or Faults()
        self._hooks: list[tuple[Choice, Any]] = []
        for name in names:
            choice = host.resolve(EXTENSION, name)
            manager = registered(EXTENSION, choice, host.module(EXTENSION, choice))
            self._hooks.append((choice, manager.hook))
        self._finished = tuple(
            (choice, hooks.engine_request_finished)
            for choice, hooks in self._hooks
            if hooks.engine_request_finished.get_hookimpls()
        )

    def call(self, hook: str, /, **args: Any) -> None:
        """Call one extension hook of :mod:`engine.plugin.spec` on every extension that has it."""
        check_arguments(hook, args)
        for choice, hooks in self._hooks:
            self._guarded(choice, hook, getattr(hooks, hook), args)

    def add_routes(self, app: Any, client: Any, guard: Callable[[Any, Faults, Choice], None]) -> None:
        """``engine_add_routes`` of each. ``guard`` is given every route that it added, and whose it is."""
        for choice, hooks in self._hooks:
            before = len(app.routes)
            self._guarded(choice, "engine_add_routes", hooks.engine_add_routes, {"app": app, "client": client})
            for route in app.routes[before:]:
                guard(route, self._faults, choice)

    def request_finished(self, record: Any) -> None:
        """``engine_request_finished``, once per request: the list of those who listen is made at the start."""
        for choice, caller in self._finished:
            self._guarded(choice, "engine_request_finished", caller, {"record": record})

    def _guarded(self, choice: Choice, hook: str, caller: Any, args: dict[str, Any]) -> None:
        try:
            self._faults.check(choice)
        except RequestError:
            return  # in quarantine
        try:
            self._faults.call(choice, caller, **args)
        except EngineError as error:
            # An observer must not end what it observes; the log has the whole trace.
            _log.error("%s in %s of %s", error, hook, origin(EXTENSION, choice), exc_info=error.__cause__)
