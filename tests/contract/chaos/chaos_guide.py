"""A guided-decoding backend for ``choice`` whose first choice says how it fails, if it does."""

from __future__ import annotations

import os
import sys
import time

from engine.plugin import Guide, GuideCompiler, Matcher, Vocabulary, hookimpl

ENGINE_API = 1


def in_worker():
    """Not in the process that tries constraints out."""
    return "guided" not in sys.argv[0]


class Walk(Matcher):
    """Allows any token, and the end from the fourth on."""

    def __init__(self, fault, vocabulary):
        self.fault, self.vocabulary, self.length = fault, vocabulary, 0

    def fill(self, mask):
        if in_worker() and self.fault == "fill raises":
            raise TypeError("a bug")
        mask[:] = -1

    def advance(self, token_ids):
        if in_worker() and self.fault == "advance raises":
            raise KeyError("a bug")
        self.length += len(token_ids)
        return True

    def rollback(self, count):
        self.length -= count

    def finished(self):
        return False


class Free(Guide):
    def __init__(self, fault, vocabulary):
        self.fault, self.vocabulary = fault, vocabulary

    def start(self):
        if in_worker() and self.fault == "start raises":
            raise RuntimeError("a bug")
        return Walk(self.fault, self.vocabulary)

    def nbytes(self):
        return 64


class Chaos(GuideCompiler):
    def __init__(self, vocabulary):
        self.vocabulary = vocabulary

    def unsupported(self, spec):
        return None if spec.kind == "choice" else spec.kind

    def compile(self, spec):
        match spec.value[0]:
            case "compile raises":
                raise TypeError("a bug")
            case "compile sleeps":
                time.sleep(3600)
            case "compile ends the process":
                os._exit(9)
        return Free(spec.value[0], self.vocabulary)


@hookimpl
def engine_create_guide(tokenizer, vocab_size):
    return Chaos(Vocabulary.of(tokenizer, vocab_size))
