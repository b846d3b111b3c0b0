"""Share of exact answers to held-out questions of every kind, by transformers or by any OpenAI-compatible server."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from data import EVALUATED, messages, question
from export import BUNDLED
from turns import Conversation, Json, Turn

LIMIT = 320


@dataclass(frozen=True)
class Reply:
    """What a model said: the text without its thoughts, and its tool calls."""

    content: str
    calls: tuple[str, ...] = ()


Answerer = Callable[[list[Conversation]], list[Reply]]


def canonical(name: str, arguments: Any) -> str:
    """A tool call as comparable text."""
    return json.dumps([name, arguments], sort_keys=True, ensure_ascii=False)


def parse(text: str) -> Reply:
    """A reply from the plain text of a generation."""
    text = text.split("</think>")[-1].strip("\n")
    content, *parts = text.split("<tool_call>")
    calls = []
    for part in parts:
        try:
            call = json.loads(part.split("</tool_call>")[0])
            calls.append(canonical(call["name"], call["arguments"]))
        except (ValueError, KeyError, TypeError):
            return Reply(text)
    return Reply(content.strip("\n"), tuple(calls))


def wanted(turn: Turn) -> Reply:
    """The reply that counts as exact."""
    if turn.call is None:
        return Reply(turn.content)
    return Reply(turn.content, (canonical(turn.call["name"], turn.call["arguments"]),))


class Local:
    """Greedy decoding by transformers."""

    def __init__(self, path: Path, dtype: str, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))

    def prompt(self, talk: Conversation) -> str:
        """The rendered chat."""
        text: str = self.tokenizer.apply_chat_template(
            messages(talk),
            tools=talk.tools or None,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=talk.thinking,
        )
        return text

    def generate(self, prompts: list[str]) -> list[str]:
        """Greedy continuations of a batch."""
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True)
        output = self.model.generate(**inputs, max_new_tokens=LIMIT, do_sample=False)
        texts = self.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [str(text) for text in texts]

    def __call__(self, talks: list[Conversation]) -> list[Reply]:
        """Replies to a list of chats."""
        prompts = [self.prompt(talk) for talk in talks]
        texts: list[str] = []
        for start in range(0, len(prompts), 50):
            texts += self.generate(prompts[start : start + 50])
        return [parse(text) for text in texts]


class Server:
    """Greedy decoding by a server of the chat completions API."""

    def __init__(self, base: str, model: str, key: str, parallel: int) -> None:
        self.url = base.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self.model, self.key, self.parallel = model, key, parallel

    def one(self, talk: Conversation) -> Reply:
        """The reply to one chat."""
        body: Json = {
            "model": self.model,
            "messages": messages(talk),
            "temperature": 0,
            "max_tokens": LIMIT,
            "chat_template_kwargs": {"enable_thinking": talk.thinking},
        }
        if talk.tools:
            # Some clients send bare functions; the API knows only the wrapped form.
            body["tools"] = [t if "function" in t else {"type": "function", "function": t} for t in talk.tools]
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as response:
            message = json.load(response)["choices"][0]["message"]
        reply = parse(message.get("content") or "")
        calls = [entry["function"] for entry in message.get("tool_calls") or []]
        parsed = tuple(canonical(call["name"], json.loads(call["arguments"])) for call in calls)
        return Reply(reply.content, parsed or reply.calls)

    def __call__(self, talks: list[Conversation]) -> list[Reply]:
        """Replies to a list of chats."""
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self.one, talks))


def evaluate(answerer: Answerer, count: int, kinds: list[str], show: int) -> dict[str, float]:
    """Share of exact replies by kind, printed as it becomes known."""
    scores = {}
    for kind in kinds:
        rng = Random(f"7 {kind}")
        asked = [question(rng, kind) for _ in range(count)]
        replies = answerer([talk for talk, _ in asked])
        wrong = [(t, wanted(e), r) for (t, e), r in zip(asked, replies, strict=True) if wanted(e) != r]
        scores[kind] = 1 - len(wrong) / count
        print(f"{kind:28} {100 * scores[kind]:6.1f} %", flush=True)
        for talk, expected, reply in wrong[:show]:
            print(f"    {talk.turns[-1].content!r}: expected {expected}, got {reply}", file=sys.stderr)
    return scores


def agreement(path: Path, draft: Path, count: int, threads: int) -> float:
    """Share of demo's greedy tokens that the draft, given the same text before them, would choose as well."""
    import torch

    demo, small = Local(path, "float32", threads), Local(draft, "float32", threads)
    rng = Random(11)
    same = total = 0
    for _ in range(count):
        talk, _ = question(rng, rng.choice(list(EVALUATED)))
        prompt = demo.tokenizer(demo.prompt(talk), return_tensors="pt")["input_ids"]
        output = demo.model.generate(prompt, max_new_tokens=LIMIT, do_sample=False)
        with torch.no_grad():
            chosen = small.model(output).logits.argmax(-1)[0, prompt.shape[1] - 1 : -1]
        same += int((chosen == output[0, prompt.shape[1] :]).sum())
        total += len(chosen)
    return same / total


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, default=BUNDLED / "demo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base-url", help="evaluate this server instead, for example http://127.0.0.1:8000")
    parser.add_argument("--model", default="demo", help="model name sent to the server")
    parser.add_argument("--key", default="none", help="API key sent to the server")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--kind", action="append", choices=list(EVALUATED))
    parser.add_argument("--show", type=int, default=0, help="wrong answers to print for every kind")
    parser.add_argument("--minimum", type=float, default=0.0, help="fail when a kind is below this share")
    parser.add_argument("--agreement", type=Path, help="measure against this draft model instead")
    options = parser.parse_args()
    if options.agreement:
        rate = agreement(options.path, options.agreement, options.count, options.threads)
        print(f"{100 * rate:.1f} % of greedy tokens agree")
        return
    answerer: Answerer
    if options.base_url:
        answerer = Server(options.base_url, options.model, options.key, options.parallel)
    else:
        answerer = Local(options.path, options.dtype, options.threads)
    scores = evaluate(answerer, options.count, options.kind or list(EVALUATED), options.show)
    sys.exit(min(scores.values()) < options.minimum)


if __name__ == "__main__":
    main()
