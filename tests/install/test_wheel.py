"""The wheel in a fresh environment, with two third-party packages really installed beside it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from tests.data import shared
from tests.sources import REPOSITORY

pytestmark = [pytest.mark.install, pytest.mark.timeout(900)]
THIRD_PARTY = REPOSITORY / "tests" / "thirdparty"


def run(*argv: object, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, timeout=600, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the sources."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, REPOSITORY)
    return next(out.glob("engine-*.whl"))


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel and both packages. The dependencies are lent by the one that runs the tests."""
    place = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(place, with_pip=False)
    library = next((place / "lib").glob("python*")) / "site-packages"
    (library / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    # --ignore-installed: the lending environment may hold the engine as an editable install
    run(*pip, "--ignore-installed", wheel)
    for package in sorted(THIRD_PARTY.glob("acme_engine_*")):
        copy = place.parent / package.name
        shutil.copytree(package, copy)
        run(*pip, "--no-build-isolation", copy)
    return place / "bin"


def test_the_wheel_carries_code_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    info = {top for top in tops if top.endswith(".dist-info")}
    assert tops - info == {"engine", "engine_plugins", "engine_quant", "engine_devices", "engine_parsers"}
    assert not [name for name in names if "test" in name and not name.startswith("engine/plugin/testing/")]
    assert not [name for name in names if name.endswith((".pyc", ".orig"))]
    bundled = {name.removeprefix("engine/bundled/demo/") for name in names if name.startswith("engine/bundled/demo/")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= bundled
    assert sum(item.file_size for item in zipfile.ZipFile(wheel).infolist()) < 40_000_000


def test_the_environment_runs_the_wheel_not_the_checkout(bin_folder, tmp_path):
    home = run(bin_folder / "python", "-c", "import engine; print(engine.__file__)", cwd=tmp_path)
    assert str(bin_folder.parent) in home
    assert run(bin_folder / "engine", "--version").startswith("engine ")


def test_third_party_plugins_are_choices(bin_folder):
    shown = run(bin_folder / "engine", "serve", "--help")
    assert "npz" in shown and "shortest" in shown
    rows = json.loads(run(bin_folder / "engine", "plugins", "list", "--json"))
    found = {row["name"]: row for row in rows if row["distribution"].startswith("acme-")}
    assert found["npz"]["about"] == "Weights from a NumPy archive, model.npz."
    assert found["shortest"]["distribution"] == "acme-engine-shortest 0.3"
    assert "must have describe, tensors" in run(bin_folder / "engine", "plugins", "show", "npz")


def test_third_party_sources_are_short():
    for file in THIRD_PARTY.glob("*/*.py"):
        assert len(file.read_text().splitlines()) <= 20, file


def test_third_party_plugins_serve(bin_folder, tmp_path):
    """A checkpoint as model.npz, read and ordered by the third party's plugins, gives the recorded answer."""
    import numpy
    from safetensors.numpy import load_file

    source = shared("stories260k")
    model = tmp_path / "model"
    shutil.copytree(source, model, ignore=shutil.ignore_patterns("*.safetensors", "llama2c"))
    numpy.savez(model / "model.npz", **load_file(source / "model.safetensors"))
    row = json.loads((source / "reference_greedy.json").read_text())["rows"][0]
    argv = ["serve", model, "--load-format", "npz", "--scheduling-policy", "shortest", "--dtype", "float32"]
    argv += ["--served-model-name", "model", "--port", _free()]
    log = tmp_path / "log"
    with log.open("w") as file, subprocess.Popen([str(bin_folder / "engine"), *map(str, argv)], stderr=file) as server:
        try:
            address = f"http://127.0.0.1:{argv[-1]}"
            _wait(server, address, log)
            answer = _post(f"{address}/v1/completions", _body(row))
            assert answer["choices"][0]["finish_reason"] == "length"
            assert answer["usage"]["completion_tokens"] == 16
            again = _post(f"{address}/v1/completions", _body(row) | {"return_tokens_as_token_ids": True, "logprobs": 1})
            ids = [int(token.removeprefix("token_id:")) for token in again["choices"][0]["logprobs"]["tokens"]]
            assert ids == row["greedy_ids"][:16]
        finally:
            server.terminate()
            server.wait(30)


def _body(row: dict[str, object]) -> dict[str, object]:
    return {"model": "model", "prompt": row["prompt_ids"], "max_tokens": 16, "temperature": 0, "ignore_eos": True}


def _free() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/health", timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not become healthy in a minute")


def _post(url: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content: dict[str, object] = json.load(answer)
        return content
