"""--skip-tokenizer-init: token ids in and out; what needs text is refused with its field's name."""

from __future__ import annotations

import shutil

import pytest

from engine import LLM, SamplingParams
from engine.checkpoint import BUNDLED
from engine.errors import RequestError


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    place = tmp_path_factory.mktemp("bare")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(BUNDLED / "demo" / name, place / name)
    with LLM(model=str(place), skip_tokenizer_init=True, max_model_len=64) as made:
        yield made


def test_ids_in_and_out(llm):
    answer = llm.generate([{"prompt_token_ids": [5, 6, 7]}], SamplingParams(max_tokens=4, temperature=0), use_tqdm=False)[0]
    assert len(answer.outputs[0].token_ids) == 4 and answer.outputs[0].text == ""
    stop = answer.outputs[0].token_ids[1]
    params = SamplingParams(max_tokens=4, temperature=0, stop_token_ids=(stop,))
    assert llm.generate([{"prompt_token_ids": [5, 6, 7]}], params, use_tqdm=False)[0].outputs[0].finish_reason == "stop"


@pytest.mark.parametrize("fields", [{"stop": ("x",)}, {"bad_words": ("x",)}])
def test_fields_that_need_text(llm, fields):
    with pytest.raises(RequestError, match=f"{next(iter(fields))} needs text, but this server runs without a tokenizer"):
        llm.generate([{"prompt_token_ids": [5]}], SamplingParams(max_tokens=2, **fields), use_tqdm=False)


def test_texts_and_conversations(llm):
    with pytest.raises(RequestError, match="prompt must be token ids"):
        llm.generate(["text"], use_tqdm=False)
    with pytest.raises(RequestError, match="messages cannot be rendered"):
        llm.chat([{"role": "user", "content": "x"}], use_tqdm=False)
