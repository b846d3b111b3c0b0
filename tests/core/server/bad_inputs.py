"""Bad requests: what is sent, and the status and field that the answer must name."""

from __future__ import annotations

import json
from typing import Any

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
USER = [{"role": "user", "content": "hi"}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def c(param: str | None, status: int = 400, **fields: Any) -> tuple[str, Any, int, str | None]:
    return (COMPLETIONS, {"prompt": "hi", **fields}, status, param)


def m(param: str | None, status: int = 400, **fields: Any) -> tuple[str, Any, int, str | None]:
    return (CHAT, {"messages": USER, **fields}, status, param)


def raw(body: bytes, status: int = 400, param: str | None = None) -> tuple[str, Any, int, str | None]:
    return (COMPLETIONS, body, status, param)


BAD: dict[str, tuple[str, Any, int, str | None]] = {
    # row 8: JSON
    "malformed": raw(b'{"prompt": "a",}'),
    "trailing garbage": raw(b'{"prompt": "a"} x'),
    "NaN": raw(b'{"prompt": "a", "temperature": NaN}'),
    "Infinity": raw(b'{"prompt": "a", "temperature": -Infinity}'),
    "duplicate key": raw(b'{"prompt": "a", "max_tokens": 1, "max_tokens": 2}'),
    "deep nesting": raw(b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "deep objects": raw(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "not an object": raw(b"[1]"),
    "empty": raw(b""),
    "huge integer": raw(b'{"prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}"),
    # row 9: text
    "not UTF-8": raw(b'{"prompt": "\xff\xfe"}'),
    "lone surrogate": raw(b'{"prompt": "a\\ud800b"}'),
    "lone low surrogate": raw(b'{"prompt": "\\udc00"}'),
    # row 10: control characters in identifiers
    "control in model": c("model", model="toy\u0000"),
    "control in user": c("user", user="a\nb"),
    "control in id": c("request_id", request_id="a\r\nx: y"),
    "odd id": c("request_id", request_id="a b"),
    # row 16
    "n huge": c("n", n=10**9),
    "n zero": c("n", n=0),
    "best_of huge": c("best_of", best_of=10**9),
    "best_of below n": c("best_of", n=3, best_of=2),
    "beams": c("use_beam_search", use_beam_search=True),
    "greedy n": c("n", n=2, temperature=0),
    # row 17
    "max_tokens zero": c("max_tokens", max_tokens=0),
    "max_tokens negative": c("max_tokens", max_tokens=-1),
    "max_tokens above the context": c("prompt", max_tokens=10_000),
    "max_tokens 2^63": c("max_tokens", max_tokens=2**63),
    "max_tokens float": c("max_tokens", max_tokens=1.5),
    "max_tokens text": c("max_tokens", max_tokens="16"),
    "max_tokens boolean": c("max_tokens", max_tokens=True),
    "chat max_tokens zero": m("max_tokens", max_tokens=0),
    "max_completion_tokens": m("max_completion_tokens", max_completion_tokens=0),
    # row 18
    "temperature negative": c("temperature", temperature=-0.1),
    "temperature 1e309": raw(b'{"prompt": "a", "temperature": 1e309}', param="temperature"),
    "temperature text": c("temperature", temperature="hot"),
    "top_p": c("top_p", top_p=0),
    "top_p above": c("top_p", top_p=1.01),
    "top_k": c("top_k", top_k=-2),
    "top_k float": c("top_k", top_k=1.5),
    "min_p": c("min_p", min_p=1.01),
    "presence_penalty": c("presence_penalty", presence_penalty=2.01),
    "frequency_penalty": c("frequency_penalty", frequency_penalty=-2.01),
    "repetition_penalty": c("repetition_penalty", repetition_penalty=0),
    # row 19
    "seed": c("seed", seed=2**63),
    "seed negative": c("seed", seed=-(2**63) - 1),
    # row 20
    "many stops": c("stop", stop=["a"] * 100_000),
    "empty stop": c("stop", stop=""),
    "empty stop in a list": c("stop", stop=["a", ""]),
    "long stop": c("stop", stop="x" * 2**20),
    "stop number": c("stop[0]", stop=[1]),
    # row 21
    "bias outside": c("logit_bias", logit_bias={"270": 1}),
    "bias key": c("logit_bias", logit_bias={"a": 1}),
    "bias value": c("logit_bias", logit_bias={"1": 1000}),
    "many biases": c("logit_bias", logit_bias={str(n): 0 for n in range(100_000)}),
    # row 22
    "allowed outside": c("allowed_token_ids", allowed_token_ids=[1, 270]),
    "allowed negative": c("allowed_token_ids", allowed_token_ids=[-1]),
    "allowed nothing": c("allowed_token_ids", allowed_token_ids=[]),
    "bad word": c("bad_words", bad_words=[""]),
    # row 23
    "logprobs above": c("logprobs", logprobs=21),
    "logprobs negative": c("logprobs", logprobs=-1),
    "logprobs boolean": c("logprobs", logprobs=True),
    "prompt_logprobs above": c("prompt_logprobs", prompt_logprobs=10**6),
    "prompt_logprobs streamed": c("prompt_logprobs", prompt_logprobs=1, stream=True),
    "top_logprobs above": m("top_logprobs", logprobs=True, top_logprobs=21),
    "top_logprobs alone": m("top_logprobs", top_logprobs=2),
    # row 24
    "stop_token_ids outside": c("stop_token_ids", stop_token_ids=[10**9]),
    "min_tokens": c("min_tokens", min_tokens=20, max_tokens=10),
    # row 25
    "no prompt": (COMPLETIONS, {}, 400, "prompt"),
    "prompt ids outside": c("prompt", prompt=[1, 270]),
    "prompt ids negative": c("prompt", prompt=[-1]),
    "prompt nested": c("prompt", prompt=[[[1]]]),
    "prompt empty list": c("prompt", prompt=[]),
    "prompt list of empty": c("prompt", prompt=[[]]),
    "prompt mixed": c("prompt", prompt=["a", 1]),
    "prompt object": c("prompt", prompt={"a": 1}),
    # row 26
    "no messages": (CHAT, {}, 400, "messages"),
    "empty messages": m("messages", messages=[]),
    "null content": m("messages[0].content", messages=[{"role": "user", "content": None}]),
    "null assistant": m("messages[0].content", messages=[{"role": "assistant", "content": None}]),
    "unknown role": m("messages[0].role", messages=[{"role": "wizard", "content": "a"}]),
    "no role": m("messages[0].role", messages=[{"content": "a"}]),
    "message text": m("messages[0]", messages=["a"]),
    "tool without id": m("messages[0].tool_call_id", messages=[{"role": "tool", "content": "a"}]),
    "image": m("messages[0].content[0].type", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
    "part text": m("messages[0].content[0].text", messages=[{"role": "user", "content": [{"type": "text", "text": 1}]}]),
    "tool_calls arguments": m(
        "messages[0].tool_calls[0].function.arguments",
        messages=[{"role": "assistant", "content": None, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}],
    ),
    # row 27
    "long prompt": c("prompt", prompt="word " * 2_000_000),
    "long message": m("messages", messages=[{"role": "user", "content": "word " * 2_000_000}]),
    # row 31
    "cache_salt long": c("cache_salt", cache_salt="x" * 100_000),
    "cache_salt empty": c("cache_salt", cache_salt=""),
    # rows 33 to 45: features that are absent, and templates
    "response_format": c("response_format", response_format={"type": "json_object"}),
    "guided_regex": m("guided_regex", guided_regex="(a+)+b"),
    "guided_json": m("guided_json", guided_json={"type": "object"}),
    "logits_processors": c("logits_processors[0]", logits_processors=["os.system"]),
    "suffix": c("suffix", suffix="x"),
    "chat_template": m("chat_template", chat_template="{{ 1 }}"),
    "kwargs reserved": m("chat_template_kwargs", chat_template_kwargs={"messages": []}),
    "tool_choice required": m("tool_choice", tool_choice="required", tools=[{"type": "function", "function": {"name": "f"}}]),
    "tools": m("tools[0]", tools=[{"type": "function"}]),
    "stream_options": m("stream_options", stream_options={"include_usage": True}),
    "stream_options type": m("stream_options.include_usage", stream=True, stream_options={"include_usage": 1}),
    "continue and prompt": m("continue_final_message", continue_final_message=True),
    "priority": c("priority", priority=1),
    "best_of streamed": c("best_of", best_of=2, stream=True),
    "truncate": c("truncate_prompt_tokens", truncate_prompt_tokens=0),
    # row 78
    "model": c("model", 404, model="other"),
}


def encoded(body: Any) -> bytes:
    """The bytes to send."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()
