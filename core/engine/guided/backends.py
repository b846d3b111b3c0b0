"""The guided-decoding backends of a configuration, made on first use."""

from __future__ import annotations

from functools import cached_property

from engine.config import EngineConfig
from engine.errors import ConfigError, EngineError
from engine.guided.stand_ins import NAMES, standing_in
from engine.plugin.contracts.generation import GuideCompiler
from engine.plugin.contracts.text import Tokenizer
from engine.plugin.host import PluginHost
from engine.plugin.kinds import GUIDED_DECODING, TOKENIZER
from engine.plugin.vocabulary import Vocabulary

#: Most line breaks in one token that separates thinking from an answer.
_BREAKS = 4


class Backends:
    """One compiler per backend name, over the model's own tokenizer.

    Backends' libraries import transformers, some of them torch, for functions that the engine does not call; they are made without.
    """

    def __init__(self, config: EngineConfig, *, alone: bool = False) -> None:
        """``alone``: nothing else happens in this process, which needs no tensors."""
        self._config = config
        self._alone = alone
        self._absent = NAMES if alone else ("transformers",)
        self._host = PluginHost()
        self._compilers: dict[str, GuideCompiler] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, made once; a lean one, because backends want its vocabulary and encode little."""
        model = self._config.model
        made = self._host.create(TOKENIZER, self._config.choices["tokenizer"], checkpoint=model.checkpoint, name=model.tokenizer_name)
        return made.plugin.lean()

    @property
    def width(self) -> int:
        """Columns of the logits."""
        info = self._config.model.info
        return info.logits_size or info.vocab_size

    @cached_property
    def end(self) -> int:
        """The vocabulary's end token."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ConfigError("guided decoding needs a tokenizer that names its end token.", fix="eos_token in tokenizer_config.json")
        return end

    @cached_property
    def blanks(self) -> tuple[int, ...]:
        """The tokens that are line breaks and nothing else."""
        breaks = {b"\n" * count for count in range(1, _BREAKS + 1)}
        return tuple(i for i, token in enumerate(Vocabulary.of(self.tokenizer, self.width).tokens) if token in breaks)

    def compiler(self, name: str) -> GuideCompiler:
        """The compiler of that name. Raises the plugin host's errors."""
        if name not in self._compilers:
            tokenizer = self.tokenizer  # before the stand-ins: a tokenizer may need transformers
            try:
                with standing_in(self._absent, stay=self._alone):
                    self._compilers[name] = self._create(name, tokenizer)
            except EngineError:
                self._compilers[name] = self._create(name, tokenizer)
        return self._compilers[name]

    def _create(self, name: str, tokenizer: Tokenizer) -> GuideCompiler:
        choice = self._config.guided.choices[name]
        created = self._host.create(GUIDED_DECODING, choice, tokenizer=tokenizer, vocab_size=self.width, options={})
        return created.plugin
