"""Guided decoding: constraints from request fields, checked and compiled where they can do no harm."""
