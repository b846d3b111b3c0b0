"""The kit's fixtures, also where the engine runs from its source without being installed."""

from engine.plugin.testing.fixtures import blocked_import, engine_server, plugin_host, tiny_checkpoint

__all__ = ["blocked_import", "engine_server", "plugin_host", "tiny_checkpoint"]
