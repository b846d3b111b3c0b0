"""Outputs of reasoning models: state of the prompt, output, reasoning, content."""

from __future__ import annotations

Row = tuple[str, str, str, str]

#: deepseek_r1 trims nothing and takes everything for reasoning until the end tag.
DEEPSEEK_R1: tuple[Row, ...] = (
    ("said", "This is a reasoning section</think>This is the rest", "This is a reasoning section", "This is the rest"),
    ("said", "<think>This is a reasoning section</think>This is the rest", "This is a reasoning section", "This is the rest"),
    ("said", "This is a reasoning section</think>", "This is a reasoning section", ""),
    ("said", "<think>This is a reasoning section</think>", "This is a reasoning section", ""),
    ("said", "no end of it", "no end of it", ""),
    ("said", "<think>no end of it", "no end of it", ""),
    ("said", "This\nThat</think>This is the rest\nThat", "This\nThat", "This is the rest\nThat"),
    ("said", "<think>\nOkay.\n</think>\n\nHello!", "\nOkay.\n", "\n\nHello!"),
    ("said", "\n<think>a</think>\nb", "a", "\nb"),
    ("said", "</think>at once", "", "at once"),
    ("said", "<think></think>", "", ""),
    ("said", "", "", ""),
    ("said", "\n", "\n", ""),
    ("said", "a <think> b</think>c", "a <think> b", "c"),
    ("said", "a</think>b</think>c", "a", "b</think>c"),
    ("said", "a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ("said", "<think><think>a</think>b", "<think>a", "b"),
    ("said", "x < y, </thin", "x < y, </thin", ""),
    ("said", "<thi", "<thi", ""),
    ("said", "I </ think</think>{\"a\": 1}", "I </ think", '{"a": 1}'),
    ("open", "Let me see.</think>42", "Let me see.", "42"),
    ("open", "<think>Let me see.</think>42", "Let me see.", "42"),
    ("closed", "42", "", "42"),
    ("closed", "a</think>b", "", "a</think>b"),
    ("closed", "<think>a</think>b", "", "<think>a</think>b"),
)

#: Tags that a model writes itself; line breaks beside them go. START and END stand for the tags.
TAGGED: tuple[Row, ...] = (
    ("said", "START\nOkay, 2 + 2.\nEND\n\nIt is 4.", "Okay, 2 + 2.", "It is 4."),
    ("said", "STARTOkay.ENDYes.", "Okay.", "Yes."),
    ("said", "\n\nSTART\nOkay.\nEND\n\nYes.", "Okay.", "Yes."),
    ("said", "No thoughts.", "", "No thoughts."),
    ("said", "START\n\nEND\n\nYes.", "", "Yes."),
    ("said", "START\nnever ends", "never ends", ""),
    ("said", "START\nends with breaks\n\n", "ends with breaks\n\n", ""),
    ("said", "START\nfirst\n\nsecond\nEND\nthird\n\nfourth\n", "first\n\nsecond", "third\n\nfourth\n"),
    ("said", "STARTaENDbSTARTcENDd", "a", "bSTARTcENDd"),
    ("said", "STARTa START bENDc", "a START b", "c"),
    ("said", "aENDb", "", "aENDb"),
    ("said", "Well. STARTaENDb", "", "Well. STARTaENDb"),
    ("said", "", "", ""),
    ("said", "\n\n", "", "\n\n"),
    ("said", "START", "", ""),
    ("said", "STARTaEND", "a", ""),
    ("said", "STARTaEND\n\n", "a", ""),
    ("said", "  START a END b", " a ", " b"),
    ("said", "START\n```py\nx = 1\n```\nEND\n```json\n{}\n```", "```py\nx = 1\n```", "```json\n{}\n```"),
    ("said", "START思考END答え", "思考", "答え"),
    ("open", "\nOkay.\nEND\n\nYes.", "Okay.", "Yes."),
    ("open", "START\nOkay.\nEND\n\nYes.", "Okay.", "Yes."),
    ("open", "never ends", "never ends", ""),
    ("open", "ENDYes.", "", "Yes."),
    ("closed", "Yes.", "", "Yes."),
    ("closed", "\n\nYes. END", "", "\n\nYes. END"),
    ("closed", "STARTaENDb", "", "STARTaENDb"),
)

#: gpt-oss; the prompt ends with <|start|>assistant.
GPT_OSS: tuple[Row, ...] = (
    ("said", "<|channel|>analysis<|message|>Two and two.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>",
     "Two and two.", "4"),
    ("said", "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>", "ab", ""),
    ("said", "<|channel|>final<|message|>Hello!<|return|>", "", "Hello!"),
    ("said", "<|channel|>final<|message|>Hello!", "", "Hello!"),
    ("said", "<|channel|>analysis<|message|>never ends", "never ends", ""),
    ("said", "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant<|channel|>final<|message|>Done.", "",
     "I will look.Done."),
    ("said", "Hello!", "", "Hello!"),
    ("said", "", "", ""),
    ("said", "<|channel|>anal", "", ""),
    ("said", "<|channel|>", "", ""),
    ("said", "<|chan", "", "<|chan"),
    ("said", "<|channel|>final <|constrain|>json<|message|>{\"a\": 1}<|return|>", "", '{"a": 1}'),
    ("said", "<|channel|>final<|message|>a <|b|> c<|return|>", "", "a <|b|> c"),
    ("said", "<|channel|>analysis<|message|>x<|channel|>final<|message|>y", "x", "y"),
    ("said", "<|channel|>analysis<|message|>x<|start|>assistant<|channel|>final<|message|>y", "x", "y"),
    ("said", "<|channel|>analysis<|message|>思<|end|><|start|>assistant<|channel|>final<|message|>答\n", "思", "答\n"),
    ("said", "<|message|>bare<|end|>", "", "bare"),
    ("said", " to=functions.f<|channel|>commentary json<|message|>{}<|call|>", "",
     "<|channel|>commentary to=functions.f<|message|>{}<|call|>"),
    ("said", "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>", "",
     "<|channel|>commentary to=functions.f<|message|>{\"a\":1}<|call|>"),
    ("said", "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}", "t",
     "<|channel|>commentary to=functions.f<|message|>{}"),
    ("said", "total: 5", "", "total: 5"),
)  # fmt: skip
TAGS = {"qwen3": ("<think>", "</think>"), "glm45": ("<think>", "</think>"), "mistral": ("[THINK]", "[/THINK]"),
        "seed_oss": ("<seed:think>", "</seed:think>")}  # fmt: skip
GRANITE = ("Here is my thought process:", "Here is my response:")
