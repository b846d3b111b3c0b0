"""Finding a model: directories, bundled models, and a hub that the tests play themselves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from engine.checkpoint import BUNDLED, bundled_models, locate
from engine.errors import ModelFileError
from engine.hub import _weight_patterns

FILES = {
    "config.json": b'{"architectures": ["X"]}', "model.safetensors": b"weights", "pytorch_model.bin": b"the same again",
    "original/consolidated.bin": b"and again", "tokenizer.json": b"{}", "modeling_x.py": b"print('never')", "README.md": b"read me",
}  # fmt: skip
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_directory_is_itself(tmp_path):
    found = locate(str(tmp_path), trust_remote_code=True)
    assert (found.path, found.config_path, found.tokenizer_path) == (str(tmp_path),) * 3
    assert (found.model, found.trust_remote_code) == (str(tmp_path), True)


def test_other_places_for_config_and_tokenizer(tmp_path):
    places = [tmp_path / name for name in ("m", "c", "t")]
    for place in places:
        place.mkdir()
    found = locate(str(places[0]), config_path=str(places[1]), tokenizer=str(places[2]))
    assert [found.path, found.config_path, found.tokenizer_path] == [str(place) for place in places]


@pytest.mark.skipif("demo" not in bundled_models(), reason="the bundled model is not here")
def test_bundled_models_give_way_to_directories_with_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert locate("demo").path == str(BUNDLED / "demo")
    (tmp_path / "demo" / "config.json").write_text("{}")
    assert locate("demo").path == str(tmp_path / "demo")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("", "no name of a model"), ("/nowhere/at/all", "no such directory"), ("./x", "no such directory"), ("a/b/c", "no such directory"),
        ("gs://bucket/model", "of URLs, s3:// alone"), ("owner/na me", "no such directory"),
        ("/dev/null", "neither a directory nor a regular file"),
        ("x\0y", "no name of a model"),
    ],
)  # fmt: skip
def test_what_cannot_be_found(model, says):
    with pytest.raises(ModelFileError, match=says):
        locate(model)


def test_weights_are_fetched_in_one_format_only():
    def wanted(names, ignored=()):
        return [patterns[-1] for patterns in _weight_patterns(names, ignored)]

    assert wanted(["a.bin", "b.safetensors"]) == ["*.safetensors"]
    assert wanted(["a.bin", "original/b.safetensors"], ["original/*"]) == ["*.bin"]
    assert wanted(["training_args.bin", "a.pt"]) == ["*.pt"]
    assert wanted(["README.md"]) == ["*.safetensors"]
    assert wanted(None) == ["*.safetensors", "*.bin", "*.pt"]


class Hub(BaseHTTPRequestHandler):
    """Enough of a hub for one public repository ``owner/tiny``."""

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        path = self.path.split("?")[0]
        if path.removeprefix("/api/models/owner/tiny") in ("", "/revision/main", f"/revision/{COMMIT}"):
            info = {"id": "owner/tiny", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            self._send(200, json.dumps(info).encode(), body, "application/json")
        elif path.startswith("/api/models/owner/tiny/tree/"):
            tree = [{"type": "file", "path": name, "size": len(text), "oid": "0" * 40} for name, text in FILES.items()]
            self._send(200, json.dumps(tree).encode(), body, "application/json")
        elif path.startswith("/api/models/owner/tiny/revision/"):
            self._send(404, b"{}", body, "application/json", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(f"/owner/tiny/resolve/{COMMIT}/") and path.split("/", 5)[5] in FILES:
            content = FILES[path.split("/", 5)[5]]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._send(200, content, body, "application/octet-stream", headers)
        else:
            self._send(404, b"{}", body, "application/json", {"X-Error-Code": "RepoNotFound"})

    def _send(self, status, content, body, kind, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def locate_in_a_process(home, endpoint, call, **environment):
    code = (
        "import os\nfrom engine.checkpoint import locate\nfrom engine.errors import ModelFileError\n"
        f"try:\n    found = {call}\n    for where, _, names in os.walk(found.path):\n"
        "        for name in names: print(os.path.relpath(os.path.join(where, name), found.path))\n"
        "except ModelFileError as error:\n    print('refused:', error.line())"
    )
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False, timeout=60)
    return sorted(done.stdout.splitlines()) or done.stderr


def test_a_repository_is_downloaded_without_what_is_not_needed(hub, tmp_path):
    needed = ["config.json", "model.safetensors", "tokenizer.json"]
    assert locate_in_a_process(tmp_path, hub, "locate('owner/tiny')") == needed
    assert locate_in_a_process(tmp_path, "http://127.0.0.1:9", "locate('owner/tiny')", HF_HUB_OFFLINE="1") == needed
    assert locate_in_a_process(tmp_path, "http://127.0.0.1:9", "locate('owner/tiny')") == needed  # the hub is down


def test_code_and_patterns_and_places(hub, tmp_path):
    call = f"locate('owner/tiny', trust_remote_code=True, download_dir={str(tmp_path / 'd')!r}, ignore_patterns=['*.safetensors'])"
    found = locate_in_a_process(tmp_path / "home", hub, call)
    assert found == ["config.json", "modeling_x.py", "original/consolidated.bin", "pytorch_model.bin", "tokenizer.json"]
    assert (tmp_path / "d" / "models--owner--tiny").is_dir()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("locate('owner/nothing')", "the hub has no such repository"),
        ("locate('owner/tiny', revision='nowhere')", "the repository has no revision nowhere. Try: --revision main"),
    ],
)
def test_what_the_hub_does_not_have(hub, tmp_path, call, says):
    found = locate_in_a_process(tmp_path, hub, call)
    assert found[0].startswith("refused:")
    assert says in found[0]


def test_offline_and_never_downloaded(tmp_path):
    found = locate_in_a_process(tmp_path, "http://127.0.0.1:9", "locate('owner/tiny')", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, and it was not downloaded before" in found[0]
