"""The tokenizer of a configuration, and the pool that encodes long texts off the event loop where one is asked for."""

from __future__ import annotations

import functools

from engine.config import EngineConfig
from engine.plugin.api import Choice
from engine.plugin.contracts.text import Tokenizer, TokenizerPool
from engine.plugin.facts import Checkpoint
from engine.plugin.faults import Faults
from engine.plugin.guarded import GuardedPool, GuardedTokenizer
from engine.plugin.host import PluginHost
from engine.plugin.kinds import TOKENIZER, TOKENIZER_POOL


def open_tokenizer(
    config: EngineConfig, host: PluginHost, faults: Faults | None = None
) -> tuple[Tokenizer | None, TokenizerPool | None]:
    """Both as the configuration says: no tokenizer with --skip-tokenizer-init, no pool unless --tokenizer-pool-size is above 0.
    Guarded by ``faults`` where they are given."""
    model = config.model
    if model.skip_tokenizer_init:
        return None, None
    choice = config.choices["tokenizer"]
    # through the host: auto may answer with another tokenizer mode, which only the tokenizer's files decide
    made = host.create(TOKENIZER, choice, checkpoint=model.checkpoint, name=model.tokenizer_name)
    tokenizer = made.plugin
    guarded = tokenizer if faults is None else GuardedTokenizer(faults, made.choice, tokenizer)
    if not model.tokenizer_pool_size:
        return guarded, None
    pool = host.create(
        TOKENIZER_POOL, config.choices["tokenizer_pool"], tokenizer=tokenizer, size=model.tokenizer_pool_size,
        create=functools.partial(create_tokenizer, choice, model.checkpoint, model.tokenizer_name), options=model.tokenizer_pool_options,
    )  # fmt: skip
    return guarded, pool.plugin if faults is None else GuardedPool(faults, pool.choice, pool.plugin, tokenizer.size())


def create_tokenizer(choice: Choice, checkpoint: Checkpoint, name: str | None) -> Tokenizer:
    """The tokenizer anew, for a pool's worker; a partial of this travels to other processes."""
    return PluginHost().create(TOKENIZER, choice, checkpoint=checkpoint, name=name).plugin
