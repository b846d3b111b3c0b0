"""HTTPS certificates that are read again when their files change."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from typing import Any

from engine.config import ServerConfig

#: Seconds between two looks at the files.
LOOK_SECONDS = 2.0

log = logging.getLogger("engine.server")


class Certificates:
    """The TLS context of a server; connections that begin after :meth:`refresh` use the files' new content.

    Raises ``ssl.SSLError`` or ``OSError`` where the first reading fails.
    """

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._current = self._read()
        self._seen = self._state()
        #: What a server listens with. Each handshake goes on with the current context; one that came before keeps its own.
        self.context = self._read()
        self.context.sni_callback = self._choose

    async def watch(self) -> None:
        """Look at the files for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.refresh()

    def refresh(self) -> bool:
        """Read the files where they have changed; whether that succeeded. Where they do not fit together (yet), the old ones stay."""
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        try:
            self._current = self._read()
        except (OSError, ValueError) as error:
            log.warning("The changed certificate files cannot be used; the former ones stay in use: %s", error)
            return False
        log.info("The certificates were read again.")
        return True

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self._server.ssl_certfile), self._server.ssl_keyfile)
        context.verify_mode = ssl.VerifyMode(self._server.ssl_cert_reqs)
        if self._server.ssl_ca_certs:
            context.load_verify_locations(self._server.ssl_ca_certs)
        return context

    def _state(self) -> list[Any]:
        found: list[Any] = []
        for path in (self._server.ssl_keyfile, self._server.ssl_certfile, self._server.ssl_ca_certs):
            try:
                status = os.stat(path) if path else None
            except OSError:
                found.append("absent")
            else:
                found.append(status and (status.st_mtime_ns, status.st_size, status.st_ino))
        return found
