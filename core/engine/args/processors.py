"""--logits-processor-pattern and the installed logits processors to their part of the configuration."""

from __future__ import annotations

import re

from engine.config import ProcessorConfig
from engine.errors import ConfigError
from engine.plugin import kinds
from engine.plugin.host import PluginHost

FLAG = "--logits-processor-pattern"


def processor_config(host: PluginHost, pattern: str | None) -> ProcessorConfig:
    """The configuration. Raises ConfigError for a pattern that is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(f"{FLAG} {pattern}: {error}.", fix=f"{FLAG} 'mypackage\\.processors\\.\\w+'") from error
    installed = {entry.name for entry in host.entries(kinds.LOGITS_PROCESSOR)}
    choices = {name: host.resolve(kinds.LOGITS_PROCESSOR, name) for name in sorted(installed)}
    return ProcessorConfig(pattern=pattern or None, choices=choices)
