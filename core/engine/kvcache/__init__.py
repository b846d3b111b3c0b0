"""Bookkeeping of the paged KV cache: pages, prefix digests, swap; pure Python."""
