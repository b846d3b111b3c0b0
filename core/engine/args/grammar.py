"""The command line's grammar: words → values by flag, with every problem collected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.args.flag import REPEATABLE, WITHOUT_VALUE, Flag, Problem
from engine.args.spelling import nearest
from engine.args.values import BadValue, read


class Parsed:
    """What a command line says. ``values`` holds what was given (by Python name), ``words`` the positional arguments."""

    __slots__ = ("help", "problems", "values", "words")

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.words: list[str] = []
        self.problems: list[Problem] = []
        self.help = False


class Grammar:
    """Reads command lines over one set of flags. Dashes and underscores are the same in names; a unique beginning of a name will do."""

    def __init__(self, flags: Iterable[Flag]) -> None:
        self.flags = tuple(flags)
        self._by_spelling = {spelling: flag for flag in self.flags for spelling in flag.spellings}

    def parse(self, argv: Sequence[str]) -> Parsed:
        """All of ``argv``; never raises for what a user may write."""
        parsed = Parsed()
        rest = _Rest(argv)
        while rest:
            word = rest.take()
            if word == "--":
                parsed.words.extend(rest.all())
            elif word in ("-h", "--help"):
                parsed.help = True
            elif _is_option(word):
                self._option(word, rest, parsed)
            else:
                parsed.words.append(word)
        return parsed

    def find(self, spelling: str) -> tuple[str, Flag] | Problem:
        """The flag that ``spelling`` names, by any of its names or by a unique beginning of one, and that name in full."""
        flag = self._by_spelling.get(spelling)
        if flag is not None:
            return spelling, flag
        if spelling.startswith("--") and len(spelling) > 2:
            matches = [name for name in self._by_spelling if name.startswith(spelling)]
            if len(matches) == 1:
                return matches[0], self._by_spelling[matches[0]]
            if matches:
                return Problem(
                    f"{spelling} is the beginning of {', '.join(sorted(matches))}.", "write one of them in full"
                )
        near = nearest(spelling, self._by_spelling)
        return Problem(
            f"{spelling}: no such flag." + (f" Did you mean {near}?" if near else ""),
            near or "--help for the list of flags",
        )

    def _option(self, word: str, rest: _Rest, parsed: Parsed) -> None:
        spelling, sign, glued = word.partition("=")
        if spelling.startswith("--"):
            spelling = "--" + spelling[2:].replace("_", "-")
        elif len(word) == 3 and word[:2] in self._by_spelling and word not in self._by_spelling:
            spelling, sign, glued = word[:2], "=", word[2]  # -O3
        found = self.find(spelling)
        if isinstance(found, Problem):
            parsed.problems.append(found)
            if not sign:  # a word after it may be its value, and is no model then
                rest.value()
            return
        full, flag = found
        try:
            self._take(flag, full, glued if sign else None, rest, parsed)
        except BadValue as error:
            parsed.problems.append(Problem(f"{flag.name} {error}.", error.fix or flag.example()))

    def _take(self, flag: Flag, full: str, glued: str | None, rest: _Rest, parsed: Parsed) -> None:
        dest = flag.dest
        if flag.type in WITHOUT_VALUE:
            said = True if glued is None else _read(flag, glued)
            if flag.type == "pair":
                parsed.values[dest] = said is (full == flag.name)
            else:  # false leaves the flag out, as in a file
                parsed.values[dest] = said or flag.initial()
        elif flag.type == "switch":
            text = glued if glued is not None else rest.take_if("true", "false")
            parsed.values[dest] = True if text is None else _read(flag, text)
        elif flag.type == "words":
            texts = [glued] if glued is not None else rest.values()
            if not texts:
                raise BadValue("expects one value or more", f"{flag.name} {flag.metavar or 'NAME'}")
            parsed.values[dest] = [_read(flag, text) for text in texts]
        else:
            text = glued if glued is not None else rest.value()
            if text is None:
                raise BadValue("expects a value")
            value = _read(flag, text)
            if flag.type in REPEATABLE:
                earlier = parsed.values.get(dest, [])
                value = [*earlier, value] if isinstance(earlier, list) else [value]
            parsed.values[dest] = value


def _read(flag: Flag, text: str) -> object:
    try:
        return read(flag, text)
    except BadValue as error:
        raise BadValue(f"{shorten(text)}: {error}", error.fix) from None


def shorten(text: str) -> str:
    """A value as a message quotes it."""
    if not text.strip():
        return repr(text)
    return text if len(text) <= 80 else text[:77] + "…"


def _is_option(word: str) -> bool:
    """Whether a word is written like a flag; negative numbers and a lone dash are not."""
    if len(word) < 2 or word[0] != "-":
        return False
    return not (word[1].isdigit() or (word[1] == "." and word[2:3].isdigit()))


class _Rest:
    """The words not yet read."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = list(argv)
        self._next = 0

    def __bool__(self) -> bool:
        return self._next < len(self._argv)

    def take(self) -> str:
        self._next += 1
        return self._argv[self._next - 1]

    def all(self) -> list[str]:
        rest = self._argv[self._next :]
        self._next = len(self._argv)
        return rest

    def value(self) -> str | None:
        """The next word if it can be a value."""
        return None if not self or _is_option(self._argv[self._next]) else self.take()

    def values(self) -> list[str]:
        """All words up to the next flag."""
        found = []
        while (word := self.value()) is not None:
            found.append(word)
        return found

    def take_if(self, *words: str) -> str | None:
        return self.take() if self and self._argv[self._next].lower() in words else None
