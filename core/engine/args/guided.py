"""--guided-decoding-backend NAME:option,option to its part of the configuration."""

from __future__ import annotations

from engine.config import GuidedConfig
from engine.errors import ConfigError
from engine.plugin import kinds
from engine.plugin.blame import check_extra
from engine.plugin.host import PluginHost

FLAG = "--guided-decoding-backend"
OPTIONS = ("no-fallback", "disable-any-whitespace")
#: Memory of the backend that a server loads when it starts or first rests: its compile process and its part of the worker, as
#: measured with xgrammar.
LOADED = 88 * 2**20


def split_backend(text: str) -> tuple[str, frozenset[str]]:
    """Name and options. Raises ValueError naming the first unknown option."""
    name, _, listed = text.partition(":")
    options = [option.strip() for option in listed.split(",") if option.strip()]
    for option in options:
        if option not in OPTIONS:
            raise ValueError(f"the option {option!r} is unknown; known: {', '.join(OPTIONS)}")
    return name, frozenset(options)


def guided_config(host: PluginHost, text: str, *, given: bool = False) -> GuidedConfig:
    """The configuration that the flag means; ``given``: somebody wrote it. Raises ConfigError, and MissingDependency where the backend's
    library is not installed: it is needed with the first constraint only, but who chose it should not have to wait for that."""
    try:
        name, options = split_backend(text)
    except ValueError as error:
        raise ConfigError(f"{FLAG} {text}: {error}.", fix=f"{FLAG} {text.partition(':')[0]}") from error
    installed = {entry.name for entry in host.entries(kinds.GUIDED_DECODING)}
    if name in installed:
        check_extra(kinds.GUIDED_DECODING, host.resolve(kinds.GUIDED_DECODING, name))
    return GuidedConfig(
        backend=name,
        fallback="no-fallback" not in options,
        any_whitespace="disable-any-whitespace" not in options,
        warm=given,
        choices={known: host.resolve(kinds.GUIDED_DECODING, known) for known in sorted(installed)},
    )
