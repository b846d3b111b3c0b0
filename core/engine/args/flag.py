"""What a flag is: one row of the flag table."""

from __future__ import annotations

from engine.errors import advised

#: How a value is written. ``flag``: no value. ``pair``: --x / --no-x. ``switch``: --x, --x=true, --x=false. ``text``: a string where "" and
#: "None" mean unset. ``json``: a JSON object. ``literal``: a JSON (or Python) literal. ``words``: one or more strings. ``each``: a string,
#: repeatable. ``list``: a JSON list of strings. ``counts``: KEY=INT,… ``floats``: numbers with commas. ``names``: words with commas.
TYPES = (
    "flag", "pair", "switch", "str", "text", "int", "float", "json", "literal", "words", "each", "list", "counts", "floats", "names",
)  # fmt: skip

WITHOUT_VALUE = frozenset(("flag", "pair"))
REPEATABLE = frozenset(("each",))
_EXAMPLES = {
    "switch": "true", "int": "64", "float": "1.0", "json": "'{\"key\": 1}'", "literal": "'{\"key\": 1}'", "list": "'[\"*\"]'",
    "counts": "image=1", "floats": "2.0",
}  # fmt: skip


class Flag:
    """One flag.

    ``kind``: the plugin kind whose installed plugins are its choices; ``choices`` are then the further names the engine knows of.
    ``options``: the value may go on with ``:option,option``. ``until``: the capability that is missing in this version; any value that is
    neither the default nor in ``accepts`` is refused with it. ``engine``: part of the engine's own arguments (not of the HTTP server's).
    """

    __slots__ = (
        "accepts", "aliases", "choices", "default", "engine", "group", "help", "kind", "metavar", "name", "options", "type", "until",
    )  # fmt: skip

    def __init__(
        self, name: str, type: str, default: object, help: str, *, group: str = "", aliases: tuple[str, ...] = (),
        choices: tuple[str, ...] = (), kind: str | None = None, options: bool = False, until: str | None = None,
        accepts: tuple[object, ...] = (), metavar: str | None = None, engine: bool | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.type = type
        self.default = default
        self.help = help
        self.group = group
        self.aliases = aliases
        self.choices = choices
        self.kind = kind
        self.options = options
        self.until = until
        self.accepts = accepts
        self.metavar = metavar
        self.engine = engine

    @property
    def dest(self) -> str:
        """The name in Python: ``max_model_len``."""
        return self.name.lstrip("-").replace("-", "_")

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every way to write it, the name first; ``--no-x`` of a pair included."""
        return (self.name, *self.aliases)

    def initial(self) -> object:
        """The default; a fresh list for repeatable flags."""
        return list(self.default) if isinstance(self.default, list) else self.default

    def example(self) -> str:
        """The flag with a value that it takes, for suggestions."""
        value = _EXAMPLES.get(self.type, self.metavar or "VALUE")
        if isinstance(self.default, int | float | str) and self.default not in ("", True, False):
            value = str(self.default)
        elif self.choices:
            value = self.choices[0]
        return self.name if self.type in WITHOUT_VALUE else f"{self.name} {value}"

    def __repr__(self) -> str:
        return f"Flag({self.name!r})"


class Problem:
    """Something wrong on the command line or in a configuration file. ``status``: 2 usage, 3 plugin."""

    __slots__ = ("cause", "fix", "status")

    def __init__(self, cause: str, fix: str | None = None, status: int = 2) -> None:
        self.cause = cause
        self.fix = fix
        self.status = status

    def __repr__(self) -> str:
        return f"Problem({self.cause!r})"

    def line(self) -> str:
        """Cause and suggested change."""
        return advised(self.cause, self.fix)
