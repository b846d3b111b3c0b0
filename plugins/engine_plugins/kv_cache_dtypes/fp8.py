"""Keys and values in 8-bit floats (e4m3), divided by the checkpoint's or calculated scales."""

from __future__ import annotations

from engine.plugin import KVCacheType, hookimpl

ENGINE_API = 1


class Float8(KVCacheType):
    """Another name of fp8_e4m3."""

    def storage(self, model_dtype: str) -> str:
        """The same for every model."""
        return "float8_e4m3fn"

    def scaled(self) -> bool:
        """See the contract."""
        return True


@hookimpl
def engine_create_kv_cache_type() -> KVCacheType:
    """The type ``fp8``."""
    return Float8()
