"""Python code of a model's repository: run where the user trusts it alone, in the revision that the user names."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMITS = {"main": "a" * 40, "v2": "b" * 40}
CONFIGURATION = """
from transformers import LlamaConfig
class TinyConfig(LlamaConfig):
    model_type = "tiny_remote"
"""
MODELLING = """
import os
from transformers import LlamaForCausalLM
from .configuration_tiny import TinyConfig
with open(os.environ["MARK"], "a") as mark:
    mark.write("{factor} ")
class TinyForCausalLM(LlamaForCausalLM):
    config_class = TinyConfig
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * {factor}
        return output
"""
ASK = """
import json, sys
from engine.errors import ModelFileError
from tests.quant.checkpoints import logits_of
for flags in json.loads(sys.argv[2]):
    try:
        print(float(logits_of(sys.argv[1], ([5, 17, 3],), **flags)[0].abs().max()))
    except ModelFileError as error:
        print("refused:", error.line())
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """By revision: the same weights and configuration, other code."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=64)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {
        "architectures": ["TinyForCausalLM"], "model_type": "tiny_remote",
        "auto_map": {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModelForCausalLM": "modeling_tiny.TinyForCausalLM"},
    }  # fmt: skip
    return {
        revision: {
            "config.json": json.dumps(config).encode(), "model.safetensors": (folder / "model.safetensors").read_bytes(),
            "configuration_tiny.py": CONFIGURATION.encode(), "modeling_tiny.py": MODELLING.format(factor=factor).encode(),
        }
        for revision, factor in (("main", 1), ("v2", 3))
    }  # fmt: skip


@contextmanager
def hub(files: dict[str, dict[str, bytes]]) -> Iterator[str]:
    """A hub with the one repository ``owner/tiny``."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            revision = next((name for name, commit in COMMITS.items() if f"/{name}" in path or commit in path), "main")
            own, name = files[revision], path.rpartition("/")[2]
            headers = {"X-Repo-Commit": COMMITS[revision]}
            if "/tree/" in path:
                content = json.dumps([{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in own.items()]).encode()
            elif path.startswith("/api/models/owner/tiny"):
                content = json.dumps({"id": "owner/tiny", "sha": COMMITS[revision], "siblings": [{"rfilename": n} for n in own]}).encode()
            elif "/resolve/" in path and name in own:
                content = own[name]
                headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            else:
                self.send_response(404)
                self.end_headers()
                return
            self.send_response(200)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def ask(home: Path, model: str, *flags: dict[str, object], endpoint: str = "http://127.0.0.1:9") -> tuple[list[str], str]:
    """Answers to the flags one after the other in a process of its own, and which code ran."""
    mark = home / "mark"
    mark.write_text("")
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "MARK": str(mark),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", ASK, model, json.dumps(flags)], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), mark.read_text()


def test_code_runs_in_the_revision_that_is_trusted(tmp_path: Path, files: dict[str, dict[str, bytes]]) -> None:
    trusted: dict[str, object] = {"trust_remote_code": True}
    with hub(files) as url:
        found, ran = ask(tmp_path, "owner/tiny", {}, {"code_revision": "v2"}, endpoint=url)
        assert ran == ""
        assert len(found) == 2 and all("tiny_remote" in line and "--trust-remote-code" in line for line in found)
        found, ran = ask(tmp_path, "owner/tiny", trusted, trusted | {"code_revision": "v2"}, endpoint=url)
    assert ran.split() == ["1", "3"]
    assert float(found[1]) == pytest.approx(3 * float(found[0]), rel=1e-5)


def test_a_directory(tmp_path: Path, files: dict[str, dict[str, bytes]]) -> None:
    place = tmp_path / "model"
    place.mkdir()
    for name, content in files["main"].items():
        (place / name).write_bytes(content)
    overriding = {"hf_overrides": {"_code": {"directory": str(place), "revision": None}}}
    found, ran = ask(tmp_path, str(place), {}, overriding)
    assert ran == "" and all(line.startswith("refused") for line in found)
    found, ran = ask(tmp_path, str(place), {"trust_remote_code": True})
    assert ran.split() == ["1"] and float(found[0]) > 0
    (place / "modeling_tiny.py").write_text("raise RuntimeError('too old')")
    found, _ = ask(tmp_path, str(place), {"trust_remote_code": True})
    assert "modeling_tiny.TinyForCausalLM" in found[0] and "too old" in found[0]
