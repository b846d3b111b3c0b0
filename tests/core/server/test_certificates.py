"""Certificates that change while the server runs."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import pytest

from engine.args import EngineArgs
from engine.errors import ConfigError
from engine.server import certificates
from engine.server.run import _Ending, bind, serve
from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import create_app, make_config

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl")


def write_certificate(folder, name, file):
    """A certificate that signs itself, with its key."""
    key, cert = folder / f"{file}.key", folder / f"{file}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(key), str(cert)


async def handshake(port, trusted, client=None):
    """The server's certificate, checked against ``trusted``; ``client``: key and certificate of ours. One request is answered."""
    context = ssl.create_default_context(cafile=trusted)
    if client is not None:
        context.load_cert_chain(client[1], client[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    subject = writer.get_extra_info("peercert")["subject"]
    writer.close()
    return dict(pair for part in subject for pair in part)["commonName"]


@pytest.fixture
async def serving(monkeypatch):
    monkeypatch.setattr(certificates, "LOOK_SECONDS", 0.05)
    ends = []

    async def begin(**fields):
        listening = bind("127.0.0.1", 0)
        config = make_config(ssl_refresh=True, **fields)
        ending = _Ending()
        task = asyncio.create_task(serve(create_app(config, FakeClient(), byte_tokenizer()), config.server, listening, ending))
        ends.append((ending, task, listening))
        await asyncio.sleep(0.3)
        return listening.getsockname()[1]

    yield begin
    for ending, task, listening in ends:
        ending._end(0)
        await asyncio.wait_for(task, 10)
        listening.close()


async def test_a_new_certificate_is_used_by_new_connections(tmp_path, serving):
    key, cert = write_certificate(tmp_path, "first", "server")
    port = await serving(ssl_keyfile=key, ssl_certfile=cert)
    assert await handshake(port, cert) == "first"
    standing = await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context(cafile=cert), server_hostname="localhost")
    other_key, other_cert = write_certificate(tmp_path, "second", "other")
    shutil.copy(other_cert, cert)
    await asyncio.sleep(0.3)
    # Half of the change has come: the former pair stays in use.
    with pytest.raises(ssl.SSLError):
        await handshake(port, other_cert)
    shutil.copy(other_key, key)
    await asyncio.sleep(0.3)
    assert await handshake(port, other_cert) == "second"
    standing[1].write(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (await standing[0].read()).startswith(b"HTTP/1.1 200 ")
    standing[1].close()


async def test_clients_are_checked_against_the_new_authorities_alone(tmp_path, serving):
    key, cert = write_certificate(tmp_path, "server", "server")
    alice, bob = write_certificate(tmp_path, "alice", "alice"), write_certificate(tmp_path, "bob", "bob")
    authorities = shutil.copy(alice[1], tmp_path / "ca.pem")
    port = await serving(ssl_keyfile=key, ssl_certfile=cert, ssl_ca_certs=str(authorities), ssl_cert_reqs=2)
    assert await handshake(port, cert, alice) == "server"
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        await handshake(port, cert, bob)
    shutil.copy(bob[1], authorities)
    await asyncio.sleep(0.3)
    assert await handshake(port, cert, bob) == "server"
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        await handshake(port, cert, alice)


def test_the_flag_needs_a_certificate():
    with pytest.raises(ConfigError, match="--enable-ssl-refresh needs --ssl-certfile"):
        EngineArgs(model="demo", enable_ssl_refresh=True)
