"""The request field logits_processors: names of installed processors, or Python names that the operator allows."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from engine.config import ProcessorConfig
from engine.errors import RequestError
from engine.plugin.request import SamplingParams
from engine.server.service import Service

FIELD = "logits_processors"
MAX_PROCESSORS = 16
MAX_NAME = 256
_KEYS = frozenset(("name", "qualname", "args", "kwargs"))

Asked = tuple[tuple[str, dict[str, Any]], ...]


async def process(service: Service, value: list[Any] | None, params: SamplingParams) -> SamplingParams:
    """``params`` with the processors that a body asks for. Raises RequestError for what the engine cannot run."""
    if value:
        params = msgspec.structs.replace(params, logits_processors=read_processors(value, service.config.processors))
    await check(service, params)
    return params


async def check(service: Service, params: SamplingParams) -> None:
    """Raise RequestError where a processor does not exist or does not take its arguments; the engine's worker knows."""
    asked = params.logits_processors
    if not asked:
        return
    for name, _ in asked:
        service.faults.check(service.plugin("logits_processor", name))
    problems = (await service.client.call("check_processors", asked=[list(each) for each in asked]))[0]
    for index, problem in enumerate(problems):
        if problem is not None:
            fault = service.faults.of_output(problem, service.plugin)
            if fault is not None:
                raise fault
            where = f"{FIELD}[{index}]"
            raise RequestError(f"{where} ({asked[index][0]}) cannot be used: {problem}.", param=where)


def read_processors(value: list[Any], config: ProcessorConfig) -> Asked:
    """(name, arguments) of each; nothing is imported. Raises RequestError naming the entry."""
    if len(value) > MAX_PROCESSORS:
        raise RequestError(f"{FIELD} cannot have {len(value)} entries; allowed: at most {MAX_PROCESSORS}.", param=FIELD)
    return tuple(_read(entry, f"{FIELD}[{index}]", config) for index, entry in enumerate(value))


def _read(entry: Any, where: str, config: ProcessorConfig) -> tuple[str, dict[str, Any]]:
    given = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(given, dict) or not given.keys() <= _KEYS or ("name" in given) == ("qualname" in given):
        raise RequestError(f"{where} must be a name, or an object with name (or qualname), args and kwargs.", param=where)
    name, args, kwargs = given.get("name", given.get("qualname")), given.get("args") or [], given.get("kwargs") or {}
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise RequestError(f"{where}.name must be a text of 1 to {MAX_NAME} characters.", param=f"{where}.name")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise RequestError(f"{where}: args must be a list and kwargs an object.", param=where)
    if name in config.choices:
        if args:
            raise RequestError(f"{where}.args: {name} takes its arguments by name, in kwargs.", param=f"{where}.args")
        return name, kwargs
    if config.pattern is None or re.fullmatch(config.pattern, name) is None:
        known = ", ".join(config.choices) or "none"
        raise RequestError(
            f"{where}: there is no logits processor {name[:100]!r}; installed: {known}. Python names are used only where "
            "--logits-processor-pattern matches the whole of them.", param=where,
        )  # fmt: skip
    plain = isinstance(entry, str) or not ("args" in given or "kwargs" in given)
    return name, {} if plain else {"args": args, "kwargs": kwargs}
