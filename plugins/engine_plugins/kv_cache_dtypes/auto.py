"""Keys and values are stored in the model's own dtype."""

from __future__ import annotations

from engine.plugin import KVCacheType, hookimpl

ENGINE_API = 1


class ModelDtype(KVCacheType):
    """Stores what attention computes, unchanged."""

    def storage(self, model_dtype: str) -> str:
        """The model's dtype."""
        return model_dtype


@hookimpl
def engine_create_kv_cache_type() -> KVCacheType:
    """The type ``auto``."""
    return ModelDtype()
