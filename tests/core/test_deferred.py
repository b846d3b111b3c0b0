"""torch's rules for tensors without contents: a server does without them, everybody else finds them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: After this ``waits()`` says whether the rules were not imported yet.
BEGIN = """
import sys
from engine import deferred
deferred.defer()
def waits():
    return type(sys.modules["torch._meta_registrations"]).__name__ == "_Deferred"
"""
#: Operations whose rules are among them.
COMPUTE = """
import torch
query = torch.empty(1, 2, 3, 4, device="meta")
print(torch.nn.functional.scaled_dot_product_attention(query, query, query).shape, query.histc().shape)
"""


def run(code: str, *path: object, before: str = "") -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, path), *filter(None, sys.path)])}
    command = [sys.executable, "-c", before + BEGIN + code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_server_does_without_them():
    """With a guided request, whose backend brings libraries of its own. The front end, here in the same process, has others before."""
    front_end = "import anyio, jinja2, prometheus_client, sniffio, starlette.requests"
    code = """
from engine import LLM, SamplingParams
from engine.plugin.request import GuideSpec
with LLM("demo", disable_frontend_multiprocessing=True, max_model_len=256, num_gpu_blocks_override=64, use_tqdm_on_load=False) as llm:
    for params in SamplingParams(max_tokens=4, ignore_eos=True), SamplingParams(max_tokens=9, guide=GuideSpec("choice", ["yes"])):
        (choice,) = llm.generate("hello", params, use_tqdm=False)[0].outputs
        print(len(choice.token_ids), choice.text)
    print("transformers" in sys.modules, "xgrammar" in sys.modules, waits())
"""
    plain, guided, *_, imported = run(code, before=front_end).splitlines()
    assert plain.startswith("4 ") and guided.endswith(" yes")
    assert imported == "False True True"


def test_an_unknown_package_brings_them(tmp_path):
    (tmp_path / "somebodys_model.py").write_text(COMPUTE)
    printed = run("import torch\nprint(waits())\nimport somebodys_model\nprint(waits())", tmp_path)
    assert printed.splitlines() == ["True", "torch.Size([1, 2, 3, 4]) torch.Size([100])", "False"]


def test_an_unknown_package_before_torch_brings_them(tmp_path):
    (tmp_path / "somebodys_model.py").write_text(COMPUTE)
    assert run("import somebodys_model\nprint(waits())", tmp_path).splitlines()[-1] == "False"


def test_a_package_that_is_only_looked_for_does_not():
    assert run("import torch\ntry:\n    import nobodys_model\nexcept ImportError:\n    print(waits())").strip() == "True"


@pytest.mark.parametrize("reader", ["import torch._dynamo", "torch._meta_registrations.meta_index_Tensor", "import transformers"])
def test_who_reads_them_finds_them(reader):
    if "transformers" in reader:
        pytest.importorskip("transformers")
    assert run(f"import torch\nprint(waits())\n{reader}\nprint(waits())").split() == ["True", "False"]


def test_they_are_the_same_rules_as_ever():
    count = "print(sorted(torch._C._dispatch_get_registrations_for_dispatch_key('Meta')))"
    plain = [sys.executable, "-c", f"import torch\n{count}"]
    expected = subprocess.run(plain, capture_output=True, text=True, check=True, timeout=60).stdout
    printed = run(f"import torch\n{count}\ndeferred.complete()\n{count}").splitlines(keepends=True)
    assert len(printed[0]) < len(printed[1])
    assert printed[1] == expected


def test_where_torch_is_loaded_nothing_happens():
    code = "import torch._dynamo\nbefore = len(sys.meta_path)\ndeferred.defer()\nprint(len(sys.meta_path) - before)"
    assert run(code).strip() == "0"
