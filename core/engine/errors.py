"""The failures of the engine: one class per remedy, each with a cause and one suggested change."""

from __future__ import annotations

from typing import Any, ClassVar


def advised(cause: str, fix: str | None) -> str:
    """The cause as a sentence, and the suggested change behind it, if there is one."""
    if not fix:
        return cause
    return f"{cause if cause.endswith(('.', '?', '!')) else cause + '.'} Try: {fix}"


class EngineError(Exception):
    """A failure that the user can act on.

    ``str(error)`` is the cause in one sentence; ``fix`` is one suggested change (a flag and value, a command), or None.
    ``status`` is the exit status of a start that ends with it.
    """

    status: ClassVar[int] = 1

    def __init__(self, cause: str, *, fix: str | None = None) -> None:
        super().__init__(cause)
        self.fix = fix

    def line(self) -> str:
        """The cause and the suggested change, as the last line of a failed start shows them."""
        return advised(str(self), self.fix)


class ConfigError(EngineError):
    """A flag, an option or a combination of them cannot be meant (status 2)."""

    status = 2


class PluginError(EngineError):
    """A chosen plugin cannot be used (status 3); the subclasses name the seven reasons."""

    status = 3


class UnknownPlugin(PluginError):
    """No distribution offers a plugin of that name."""


class PluginConflict(PluginError):
    """Two distributions offer one name."""


class MissingDependency(PluginError):
    """The plugin needs an optional package that is not installed."""


class BrokenPlugin(PluginError):
    """Importing the plugin, or its hook, raised an error of the plugin's own."""


class IncompatiblePlugin(PluginError):
    """The plugin is written for another version of the plugin API."""


class BadSignature(PluginError):
    """The plugin's hook does not exist, or takes arguments that the specification does not have."""


class ContractViolation(PluginError):
    """What the plugin's factory returned is not what its kind promises."""


class UnavailablePlugin(PluginError):
    """The plugin is sound, but what it stands for (a device, a runtime) is absent on this machine."""


class PluginFault(PluginError):
    """A plugin failed while it served a request, which fails with it; the message names plugin, distribution and version.

    ``plugin``: its :class:`engine.plugin.api.Choice`.
    """

    def __init__(self, cause: str, *, plugin: Any, fix: str | None = None) -> None:
        super().__init__(cause, fix=fix)
        self.plugin = plugin


class ModelFileError(EngineError):
    """A file of the model is missing, damaged or not understood (status 4)."""

    status = 4


class MemoryShortage(EngineError):
    """The model and its cache do not fit into the memory that may be used (status 5)."""

    status = 5


class PortError(EngineError):
    """The address cannot be bound (status 6)."""

    status = 6


class WorkerDied(EngineError):
    """A worker or engine process ended or no longer answers."""


class RequestError(EngineError):
    """A request cannot be served as asked; ends as an HTTP 4xx that names the field.

    ``param`` is the request's field, ``code`` a machine-readable reason (``context_length_exceeded`` …),
    ``http_status`` the answer's status, ``retry_after`` the seconds after which asking again may help.
    """

    def __init__(
        self, cause: str, *, param: str | None = None, code: str | None = None, http_status: int = 400, fix: str | None = None,
        retry_after: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(cause, fix=fix)
        self.param = param
        self.code = code
        self.http_status = http_status
        self.retry_after = retry_after
