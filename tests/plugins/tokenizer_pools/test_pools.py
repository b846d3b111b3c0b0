"""Tokenizer pools: the ids of the tokenizer itself, from threads and from Ray actors; what is refused."""

from __future__ import annotations

import asyncio
import functools
import os

import pytest

from engine.args.engine_args import EngineArgs
from engine.args.resolve import resolve
from engine.checkpoint import locate
from engine.config import EngineConfig
from engine.errors import ConfigError, PluginError, WorkerDied
from engine.plugin.host import PluginHost
from engine.plugin.kinds import TOKENIZER, TOKENIZER_POOL
from engine.render.pool import create_tokenizer, open_tokenizer

TEXTS = [f"the answer to {n} plus {n} is {'very ' * n}clear" for n in range(40)]


def config(**flags) -> EngineConfig:
    return resolve(EngineArgs(model="demo", **flags))


async def encode_all(pool) -> list[list[int]]:
    return list(await asyncio.gather(*(pool.encode(text, add_special_tokens=True, allow_special=False) for text in TEXTS)))


def test_threads():
    tokenizer, pool = open_tokenizer(config(tokenizer_pool_size=3, tokenizer_pool_type="thread"), PluginHost())
    assert tokenizer is not None and pool is not None
    assert asyncio.run(encode_all(pool)) == [tokenizer.encode(text, allow_special=False) for text in TEXTS]
    pool.close()
    pool.close()


def test_no_pool_by_default():
    made = config(tokenizer_pool_type="thread")
    assert "tokenizer_pool" not in made.choices and open_tokenizer(made, PluginHost())[1] is None
    assert open_tokenizer(config(skip_tokenizer_init=True), PluginHost()) == (None, None)
    with pytest.raises(ConfigError, match="skip-tokenizer-init and --tokenizer-pool-size"):
        config(skip_tokenizer_init=True, tokenizer_pool_size=2)


@pytest.mark.parametrize(
    ("flags", "error", "shown"),
    [
        ({"tokenizer_pool_size": -1}, ConfigError, "tokenizer-pool-size -1"),
        ({"tokenizer_pool_size": 1, "tokenizer_pool_type": "threads"}, PluginError, "Did you mean thread"),
        ({"tokenizer_pool_size": 1, "tokenizer_pool_type": "thread", "tokenizer_pool_extra_config": {"num_cpus": 1}}, ConfigError,
         "takes no options"),
        ({"tokenizer_pool_size": 1, "tokenizer_pool_extra_config": {"cpus": 1}}, ConfigError, "no option 'cpus'"),
    ],
)  # fmt: skip
def test_what_is_refused(flags, error, shown):
    with pytest.raises(error, match=shown):
        config(**flags)


@pytest.mark.slow
def test_ray_actors(monkeypatch):
    ray = pytest.importorskip("ray")
    checkpoint, host = locate("demo"), PluginHost()
    choice = host.resolve(TOKENIZER, "auto")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["core", "plugins", *filter(None, [os.environ.get("PYTHONPATH")])]))
    ray.init(num_cpus=1, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False, object_store_memory=80_000_000)
    try:
        tokenizer = create_tokenizer(choice, checkpoint, None)
        create = functools.partial(create_tokenizer, choice, checkpoint, None)
        pool = host.create(TOKENIZER_POOL, "ray", tokenizer=tokenizer, size=2, create=create, options={"num_cpus": 0}).plugin
        wanted = [tokenizer.encode(text, allow_special=False) for text in TEXTS]

        async def deaths() -> None:
            assert await encode_all(pool) == wanted
            for actor in list(pool._actors):
                ray.kill(actor)
            assert await encode_all(pool) == wanted, "dead actors are replaced"
            for actor in list(pool._actors):
                ray.kill(actor)
            with pytest.raises(WorkerDied, match="died again"):
                await encode_all(pool)

        asyncio.run(deaths())
        pool.close()
        pool.close()
    finally:
        ray.shutdown()
