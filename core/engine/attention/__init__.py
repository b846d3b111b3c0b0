"""Attention over the paged KV cache: Triton kernels for CUDA, and the torch reference that defines the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.plugin.contracts.attention import AttentionBackend


def built_in(device_type: str) -> AttentionBackend:
    """The backend for tensors on that torch device type: Triton kernels on ``cuda``, the torch reference elsewhere.

    Imports torch (and triton for ``cuda``) on the first call, so that this package is free to import.
    """
    if device_type == "cuda":
        from engine.attention.triton_paged import TritonAttention

        return TritonAttention()
    from engine.attention.reference import ReferenceAttention

    return ReferenceAttention()
