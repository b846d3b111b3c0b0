"""--tokenizer-mode mistral: text, vocabulary and conversations as mistral-common has them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.assemble.detokenizer import Detokenizer
from engine.errors import ModelFileError, RequestError
from engine.plugin import Checkpoint
from engine.plugin.vocabulary import Vocabulary
from engine_plugins.tokenizers import mistral

mistral_common = pytest.importorskip("mistral_common")

FILES = {
    "tekken": ("tekken_240911.json", "tekken.json"),
    "v1": ("tokenizer.model.v1", "tokenizer.model.v1"),
    "v3": ("mistral_instruct_tokenizer_240323.model.v3", "tokenizer.model.v3"),
    "v7": ("mistral_instruct_tokenizer_241114.model.v7", "tokenizer.model.v7"),
}
TEXTS = ["Hello wörld  two spaces\n\ttab", "日本語 🎉 naïve", "", "[INST] is text </s>", "def f(x):\n    return x"]
WEATHER = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}}
OPTIONS = {"tools": None, "documents": None, "add_generation_prompt": True, "continue_final_message": False}


@pytest.fixture(scope="module", params=list(FILES))
def pair(request, tmp_path_factory):
    """Ours and mistral-common's of one file."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    place = tmp_path_factory.mktemp(request.param)
    source, name = FILES[request.param]
    shutil.copy(Path(mistral_common.__file__).parent / "data" / source, place / name)
    return create(place), MistralTokenizer.from_file(place / name), request.param


def create(place: Path):
    return mistral.engine_create_tokenizer(Checkpoint("m", str(place), str(place), str(place)))


def test_texts(pair):
    ours, theirs, kind = pair
    plain = theirs.instruct_tokenizer.tokenizer
    assert ours.size() == plain.n_words and ours.special_ids() == set(plain.special_ids)
    assert (ours.bos_token_id, ours.eos_token_id) == (plain.bos_id, plain.eos_id)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == plain.encode(text, bos=True, eos=False)
        assert ours.encode(text, add_special_tokens=False) == ids[1:]
        assert not set(ids[1:]) & ours.special_ids()
        assert ours.decode(ids) == plain.decode(ids) == (text if kind == "tekken" else plain.decode(ids))
        assert ours.decode([*ids, ours.size(), -1]) == ours.decode(ids)


def test_special_tokens_show_where_asked(pair):
    ours, _, kind = pair
    ids = [ours.bos_token_id, *ours.encode("Hi", add_special_tokens=False), ours.eos_token_id]
    assert ours.decode(ids, skip_special_tokens=False) == "<s>Hi</s>" and ours.decode(ids) == "Hi"
    assert ours.special_tokens() == {"bos_token": "<s>", "eos_token": "</s>"} and ours.token_id("</s>") == ours.eos_token_id
    assert kind == "v1" or ours.token_id("[INST]") in ours.special_ids()


def test_streams_give_the_whole_text(pair):
    ours, _, _ = pair
    for text in TEXTS:
        prompt, ids = ours.encode("Say:"), ours.encode(text, add_special_tokens=False)
        stream = Detokenizer(ours, context=prompt)
        shown = "".join(stream.push([token]) for token in ids) + stream.finish()
        assert shown.strip(" ") == ours.decode(ids).strip(" ") and "\ufffd" not in shown


def test_the_vocabulary_that_grammars_see(pair):
    ours, _, _ = pair
    found = Vocabulary.of(ours, ours.size())
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False)
        assert b"".join(found.tokens[token] for token in ids).strip(b" ") == text.encode().strip(b" ")
    assert all(found.tokens[token] == b"" for token in ours.special_ids())


CONVERSATIONS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi </s>[INST]"}],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}, {"role": "user", "content": "Bye"}],
]


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_conversations(pair, messages):
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    ours, theirs, _ = pair
    wanted = theirs.encode_chat_completion(ChatCompletionRequest.from_openai(messages)).tokens
    assert ours.render_chat(messages, OPTIONS) == wanted


def test_a_final_assistant_message_is_continued(pair):
    ours, _, _ = pair
    open_end = ours.render_chat([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}], OPTIONS)
    assert open_end[-1] != ours.eos_token_id and ours.decode(open_end).endswith("Yo")


def test_tools_and_their_results(pair):
    from mistral_common.protocol.instruct.request import ChatCompletionRequest

    ours, theirs, kind = pair
    if kind == "v1":
        with pytest.raises(RequestError, match="first version of Mistral's chat format"):
            ours.render_chat(CONVERSATIONS[0], OPTIONS | {"tools": [WEATHER]})
        return
    call = {"id": "call_of_another_server_123456789", "type": "function", "function": {"name": "weather", "arguments": {"at": "here"}}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "name": "weather", "content": "sunny"},
    ]
    bare = {"type": "function", "function": {"name": "weather", "description": "d"}}
    found = ours.render_chat(messages, OPTIONS | {"tools": [bare]})
    short = {**call, "id": "123456789", "function": {"name": "weather", "arguments": '{"at": "here"}'}}
    same = [messages[0], {"role": "assistant", "tool_calls": [short]}, {**messages[2], "tool_call_id": "123456789"}]
    tool = {"type": "function", "function": bare["function"] | {"parameters": {}}}
    assert found == theirs.encode_chat_completion(ChatCompletionRequest.from_openai(same, tools=[tool])).tokens


@pytest.mark.parametrize(
    ("messages", "options", "shown"),
    [
        ([*CONVERSATIONS[0], {"role": "tool", "tool_call_id": "1", "content": "x"}], {}, "mistral-common refuses the conversation"),
        (CONVERSATIONS[0], {"enable_thinking": False}, "chat_template_kwargs enable_thinking"),
        (CONVERSATIONS[0], {"documents": [{"text": "d"}]}, "documents"),
        ([{"role": "tool", "tool_call_id": "1", "content": "x"}], {}, "mistral-common refuses"),
    ],
)
def test_what_is_refused(pair, messages, options, shown):
    ours, _, _ = pair
    with pytest.raises(RequestError, match=shown):
        ours.render_chat(messages, OPTIONS | options)


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(ModelFileError, match=r"no file of tekken\.json"):
        create(tmp_path)
    (tmp_path / "tekken.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"tekken\.json: mistral-common cannot read it: not valid JSON"):
        create(tmp_path)
    for content in ("{}", "[]", '{"config": {}, "vocab": []}', "null"):
        (tmp_path / "tekken.json").write_text(content)
        with pytest.raises(ModelFileError, match=r"tekken\.json"):
            create(tmp_path)
    (tmp_path / "tokenizer.model.v3").write_bytes(b"no sentencepiece model")
    with pytest.raises(ModelFileError, match="has 2 files"):
        create(tmp_path)
    (tmp_path / "tekken.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.model\.v3: mistral-common cannot read"):
        create(tmp_path)
