"""One token per byte, for models that are trained so; named example."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin import Tokenizer, hookimpl

ENGINE_API = 1
END = 256


class ExampleTokenizer(Tokenizer):
    """Ids 0 to 255 are bytes, 256 ends the output."""

    def encode(self, text: str, *, add_special_tokens: bool = True, allow_special: bool = True) -> list[int]:
        return list(text.encode("utf-8", "surrogatepass"))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return bytes(token for token in token_ids if 0 <= token < END).decode("utf-8", "replace")

    def token_text(self, token_id: int) -> str:
        return "<end>" if token_id == END else f"<0x{token_id:02X}>"

    def size(self) -> int:
        return END + 1

    def special_ids(self) -> frozenset[int]:
        return frozenset({END})

    def token_id(self, text: str) -> int | None:
        return next((token for token in range(self.size()) if self.token_text(token) == text), None)

    @property
    def eos_token_id(self) -> int | None:
        return END

    @property
    def bos_token_id(self) -> int | None:
        return None

    def chat_template(self) -> None:
        return None


@hookimpl
def engine_create_tokenizer() -> Tokenizer:
    return ExampleTokenizer()
