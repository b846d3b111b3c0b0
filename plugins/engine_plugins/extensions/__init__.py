"""Observers, routes and limits around a running server."""
