"""What guided decoding costs: tokens per second of streams with a schema and without, in turns, and the first use of a schema.

``python benchmarks/guided_cost.py [MODEL] [--streams 16] [--tokens 120] [--rounds 5] [--backend xgrammar]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from engine.llm import LLM
from engine.plugin import GuideSpec, SamplingParams

#: A schema whose answers are long: the streams must not end before the measurement does.
NAME, COUNT = {"type": "string", "minLength": 8, "maxLength": 24}, {"type": "integer", "minimum": 0}
ITEM = {"type": "object", "properties": {"name": NAME, "n": COUNT}, "required": ["name", "n"]}
SCHEMA = {"type": "array", "items": ITEM, "minItems": 400}


def rate(llm: LLM, streams: int, tokens: int, seed: int, guide: GuideSpec | None) -> float:
    """Generated tokens per second of one batch."""
    params = [
        SamplingParams(max_tokens=tokens, ignore_eos=True, temperature=1.0, seed=seed + i, guide=guide) for i in range(streams)
    ]
    began = time.perf_counter()
    answers = llm.generate([f"List {i}: " for i in range(streams)], params, use_tqdm=False)
    seconds = time.perf_counter() - began
    return sum(len(answer.outputs[0].token_ids) for answer in answers) / seconds


def first_use(llm: LLM, backend: str, count: int) -> tuple[float, float]:
    """Median seconds to the only token, of requests with a schema that is new, and of the same schema again."""
    new, known = [], []
    for number in range(count):
        properties = {f"field_{number}": {"type": "string"}, "age": {"type": "integer"}}
        guide = GuideSpec("json", {"type": "object", "properties": properties}, backend)
        for seconds in (new, known):
            began = time.perf_counter()
            llm.generate("Once", SamplingParams(max_tokens=1, guide=guide), use_tqdm=False)
            seconds.append(time.perf_counter() - began)
    return statistics.median(new), statistics.median(known)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", default="xgrammar")
    wanted = parser.parse_args()
    # The backend is named, so it is loaded at the start and no schema pays for it.
    flags = {"guided_decoding_backend": wanted.backend, "max_num_seqs": wanted.streams, "enable_prefix_caching": False}
    with LLM(wanted.model, max_model_len=1024, use_tqdm_on_load=False, **flags) as llm:
        guide = GuideSpec("json", SCHEMA, f"{wanted.backend}:disable-any-whitespace")
        for each in (None, guide):
            rate(llm, wanted.streams, wanted.tokens, 0, each)
        pairs = []
        for turn in range(wanted.rounds):
            plain = rate(llm, wanted.streams, wanted.tokens, 1000 * turn, None)
            guided = rate(llm, wanted.streams, wanted.tokens, 1000 * turn, guide)
            pairs.append((plain, guided))
            sys.stdout.write(f"round {turn}: {plain:8.0f} tokens/s unguided, {guided:8.0f} guided, ratio {guided / plain:.3f}\n")
        ratio = statistics.median(guided / plain for plain, guided in pairs)
        sys.stdout.write(f"median ratio {ratio:.3f} with {wanted.streams} streams of one schema ({wanted.backend})\n")
        new, known = first_use(llm, wanted.backend, 12)
        sys.stdout.write(f"first use of a schema: {1e3 * new:.1f} ms to the first token, again {1e3 * known:.1f} ms\n")


if __name__ == "__main__":
    main()
