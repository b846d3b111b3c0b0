"""Keys and values in 8-bit floats with 5 exponent bits (e5m2), without scales."""

from __future__ import annotations

from engine.plugin import KVCacheType, hookimpl

ENGINE_API = 1


class Float8E5M2(KVCacheType):
    """A wide range and little precision; scales of the checkpoint are not used."""

    def storage(self, model_dtype: str) -> str:
        """The same for every model."""
        return "float8_e5m2"

    def scaled(self) -> bool:
        """See the contract."""
        return False


@hookimpl
def engine_create_kv_cache_type() -> KVCacheType:
    """The type ``fp8_e5m2``."""
    return Float8E5M2()
