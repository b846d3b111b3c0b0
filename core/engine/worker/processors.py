"""Logits processors of requests: installed ones, Python names that the operator allows, and one sequence's use of them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from typing import TYPE_CHECKING, Any

import torch

from engine.config import ProcessorConfig
from engine.plugin.alarm import PluginTimeout, limited
from engine.plugin.contracts.generation import LogitsProcessor
from engine.plugin.faults import attributed, described
from engine.plugin.host import load
from engine.plugin.kinds import LOGITS_PROCESSOR

if TYPE_CHECKING:
    from torch import Tensor

    from engine.worker.sequences import Sequence


class RowError(Exception):
    """One row cannot be sampled; its sequence fails, others go on."""


class Processors:
    """Processors by name, each made on first use."""

    def __init__(self, config: ProcessorConfig) -> None:
        self._config = config
        self._made: dict[str, LogitsProcessor] = {}

    def get(self, name: str) -> LogitsProcessor:
        """An installed processor, or what an allowed Python name means. Raises whatever making it raises."""
        if name not in self._made:
            choice = self._config.choices.get(name)
            self._made[name] = load(choice, LOGITS_PROCESSOR, options={}) if choice is not None else self._imported(name)
        return self._made[name]

    def problem(self, name: str, arguments: dict[str, Any]) -> str | None:
        """None, or why a request cannot use the processor with these arguments."""
        try:
            with limited():
                return self.get(name).validate(arguments)
        except (Exception, PluginTimeout, SystemExit) as error:  # noqa: BLE001 - a processor's own failure is the request's, not the engine's
            cause = described(error)
            return attributed("logits_processor", name, cause) if name in self._config.choices else cause

    def _imported(self, name: str) -> LogitsProcessor:
        pattern = self._config.pattern
        module, _, attribute = name.rpartition(".")
        if pattern is None or not module or re.fullmatch(pattern, name) is None:
            raise LookupError(f"{name!r} is neither installed nor allowed by --logits-processor-pattern")
        return Imported(getattr(importlib.import_module(module), attribute))


class Imported(LogitsProcessor):
    """A Python object that a request names: a callable of (output, logits) or (prompt, output, logits) that returns logits.

    Arguments ``{}``: the object itself (a class is called for an instance); ``{"args": […], "kwargs": {…}}``: what calling it makes.
    """

    def __init__(self, target: Any) -> None:
        self._target = target

    def validate(self, arguments: dict[str, Any]) -> str | None:
        """Whether the object can be made and called like that; raises what making it raises."""
        self.begin(arguments)
        return None

    def begin(self, arguments: dict[str, Any]) -> LogitsProcessor:
        """A processor of its own for each sequence, which may keep a state."""
        target = self._target
        if arguments or inspect.isclass(target):
            target = target(*arguments.get("args", ()), **arguments.get("kwargs", {}))
        if isinstance(target, LogitsProcessor):
            return target
        if not callable(target):
            raise TypeError("it cannot be called")
        return _Called(target, _parameters(target))

    def apply(self, logits: Tensor, prompt: Tokens[int], output: Tokens[int], arguments: dict[str, Any]) -> Tensor:
        """Without a state."""
        return self.begin(arguments).apply(logits, prompt, output, arguments)


class _Called(LogitsProcessor):
    """A callable of one sequence."""

    def __init__(self, function: Callable[..., Tensor], parameters: int) -> None:
        self._function = function
        self._parameters = parameters

    def validate(self, arguments: dict[str, Any]) -> str | None:
        return None

    def apply(self, logits: Tensor, prompt: Tokens[int], output: Tokens[int], arguments: dict[str, Any]) -> Tensor:
        return self._function(prompt, output, logits) if self._parameters == 3 else self._function(output, logits)


def _parameters(function: Callable[..., Any]) -> int:
    """How many positional arguments without a default it takes: 2 or 3."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in inspect.signature(function).parameters.values() if p.kind in positional and p.default is p.empty]
    if len(taken) not in (2, 3):
        raise TypeError(f"it takes {len(taken)} arguments instead of (output, logits) or (prompt, output, logits)")
    return len(taken)


class Processing:
    """The processors of one sequence in the request's order, and its tokens as lists that grow with it."""

    def __init__(self, sequence: Sequence, processor: Callable[[str], LogitsProcessor]) -> None:
        """Raises :class:`RowError`."""
        self._prompt: list[int] = sequence.tokens[: sequence.num_prompt].tolist()
        self._output: list[int] = []
        self._certain = 0
        self._each: list[tuple[str, LogitsProcessor, dict[str, Any]]] = []
        for name, arguments in sequence.params.logits_processors:
            try:
                with limited():
                    self._each.append((name, processor(name).begin(arguments), arguments))
            except PluginTimeout as late:
                raise _failed(name, TimeoutError("it took too long")) from late
            except (Exception, SystemExit) as error:
                raise _failed(name, error) from error

    def apply(self, logits: Tensor, sequence: Sequence, length: int) -> None:
        """Change one row of logits [V] in place, as it stands after ``length`` tokens (drafts included). Raises :class:`RowError`."""
        kept = min(self._certain, length - sequence.num_prompt)
        self._output[kept:] = sequence.tokens[sequence.num_prompt + kept : length].tolist()
        self._certain = min(len(self._output), sequence.length - sequence.num_prompt)
        sound = _is_sound(logits)
        for name, processor, arguments in self._each:
            try:
                with limited():
                    changed = processor.apply(logits, self._prompt, self._output, arguments)
                if not isinstance(changed, torch.Tensor) or changed.shape != logits.shape:
                    raise TypeError(f"it returned {_described(changed)} instead of logits of the same shape")
                if sound and not _is_sound(changed):
                    raise ValueError("it returned logits that are not numbers")
                if changed is not logits:
                    logits.copy_(changed)
            except PluginTimeout as late:
                raise _failed(name, TimeoutError("it took too long")) from late
            except (Exception, SystemExit) as error:
                raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> RowError:
    return RowError(attributed("logits_processor", name, described(error)))


def _is_sound(logits: Tensor) -> bool:
    """Whether no logit is NaN or +∞: what a processor may forbid is −∞."""
    top = float(logits.max())
    return top < float("inf")


def _described(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
