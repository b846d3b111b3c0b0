"""How byte-level vocabularies cut a text into words before they merge, by the name that GGUF gives it (tokenizer.ggml.pre).

The expressions are those of the models' published tokenizer.json files; where several are listed, each cuts what the one before left.
"""

from __future__ import annotations

from typing import NamedTuple

_SUFFIXES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL
_QWEN2 = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _TAIL
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
_GPT4O = (
    rf"{_START}{_UPPER}*{_LOWER}+{_SUFFIXES}?|{_START}{_UPPER}+{_LOWER}*{_SUFFIXES}?|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
)
_DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _TAIL
)
_SEED = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|" + _TAIL


class Split(NamedTuple):
    """``whole_words``: a word that is in the vocabulary is one token whatever the merges say.

    ``begins``: BOS is added where the file does not say. ``nfc``: texts are composed first.
    """

    patterns: tuple[str, ...]
    whole_words: bool = False
    begins: bool = False
    nfc: bool = False


_OF_GPT2 = Split((_GPT2,))
_DIGITS = Split((r"\p{N}", _GPT2))
_OF_LLAMA3 = Split((_LLAMA3,), whole_words=True, begins=True)
#: By ``tokenizer.ggml.pre``.
SPLITS: dict[str, Split] = {
    "default": Split((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon": Split((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "deepseek-coder": Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}")),
    "deepseek-v3": Split((r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK_V3)),
    "tekken": Split((_TEKKEN,), whole_words=True, begins=True),
    "seed-coder": Split((_SEED,)),
    "smaug-bpe": Split((_LLAMA3,)), "dbrx": Split((_LLAMA3,)), "chatglm-bpe": Split((_LLAMA3,)),
    "qwen2": Split((_QWEN2,), nfc=True), "megrez": Split((_QWEN2,)), "deepseek-r1-qwen": Split((_QWEN2,)), "stablelm2": Split((_QWEN2,)),
    "hunyuan": Split((_QWEN2,)), "gpt-4o": Split((_GPT4O,)), "llama4": Split((_GPT4O,)),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "roberta-bpe", "trillion", "granite-docling"), _OF_GPT2),
    **dict.fromkeys(("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"), _DIGITS),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _OF_LLAMA3),
}  # fmt: skip
