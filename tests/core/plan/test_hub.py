"""Downloads from a hub stand-in: interrupted ones go on, damaged ones are refused, tokens and revisions reach the hub."""

from __future__ import annotations

import hashlib
import subprocess
import sys

from tests.hub import COMMIT, OTHER, environment, serving

WEIGHTS = bytes(range(256)) * 90_000  # more than the client's pieces of 10 MB
FILES = {"config.json": b'{"architectures": ["LlamaForCausalLM"]}', "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}


def start(home, endpoint: str, call: str, **more: str) -> subprocess.Popen[str]:
    code = (
        "import hashlib, pathlib\nfrom engine.checkpoint import locate\nfrom engine.errors import ModelFileError\n"
        f"try:\n    found = {call}\n    data = (pathlib.Path(found.path) / 'model.safetensors').read_bytes()\n"
        "    print(pathlib.Path(found.path).name, hashlib.sha256(data).hexdigest(), pathlib.Path(found.tokenizer_path).name)\n"
        "except ModelFileError as error:\n    print('refused:', error.line())"
    )
    env = environment(home, endpoint) | more
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def answer(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=60)
    assert out, err
    return out.split()


RIGHT = hashlib.sha256(WEIGHTS).hexdigest()


def test_an_interrupted_download_goes_on_where_it_ended(tmp_path):
    with serving(FILES) as (hub, url):
        hub.cut = 15_000_000
        assert answer(start(tmp_path, url, "locate('owner/tiny')")) == [COMMIT, RIGHT, COMMIT]
        ranges = [asked[1] for asked in hub.asked if asked[0].startswith("GET") and asked[0].endswith("model.safetensors")]
        assert any(value.startswith("bytes=") and not value.startswith("bytes=0-") for value in ranges), ranges


def test_a_damaged_download_is_refused_and_fetched_anew(tmp_path):
    with serving(FILES) as (hub, url):
        hub.damage = True
        found = " ".join(answer(start(tmp_path, url, "locate('owner/tiny')")))
        assert found.startswith("refused: model.safetensors came damaged") and RIGHT in found
        hub.damage = False
        assert answer(start(tmp_path, url, "locate('owner/tiny')"))[1] == RIGHT


def test_tokens_and_revisions(tmp_path):
    with serving(FILES) as (hub, url):
        call = "locate('owner/tiny', revision='v2', tokenizer_revision='main')"
        assert answer(start(tmp_path, url, call, HF_TOKEN="hf_secret")) == [OTHER, RIGHT, COMMIT]
        assert {asked[0] for asked in hub.asked if "owner/tiny" in asked[0] and asked[2] != "Bearer hf_secret"} == set()


def test_two_processes_at_once(tmp_path):
    with serving(FILES) as (hub, url):
        both = [start(tmp_path, url, "locate('owner/tiny')") for _ in range(2)]
        assert [answer(process) for process in both] == [[COMMIT, RIGHT, COMMIT]] * 2
        fetched = [asked for asked in hub.asked if asked[0].startswith("GET") and asked[0].endswith("model.safetensors")]
        assert len(fetched) == 1, "a lock makes the second one wait"
