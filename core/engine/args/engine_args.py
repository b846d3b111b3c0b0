"""``EngineArgs``: the value of every flag, from a command line or from Python keywords."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.args.choices import check_flags, installed
from engine.args.flag import Flag, Problem
from engine.args.grammar import Grammar, Parsed
from engine.args.rules import check_rules
from engine.args.spelling import nearest
from engine.args.table import FLAGS
from engine.args.values import BadValue, accept
from engine.errors import ConfigError, EngineError, PluginError

if TYPE_CHECKING:
    from engine.plugin.discovery import Entry


class EngineArgs:
    """One attribute per flag (``args.max_model_len``), each at its default unless given. Frozen.

    ``EngineArgs(model="demo", max_num_seqs=4)``; an unknown keyword, a value of the wrong type, a plugin that is not installed
    and a capability that this version lacks raise :class:`ConfigError` (plugins: :class:`PluginError`).
    """

    __slots__ = ("_values", "given")

    def __init__(self, *, entries: Sequence[Entry] | None = None, **values: Any) -> None:
        flags = {flag.dest: flag for flag in FLAGS}
        given: dict[str, object] = {}
        problems: list[Problem] = []
        for name, value in values.items():
            flag = flags.get(name)
            if flag is None:
                near = nearest(name, flags)
                problems.append(
                    Problem(f"{name}: no such argument." + (f" Did you mean {near}?" if near else ""), near)
                )
                continue
            try:
                given[name] = accept(flag, value)
            except BadValue as error:
                problems.append(Problem(f"{name}={value!r}: {error}.", error.fix))
        self._fill(given)
        problems.extend(_check(FLAGS, given, entries))
        raise_problems([*problems, *check_rules(self)])

    @classmethod
    def from_values(cls, given: Mapping[str, object]) -> EngineArgs:
        """From values that a parser has already checked."""
        args = cls.__new__(cls)
        args._fill(given)
        return args

    def _fill(self, given: Mapping[str, object]) -> None:
        values = {flag.dest: flag.initial() for flag in FLAGS}
        values.update(given)
        object.__setattr__(self, "_values", values)
        #: Names of the flags that were given, default value or not.
        object.__setattr__(self, "given", frozenset(given))

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_values")[name]
        except KeyError:
            raise AttributeError(f"EngineArgs has no {name!r}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("EngineArgs is frozen; make another with replace()")

    def replace(self, **values: Any) -> EngineArgs:
        """The same arguments but these."""
        given = {name: self._values[name] for name in self.given}
        return EngineArgs(**(given | values))

    def given_values(self) -> dict[str, Any]:
        """What was given, by Python name."""
        return {name: self._values[name] for name in sorted(self.given)}

    def __repr__(self) -> str:
        return f"EngineArgs({', '.join(f'{name}={value!r}' for name, value in self.given_values().items())})"


class CommandLine:
    """A command line read: the engine's arguments, the command's own values and what is wrong."""

    __slots__ = ("args", "help", "more_help", "own", "problems")

    def __init__(self, args: EngineArgs, own: dict[str, Any], problems: list[Problem], help: bool, more_help: str = "") -> None:
        """``more_help``: what the enabled extensions add to the help."""
        self.more_help = more_help
        self.args = args
        self.own = own
        self.problems = problems
        self.help = help


def read_command_line(
    argv: Sequence[str], own: Sequence[Flag] = (), entries: Sequence[Entry] | None = None, *, http: bool = True,
    needs_model: bool = True,
) -> CommandLine:
    """Read ``[MODEL] [flags]`` of a command; ``own`` are the command's flags beside the engine's, ``http`` the server's too.

    Every problem is collected: grammar, configuration file, values, plugins, capabilities. Nothing heavy is imported.
    """
    taken = {flag.dest for flag in own}
    flags = (*(flag for flag in FLAGS if flag.dest not in taken), *own)
    grammar = Grammar(flags)
    parsed = grammar.parse(argv)
    problems: list[Problem] = []
    given: dict[str, object] = {}
    path = parsed.values.pop("config", None)
    if path is not None:
        from engine.args.yaml_file import read_file

        given, wrong = read_file(str(path), grammar)
        if given.pop("config", None) is not None:
            wrong.append(Problem(f"{path}: a configuration file cannot name another.", "merge the files"))
        problems.extend(wrong)
    given.update(parsed.values)
    more_help = ""
    if given.get("extensions"):
        parsed, found, more_help = _take_extensions(grammar, argv, given, entries)
        problems[:0] = found
    problems[:0] = parsed.problems
    problems.extend(_take_model(parsed.words, parsed.values, given, not needs_model or bool(problems) or parsed.help, "prompt" in taken))
    checked = [] if parsed.help else _check(flags, given, entries)
    if not http:
        served = (flag.name for flag in flags if flag.engine is False and flag.dest in given and flag.dest not in taken)
        problems.extend(Problem(f"{name} is for engine serve alone.", f"leave {name} out") for name in served)
    mine = {flag.dest: given.pop(flag.dest, flag.initial()) for flag in own}
    args = EngineArgs.from_values(given)
    if not parsed.help:
        problems.extend(checked)
        problems.extend(check_rules(args))
    return CommandLine(args, mine, problems, parsed.help, more_help)


def _take_extensions(
    grammar: Grammar, argv: Sequence[str], given: dict[str, object], entries: Sequence[Entry] | None
) -> tuple[Parsed, list[Problem], str]:
    """The line read again without the flags of the enabled extensions, whose values become options of theirs in ``given``."""
    from engine.args.extension_flags import ExtensionFlags

    problems = _add_files(given)
    names = given["extensions"]
    flags = ExtensionFlags([str(name) for name in names] if isinstance(names, list | tuple) else [], entries)
    rest, own = flags.take(argv)
    if own:
        stated = given.get("extension_options")
        options: dict[str, Any] = dict(stated) if isinstance(stated, dict) else {}
        for name, values in own.items():
            options[name] = {**options.get(name, {}), **values}
        given["extension_options"] = options
    parsed = grammar.parse(rest)
    parsed.values.pop("config", None)
    return parsed, [*problems, *flags.problems], flags.help()


def read_own(argv: Sequence[str], own: Sequence[Flag]) -> CommandLine:
    """Read the line of a command that starts no engine: its own flags and no words."""
    parsed = Grammar(own).parse(argv)
    problems = [*parsed.problems, *(Problem(f"{word}: no words are taken here.", "leave it out") for word in parsed.words)]
    mine = {flag.dest: parsed.values.get(flag.dest, flag.initial()) for flag in own}
    return CommandLine(EngineArgs.from_values({}), mine, problems, parsed.help)


def _take_model(
    words: list[str], line: Mapping[str, object], given: dict[str, object], quiet: bool, prompts: bool = False
) -> list[Problem]:
    """The positional MODEL, or --model; both only where they agree. ``prompts``: further words were meant as such, perhaps."""
    problems = [
        Problem(f"{word}: one model only; {words[0]} is given already.", f"--prompt {shlex.quote(word)}" if prompts else "leave it out")
        for word in words[1:]
    ]
    if words and line.get("model", words[0]) != words[0]:
        problems.append(
            Problem(
                f"Two models are given: {words[0]} and --model {line['model']}.", f"leave --model {line['model']} out"
            )
        )
    elif words:
        given["model"] = words[0]
    elif "model" not in given and not quiet:
        problems.append(Problem("No model is given.", "name a directory, a hub repository, or the bundled model demo"))
    return problems


def _check(flags: Sequence[Flag], given: Mapping[str, object], entries: Sequence[Entry] | None) -> list[Problem]:
    asked = [flag for flag in flags if flag.dest in given]
    plugins: dict[str, list[str]] = {}
    if problems := _add_files(given):
        return problems
    if any(flag.kind and given[flag.dest] != flag.default for flag in asked):
        from engine.plugin.discovery import scan

        plugins = installed(scan() if entries is None else entries)
    if file := str(given.get("tool_parser_plugin") or ""):
        plugins.setdefault("tool_parser", []).append(file.rpartition("/")[2].removesuffix(".py"))
    return check_flags(asked, given, plugins)


def _add_files(given: Mapping[str, object]) -> list[Problem]:
    """Make the files of --plugin some of the installed plugins."""
    if files := given.get("plugin"):
        from engine.plugin.files import add_files

        try:
            add_files([str(file) for file in files] if isinstance(files, list) else [str(files)])
        except ConfigError as error:
            return [Problem(str(error), error.fix)]
    return []


def ordered(problems: Sequence[Problem]) -> list[Problem]:
    """As they are printed: plugins' first, the first usage error last, since the last line is the cause that counts."""
    found = list(problems)
    found.reverse()
    return sorted(found, key=lambda problem: -problem.status)


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise all problems as one error, the counting one last; nothing where there is none."""
    if not problems:
        return
    once = {problem.line(): problem for problem in reversed(ordered(problems))}
    lines = list(reversed(once.values()))
    last = lines[-1]
    kind: type[EngineError] = PluginError if last.status == PluginError.status else ConfigError
    raise kind("\n".join([*(problem.line() for problem in lines[:-1]), last.cause]), fix=last.fix)
