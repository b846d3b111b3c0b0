"""A small HTTP/1.1 client for measuring: one connection per request, bytes as they arrive."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from engine.errors import ConfigError, EngineError

#: Longest line of a head or of an event, in bytes.
_LINE = 16 << 20


class HttpFailure(EngineError):
    """A server that cannot be reached, refused, or broke off."""


class Target:
    """A server's address. Raises ConfigError for what is no http or https URL."""

    def __init__(self, url: str, api_key: str | None = None, flag: str = "--url") -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{flag} {url}: {error}.", fix=f"{flag} http://127.0.0.1:8000") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{flag} {url}: not an http address.", fix=f"{flag} http://127.0.0.1:8000")
        self.url = url
        self.host = parts.hostname
        self.port = port or (443 if parts.scheme == "https" else 80)
        self.base = parts.path.rstrip("/").removesuffix("/v1")
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        #: What two addresses of one server have in common.
        self.place = (self.host, self.port, self.base)
        self._name = parts.netloc.rpartition("@")[2]
        self._key = api_key

    def head(self, method: str, path: str, length: int) -> bytes:
        """The request's head."""
        lines = [
            f"{method} {self.base}{path} HTTP/1.1", f"Host: {self._name}", "Connection: close", "Accept: */*",
            "Content-Type: application/json", f"Content-Length: {length}",
        ]  # fmt: skip
        if self._key:
            lines.append(f"Authorization: Bearer {self._key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@contextlib.asynccontextmanager
async def opened(target: Target, method: str, path: str, body: bytes = b"") -> AsyncIterator[Answer]:
    """Send a request; the answer's head has been read. Raises HttpFailure."""
    try:
        reader, writer = await asyncio.open_connection(target.host, target.port, ssl=target.tls, limit=_LINE)
    except OSError as error:
        raise HttpFailure(f"{target.url} does not answer: {error}.", fix="engine serve MODEL, and its address as --url") from error
    try:
        writer.write(target.head(method, path, len(body)) + body)
        await writer.drain()
        yield await _read_head(reader)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
        raise HttpFailure(f"{target.url}{path}: the answer broke off: {error}.") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def fetch(target: Target, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and whole body. Raises HttpFailure."""
    async with opened(target, method, path, body) as answer:
        return answer.status, b"".join([piece async for piece in answer.pieces()])


class Answer:
    """An answer whose head is known; its body is read once, by :meth:`pieces` or :meth:`lines`."""

    def __init__(self, status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes: chunks, or what the connection gives up to its length or its end."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            async for chunk in self._chunks():
                yield chunk
            return
        left = int(self.headers["content-length"]) if "content-length" in self.headers else None
        while left is None or left > 0:
            piece = await self._reader.read(65536 if left is None else min(left, 65536))
            if not piece:
                if left:
                    raise asyncio.IncompleteReadError(b"", left)
                return
            left = None if left is None else left - len(piece)
            yield piece

    async def events(self) -> AsyncIterator[bytes]:
        """The data of server-sent events, each in one piece however the body was cut."""
        rest = b""
        data: list[bytes] = []
        async for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    data.append(line[5:].strip())
                elif not line.strip() and data:
                    yield b"\n".join(data)
                    data = []
        if rest.startswith(b"data:"):
            data.append(rest[5:].strip())
        if data:
            yield b"\n".join(data)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            chunk = await self._reader.readexactly(size + 2)
            yield chunk[:-2]


async def _read_head(reader: asyncio.StreamReader) -> Answer:
    """Status and headers; interim answers (100 Continue) are passed over."""
    while True:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        if status >= 200:
            return Answer(status, headers, reader)
