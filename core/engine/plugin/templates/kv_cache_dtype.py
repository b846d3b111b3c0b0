"""Keeps the KV cache in float16, whatever the model computes in; named example."""

from __future__ import annotations

from engine.plugin import KVCacheType, hookimpl

ENGINE_API = 1


class HalfCache(KVCacheType):
    """Half the bytes of a float32 model's cache."""

    def storage(self, model_dtype: str) -> str:
        return "float16"


@hookimpl
def engine_create_kv_cache_type() -> KVCacheType:
    return HalfCache()
