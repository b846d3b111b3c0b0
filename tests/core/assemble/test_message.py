"""Choices whose text is split by parsers: special tokens that parsers see, tokens that end, counts."""

from __future__ import annotations

from collections.abc import Sequence

from engine.assemble.choice import Choice
from engine.assemble.message import MessageParser, join_calls
from engine.messages import Output
from engine.plugin import Delta, ParserState, ToolCallDelta
from engine.plugin.request import FinishReason, SamplingParams
from tests.core.server.real_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id


class Upper(ParserState):
    """Capitals are reasoning."""

    def __init__(self) -> None:
        self.inside = False

    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        if text:
            self.inside = text[-1].isupper()
        return Delta(content="".join(c for c in text if not c.isupper()), reasoning="".join(c for c in text if c.isupper()))

    def finish(self) -> Delta:
        return Delta(reasoning="END")

    def reasoning_ended(self) -> bool:
        return not self.inside


class Digits(ParserState):
    """Each digit is a call, given out when the output ends."""

    def __init__(self) -> None:
        self.digits = ""

    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        self.digits += "".join(filter(str.isdigit, text))
        return Delta(content="".join(c for c in text if not c.isdigit()))

    def finish(self) -> Delta:
        return Delta(tool_calls=tuple(ToolCallDelta(at, id=digit, name="f") for at, digit in enumerate(self.digits)))


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def run(text: str, parser: MessageParser | None, end: int | None = None, **choice):
    made = Choice(TOKENIZER, SamplingParams(max_tokens=99), parser=parser, **choice)
    tokens = [*ids(text), *([] if end is None else [end])]
    reason = FinishReason.LENGTH if end is None else FinishReason.STOP
    deltas = [made.feed(Output(id="a", token_ids=[token])) for token in tokens[:-1]]
    deltas.append(made.feed(Output(id="a", token_ids=tokens[-1:], finish_reason=reason)))
    return made, deltas


def test_reasoning_first_then_calls():
    made, deltas = run("aBC1d2", MessageParser(Upper(), Digits()))
    assert "".join(delta.text for delta in deltas) == "ad"
    assert "".join(delta.reasoning for delta in deltas) == "BCEND"
    assert [call.id for delta in deltas for call in delta.tool_calls] == ["1", "2"]
    assert made.called and made.reasoning_tokens == 2 and deltas[-1].finish_reason == "length"


def test_a_single_call_is_kept():
    _, deltas = run("1 2 3", MessageParser(None, Digits(), single_call=True))
    assert [call.id for delta in deltas for call in delta.tool_calls] == ["1"]


def test_special_tokens_that_a_parser_asks_for_are_text():
    hidden, _ = run("ab", None, EOS)
    assert hidden.text_length == 2
    _, deltas = run("ab", MessageParser(Upper(), None), EOS, shown=frozenset((EOS,)))
    text = "".join(delta.text + delta.reasoning for delta in deltas)
    assert text.removesuffix("END") != "ab" and text.startswith("ab")


def test_pieces_of_calls_are_joined():
    first = [ToolCallDelta(0, id="a", name="f"), ToolCallDelta(0, arguments="{"), ToolCallDelta(0, arguments="}")]
    pieces = [*first, ToolCallDelta(1, id="b", name="g")]
    assert join_calls(pieces) == (ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "g", ""))


def test_line_breaks_after_the_reasoning_are_markup_where_the_answer_is_constrained():
    for text, content in (("AB\n\n\nx\ny", "x\ny"), ("\nx", "\nx"), ("A\n", "")):
        _, deltas = run(text, MessageParser(Upper(), None, bare=True))
        assert "".join(delta.text for delta in deltas) == content
    _, deltas = run("AB\n\nx", MessageParser(Upper(), None))
    assert "".join(delta.text for delta in deltas) == "\n\nx"
