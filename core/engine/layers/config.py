"""Typed reading of a model's configuration: every complaint names the key, its value and what would work. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import ModelFileError

#: Beyond any model that exists; a larger number is a damaged file, and must not size an allocation.
LARGEST_SIZE = 1 << 24
MOST_LAYERS = 1024
LARGEST_NUMBER = 1e30


class ConfigReader:
    """One JSON object of a configuration. ``path`` is its key within config.json (``text_config``), for messages.

    A key that is absent or null takes the default; without a default it is required.
    """

    def __init__(self, values: dict[str, Any], path: str = "") -> None:
        self.values = values
        self.path = path

    def integer(self, key: str, default: int | None = None, *, low: int = 1, high: int = LARGEST_SIZE) -> int:
        """An integer in [low, high]."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.complaint(key, value, f"an integer from {low} to {high}")
        return value

    def optional_integer(self, key: str, default: int | None = None, *, low: int = 1, high: int = LARGEST_SIZE) -> int | None:
        """As ``integer``, but null and absence are the default, which may be None."""
        return default if self.values.get(key) is None else self.integer(key, low=low, high=high)

    def number(self, key: str, default: float | None = None, *, above: float = 0.0) -> float:
        """A number > ``above`` of sensible size."""
        value = self._value(key, default)
        if not _is_number(value) or value <= above:
            raise self.complaint(key, value, f"a number above {above:g}")
        return float(value)

    def optional_number(self, key: str, default: float | None = None, *, above: float = 0.0) -> float | None:
        """As ``number``, but absence is the default and an explicit null is None."""
        if key not in self.values:
            return default
        return None if self.values[key] is None else self.number(key, above=above)

    def numbers(self, key: str, length: int) -> tuple[float, ...]:
        """A list of ``length`` positive numbers."""
        value = self._value(key, None)
        good = isinstance(value, list) and all(_is_number(x) and x > 0 for x in value)
        if not good or len(value) != length:
            raise self.complaint(key, value, f"a list of {length} positive numbers")
        return tuple(float(x) for x in value)

    def integers(self, key: str, *, high: int = LARGEST_SIZE) -> tuple[int, ...]:
        """A list of integers in [0, high], a single one, or nothing."""
        value = self.values.get(key)
        found = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x <= high for x in found):
            raise self.complaint(key, value, f"an integer from 0 to {high}, or a list of them")
        return tuple(found)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.complaint(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None, *, known: Sequence[str] = ()) -> str:
        """A string, one of ``known`` where that is given."""
        value = self._value(key, default)
        if not isinstance(value, str) or (known and value not in known):
            raise self.complaint(key, value, f"one of {', '.join(known)}" if known else "a string")
        return value

    def texts(self, key: str, length: int, known: Sequence[str]) -> tuple[str, ...] | None:
        """A list of ``length`` strings of ``known``, or None where it is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != length or any(x not in known for x in value):
            raise self.complaint(key, value, f"a list of {length} of {', '.join(known)}")
        return tuple(value)

    def table(self, key: str) -> ConfigReader | None:
        """A nested object, or None where it is absent or empty."""
        value = self.values.get(key)
        if value is None or value == {}:
            return None
        if not isinstance(value, dict):
            raise self.complaint(key, value, "an object")
        return ConfigReader(value, f"{self.path}{key}.")

    def complaint(self, key: str, value: Any, wanted: str) -> ModelFileError:
        """The error for a key with a value that cannot be meant."""
        shown = repr(value)
        if len(shown) > 80:
            shown = f"{shown[:77]}..."
        return ModelFileError(
            f"config.json: {self.path}{key} is {shown}; it must be {wanted}.",
            fix=f"--hf-overrides '{{\"{key}\": ...}}'",
        )

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            raise ModelFileError(
                f"config.json: {self.path}{key} is missing.",
                fix=f"a complete config.json, or --hf-overrides '{{\"{key}\": ...}}'",
            )
        return default


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -LARGEST_NUMBER <= value <= LARGEST_NUMBER
