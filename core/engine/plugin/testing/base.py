"""What every plugin keeps, whatever its kind: registration, a light import, hooks that fit, options, honest errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from engine.errors import ConfigError, MissingDependency, UnavailablePlugin
from engine.plugin import spec
from engine.plugin.activate import registered
from engine.plugin.api import API_VERSION, Choice
from engine.plugin.discovery import Entry
from engine.plugin.host import PluginHost
from engine.plugin.kinds import Kind, kind
from engine.plugin.listing import first_line
from engine.plugin.options import takes_raw_options
from engine.plugin.testing.probe import probe_import

_DOCSTRING = range(10, 161)
#: Hooks of plugins that only say which other plugin to take.
_CHOOSING = ("engine_choose_device", "engine_choose_parser")


def requires(capability: str) -> Callable[[Any], Any]:
    """Mark a test that holds only of plugins which claim ``capability`` in ``supports``; others skip it with that reason."""
    return pytest.mark.engine_requires(capability)


class PluginContract:
    """Subclass the suite of your kind in a class named ``Test…``, say the plugin's ``name``, override fixtures where it needs more.

    ``module``: its module where it is not installed. ``options``: values of its own ``Options``. ``needs``: packages that it imports
    in its hook and that may be missing. ``supports``: capabilities that it claims; a claim is tested, what is not claimed is skipped
    with that reason. ``capabilities`` lists those that the suite knows.
    """

    kind_name: ClassVar[str] = ""
    name: ClassVar[str] = ""
    module: ClassVar[str | None] = None
    options: ClassVar[dict[str, Any]] = {}
    needs: ClassVar[tuple[str, ...]] = ()
    supports: ClassVar[frozenset[str]] = frozenset()
    capabilities: ClassVar[frozenset[str]] = frozenset()

    @pytest.fixture(autouse=True)
    def _capability(self, request: pytest.FixtureRequest) -> None:
        unknown = self.supports - self.capabilities
        if unknown:
            pytest.fail(f"supports names {sorted(unknown)}, which this suite does not know; it knows {sorted(self.capabilities)}")
        marker = request.node.get_closest_marker("engine_requires")
        if marker is not None and marker.args[0] not in self.supports:
            pytest.skip(f"{self.name} does not claim {marker.args[0]!r}")

    @pytest.fixture
    def row(self) -> Kind[Any]:
        """The kind's row of the table."""
        return kind(self.kind_name)

    @pytest.fixture
    def host(self) -> PluginHost:
        """Finds the plugin: among those installed, or the module that the suite names."""
        from engine.plugin.discovery import scan

        own = [] if self.module is None else [Entry(self.kind_name, self.name, self.module, "under-test 0")]
        return PluginHost([*own, *scan()])

    @pytest.fixture
    def choice(self, host: PluginHost, row: Kind[Any]) -> Choice:
        """The plugin, resolved."""
        return host.resolve(row, self.name)

    @pytest.fixture
    def hook_args(self) -> dict[str, Any]:
        """What the kind's hook is called with; the suites of the kinds fill it."""
        return {}

    @pytest.fixture
    def create(self, host: PluginHost, row: Kind[Any], choice: Choice, hook_args: dict[str, Any]) -> Iterator[Callable[[], Any]]:
        """Makes objects of the plugin, and closes them at the end. What this machine lacks skips the test with the remedy."""
        made: list[Any] = []
        choosing = choosing_hook(host, row, choice)
        if choosing is not None:
            pytest.skip(f"{self.name} stands for others: {choosing} names them")

        def make() -> Any:
            try:
                made.append(host.create(row, choice, **hook_args).plugin)
            except (MissingDependency, UnavailablePlugin) as error:
                pytest.skip(str(error))
            return made[-1]

        yield make
        for each in made:
            _close(each)

    @pytest.fixture
    def plugin(self, create: Callable[[], Any]) -> Any:
        """One object of the plugin."""
        return create()

    def test_it_is_registered_once(self, host: PluginHost, row: Kind[Any]) -> None:
        found = [entry for entry in host.entries(row) if entry.name == self.name]
        assert len(found) == 1, f"{row.group} has {len(found)} entries named {self.name!r}: {found}"

    def test_its_first_docstring_line_says_what_it_is(self, choice: Choice) -> None:
        line = first_line(choice.module)
        assert len(line) in _DOCSTRING, f"the first docstring line of {choice.module} is {line!r}; 10 to 160 characters are listed"

    def test_it_speaks_this_plugin_api(self, host: PluginHost, row: Kind[Any], choice: Choice) -> None:
        assert getattr(host.module(row, choice), "ENGINE_API", None) == API_VERSION

    def test_its_hooks_fit_the_specification(self, host: PluginHost, row: Kind[Any], choice: Choice) -> None:
        hooks = registered(row, choice, host.module(row, choice)).hook
        assert self.has_hook(hooks, row), f"{choice.module} does not implement {row.hook} with @hookimpl"

    def has_hook(self, hooks: Any, row: Kind[Any]) -> bool:
        """Whether the hooks that make a plugin of this kind are there."""
        return bool(getattr(hooks, row.hook).get_hookimpls())

    def test_importing_it_is_light(self, choice: Choice) -> None:
        heavy = probe_import(choice.module)["heavy"]
        assert not heavy, f"importing {choice.module} imports {', '.join(heavy)}: import them inside the hook"

    def test_importing_it_has_no_side_effects(self, choice: Choice) -> None:
        report = probe_import(choice.module)
        assert not report["changed"], f"importing {choice.module} changed {', '.join(report['changed'])}"
        assert not report["printed"], f"importing {choice.module} printed {report['printed']!r}"

    def test_an_unknown_option_is_refused_by_name(self, host: PluginHost, row: Kind[Any], choice: Choice) -> None:
        if "options" not in inspect.signature(getattr(spec, row.hook)).parameters or takes_raw_options(row.hook):
            pytest.skip(f"{row.hook} takes no typed options")
        with pytest.raises(ConfigError, match="no_such_option_zz"):
            host.options(row, choice, {**self.options, "no_such_option_zz": 1})

    def test_a_missing_package_is_named(self, blocked_import: Callable[[str], Any], choice: Choice, hook_args: dict[str, Any]) -> None:
        for package in self.needs:
            with blocked_import(package), pytest.raises(MissingDependency, match=package.partition(".")[0]):
                # A fresh import: what an earlier test imported would hide the block.
                _fresh(choice)(self.kind_name, hook_args)

    def test_it_keeps_the_contract(self, plugin: Any, row: Kind[Any]) -> None:
        assert isinstance(plugin, row.contract)

    def test_every_creation_is_its_own(self, create: Callable[[], Any]) -> None:
        assert create() is not create(), "the hook returned the same object twice; state would be shared between engines"

    def test_closing_twice_is_harmless(self, plugin: Any) -> None:
        _close(plugin)
        _close(plugin)


def choosing_hook(host: PluginHost, row: Kind[Any], choice: Choice) -> str | None:
    """The hook by which a plugin names the one to take in its place; None of ordinary plugins."""
    module = host.module(row, choice)
    return next((name for name in _CHOOSING if hasattr(module, name)), None)


def _close(plugin: Any) -> None:
    for name in ("shutdown", "close"):
        if hasattr(plugin, name):
            getattr(plugin, name)()


def _fresh(choice: Choice) -> Callable[[str, dict[str, Any]], Any]:
    """Creates the plugin after forgetting its module (and its private neighbours), so that its imports run again."""
    import sys

    package = choice.module.partition(":")[0].rpartition(".")[0] or choice.module
    held = {name: sys.modules.pop(name) for name in list(sys.modules) if name == choice.module or name.startswith(f"{package}._")}

    def make(kind_name: str, hook_args: dict[str, Any]) -> Any:
        from engine.plugin.activate import load

        try:
            return load(choice, kind(kind_name), **hook_args)
        finally:
            sys.modules.update(held)

    return make
