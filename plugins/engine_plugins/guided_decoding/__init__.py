"""Guided-decoding backends."""
