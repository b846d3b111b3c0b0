"""A conversation to token ids."""

from __future__ import annotations

import asyncio
import functools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from engine.errors import RequestError
from engine.render.content import TemplateHabits
from engine.render.messages import shape_messages
from engine.render.prompt import PromptEncoder
from engine.render.requested import RequestTemplates
from engine.render.specials import Piece
from engine.render.template import RESERVED, ChatTemplate, TemplateSet
from engine.tracing import piece


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What a chat request wants rendered. ``options``: chat_template_kwargs; ``template``: the request's own."""

    messages: list[Any]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    options: dict[str, Any] = {}
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    truncate: int | None = None
    template: str | None = None


class ChatRenderer:
    """Renders conversations with the server's template, on its own thread, and encodes them."""

    def __init__(
        self, encoder: PromptEncoder, templates: TemplateSet | None, *, content_format: str = "auto",
        requested: RequestTemplates | None = None,
    ) -> None:  # fmt: skip
        """``templates`` None: conversations are refused unless the tokenizer renders them itself, or they bring a template and
        ``requested`` takes it."""
        self._encoder = encoder
        self._templates = templates
        self._requested = requested
        self._format = content_format
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="render")

    async def encode(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation. Raises RequestError."""
        with piece("render", "tokenizer"):
            return await self._encode(conversation)

    async def _encode(self, conversation: Conversation) -> list[int]:
        check_options(conversation)
        own = await self._rendered_by_tokenizer(conversation)
        if own is not None:
            return self._encoder.fit(own, conversation.truncate, "messages")
        loop = asyncio.get_running_loop()
        pieces = await loop.run_in_executor(self._threads, functools.partial(self.render, conversation))
        return await self._encoder.encode_pieces(
            pieces, add_special_tokens=conversation.add_special_tokens, truncate=conversation.truncate
        )

    def render(self, conversation: Conversation) -> list[Piece]:
        """The conversation's text in pieces, which say where special tokens are meant. Blocks; see :meth:`encode`."""
        template = self._template(conversation)
        messages = shape_messages(conversation.messages, template.habits, content_format=self._format)
        given = {"messages": messages, "tools": conversation.tools, "documents": conversation.documents, "options": conversation.options}
        hidden, stand_ins = self._encoder.specials.hide(given)
        cut = ""
        if conversation.continue_final_message:
            cut = _free_mark(given, stand_ins)
            _mark_end(hidden["messages"][-1], cut)
        variables = {name: hidden[name] for name in ("tools", "documents") if hidden[name]}
        text = template.render(
            {
                "tools": None,
                "documents": None,
                **hidden["options"],
                **variables,
                "messages": hidden["messages"],
                "add_generation_prompt": conversation.add_generation_prompt,
            }
        )
        if conversation.continue_final_message:
            end = text.rfind(cut)
            if end < 0:
                raise RequestError(
                    "continue_final_message: the chat template does not show the end of the final message.", param="continue_final_message"
                )
            text = text[:end]
        return self._encoder.specials.pieces(text, stand_ins)

    def text(self, conversation: Conversation) -> str:
        """The rendered text as it reads."""
        return "".join(piece.text for piece in self.render(conversation))

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _template(self, conversation: Conversation) -> ChatTemplate:
        """The request's own, where the server takes them, or the server's. Raises RequestError."""
        if conversation.template is not None:
            if self._requested is None:
                raise RequestError(
                    "chat_template is not accepted in requests to this server.", param="chat_template", code="not_available",
                    fix="start the server with --trust-request-chat-template, or with --chat-template FILE",
                )  # fmt: skip
            return self._requested.get(conversation.template)
        if self._templates is None:
            raise RequestError(
                "This model has no chat template, so messages cannot be rendered.",
                param="messages",
                fix="/v1/completions, or start the server with --chat-template FILE",
            )
        return self._templates.choose(bool(conversation.tools))

    async def _rendered_by_tokenizer(self, conversation: Conversation) -> list[int] | None:
        tokenizer = self._encoder.tokenizer
        if tokenizer is None or self._templates is not None or conversation.template is not None:
            return None
        messages = shape_messages(conversation.messages, TemplateHabits(), content_format="string")
        options = {
            **conversation.options,
            "tools": conversation.tools,
            "documents": conversation.documents,
            "add_generation_prompt": conversation.add_generation_prompt,
            "continue_final_message": conversation.continue_final_message,
        }
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, tokenizer.render_chat, messages, options)


def check_options(conversation: Conversation) -> None:
    """Refuse contradictions and reserved names."""
    if conversation.continue_final_message:
        if conversation.add_generation_prompt:
            raise RequestError(
                "continue_final_message and add_generation_prompt exclude each other; set add_generation_prompt to false.",
                param="continue_final_message",
            )
        last = conversation.messages[-1] if conversation.messages else None
        if isinstance(last, dict) and (last.get("role") != "assistant" or not last.get("content")):
            raise RequestError("continue_final_message needs a final assistant message with content.", param="continue_final_message")
    for name in conversation.options:
        if name in RESERVED or name.startswith("_"):
            raise RequestError(
                f"chat_template_kwargs cannot set {name!r}: that name is given by the server.", param="chat_template_kwargs"
            )


def _free_mark(value: Any, stand_ins: dict[str, str]) -> str:
    """A private-use character that neither the request nor the stand-ins use."""
    text = json.dumps(value, ensure_ascii=False, default=str) + "".join(stand_ins)
    return next(chr(code) for code in range(0x10FFFD, 0xF0000, -1) if chr(code) not in text)


def _mark_end(message: dict[str, Any], mark: str) -> None:
    content = message["content"]
    if isinstance(content, str):
        message["content"] = content + mark
    else:
        message["content"] = [*content[:-1], {**content[-1], "text": content[-1]["text"] + mark}]
