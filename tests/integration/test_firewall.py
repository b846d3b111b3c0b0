"""What a server must not do: unpickle, listen to the network, tell secrets to its log, believe fields that it does not know."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.serving import REPOSITORY, ROOTS, RunningServer, serve

KEY = "firewall-key-7531"
SECRET = "the prompt that nobody may see"
BEARER = {"authorization": f"Bearer {KEY}"}
SOURCES = [path for root in ROOTS for path in (REPOSITORY / root).rglob("*.py")]
#: Files may be read with the restricted unpickler: torch's own formats. No message is.
MAY_NAME_PICKLE = {"core/engine/plugin/testing", "plugins/engine_plugins/loaders"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("firewall")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "run").mkdir()
        patch.setenv("TMPDIR", str(folder / "run"))
        with serve(folder / "log", "demo", "--api-key", KEY, "-tp", "2") as running:
            yield running


def test_nothing_is_unpickled_between_processes() -> None:
    """Rows 45 and 46."""
    assert len(SOURCES) > 300
    imported = r"^\s*(import|from)\s+(pickle|cloudpickle|dill|marshal|shelve)\b"
    wrong = re.compile(imported + r"|pickle\.loads?\(|\.recv\(\)|send_pyobj|(?<![\w.])eval\(", re.M)
    found = {str(path.relative_to(REPOSITORY)) for path in SOURCES if wrong.search(path.read_text())}
    assert {name for name in found if not any(name.startswith(allowed) for allowed in MAY_NAME_PICKLE)} == set()


def test_durations_are_monotonic() -> None:
    """Row 71: the time of day is only told, never subtracted."""
    found = [f"{path.relative_to(REPOSITORY)}: {line.strip()}" for path in SOURCES for line in path.read_text().splitlines()
             if re.search(r"time\.time\(\)\s*[-<>]|[-<>]\s*time\.time\(\)", line)]  # fmt: skip
    assert found == []


def test_only_the_api_listens_to_the_network(server: RunningServer) -> None:
    """Rows 46 and 47: loopback unless told otherwise. Beside the API only the collectives of torch listen, between several workers."""
    parent = psutil.Process(server.process.pid)
    listening = {process.pid: [found.laddr for found in process.net_connections("inet") if found.status == psutil.CONN_LISTEN]
                 for process in (parent, *parent.children(recursive=True))}  # fmt: skip
    assert {address.ip for addresses in listening.values() for address in addresses} == {"127.0.0.1"}
    assert [address.port for address in listening[parent.pid]] == [int(server.url.rpartition(":")[2])]


def test_sockets_are_private(server: RunningServer) -> None:
    folder = server.log.parent / "run"
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_socket():
            assert mode & 0o077 == 0 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path
        elif path.is_dir():
            assert mode & 0o077 == 0, path


def test_the_log_tells_no_secret(server: RunningServer) -> None:
    """Row 76, with wrong keys and refused prompts too."""
    bodies = [{"prompt": SECRET, "max_tokens": 2}, {"prompt": SECRET, "n": -1}, {"prompt": SECRET, "stop": [""], "user": "a"}]
    for body in bodies:
        httpx.post(f"{server.url}/v1/completions", json=body, headers=BEARER, timeout=60)
    httpx.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {KEY}-wrong"})
    page = httpx.get(f"{server.url}/metrics", headers=BEARER).text
    log = server.log.read_text()
    assert "request " in log
    for secret in (KEY, SECRET, "nobody may see"):
        assert secret not in log and secret not in page


def test_unknown_fields_are_named_and_do_nothing(server: RunningServer) -> None:
    """Rows 44 and 45."""
    plain = {"prompt": "Hi", "max_tokens": 4, "temperature": 0}
    odd = {**plain, "prompt_embeds": "gASVAAAAAA==", "custom_logit_processor": "gASV", "\r\nset-cookie: a": 1}
    answers = [httpx.post(f"{server.url}/v1/completions", json=body, headers=BEARER, timeout=60) for body in (plain, odd)]
    assert answers[0].json()["choices"][0]["text"] == answers[1].json()["choices"][0]["text"]
    assert answers[1].headers["x-ignored-fields"] == "prompt_embeds, custom_logit_processor, ??set-cookie??a"
    assert "set-cookie" not in answers[1].headers


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "http://localhost/x", "file:///etc/passwd", "data:image/png;base64,AAAA", "http:\\\\evil/x"]
)
def test_nothing_is_fetched(server: RunningServer, url: str) -> None:
    """Rows 42 and 43: there are no media in this version."""
    content = [{"type": "image_url", "image_url": {"url": url}}]
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]}, headers=BEARER)
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("messages[0]")


def test_repeated_ids_split_no_answer(server: RunningServer) -> None:
    """Row 77."""
    for given in ("a b", "x" * 300, "é".encode(), "a;b"):
        answer = httpx.get(f"{server.url}/version", headers={**BEARER, "x-request-id": given})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert httpx.get(f"{server.url}/version", headers={**BEARER, "x-request-id": "mine"}).headers["x-request-id"] == "mine"


def test_gone(server: RunningServer) -> None:
    """The folder of a server that has ended is empty."""
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert [path for path in Path(server.log.parent / "run").rglob("*") if path.is_socket()] == []
