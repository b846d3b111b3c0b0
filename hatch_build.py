"""Puts the native CPU kernels into the wheel, compiled for every instruction set; without a compiler the wheel has sources only."""

from __future__ import annotations

import importlib.util
import platform
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "plugins_devices/engine_devices/native"


class NativeKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles into a temporary directory, and has the files included from there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable install compiles at first use instead."""
        if version == "editable" or platform.system() != "Linux":
            return
        build = _load(Path(self.root) / NATIVE / "build.py")
        self._directory = tempfile.TemporaryDirectory()
        machine = platform.machine() in ("x86_64", "AMD64")
        wanted = [isa for isa in build.INSTRUCTION_SETS if machine or not isa.flags]
        try:
            with ThreadPoolExecutor() as pool:
                made = list(pool.map(lambda isa: build.build(isa, Path(self._directory.name)), wanted))
        except build.BuildFailed as error:
            self.app.display_warning(f"No native kernels in this wheel, they will be compiled at first use: {error}")
            return
        build_data["force_include"].update({str(path): f"engine_devices/native/lib/{path.name}" for path in made})
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The libraries are in the wheel now."""
        if hasattr(self, "_directory"):
            self._directory.cleanup()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("engine_native_build", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
