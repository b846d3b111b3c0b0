"""Installed packages for tests: a dist-info directory and modules in a folder that is put on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAD = "from engine.plugin import Loader, SchedulingPolicy, Use, hookimpl\nENGINE_API = 1\n"
#: A sound loader of nothing.
SOUND = (
    '"""Reads nothing."""\n' + HEAD + "class Nothing(Loader):\n    def describe(self): return []\n"
    "    def tensors(self): return iter(())\n@hookimpl\ndef engine_create_loader(): return Nothing()\n"
)


def install(
    place: Path,
    project: str,
    source: str,
    *,
    name: str,
    kind: str = "loader",
    version: str = "0.3",
    extras: dict[str, str] | None = None,
) -> None:
    """A distribution ``project`` with one plugin ``name`` whose module is ``source``. ``extras``: extra → requirement."""
    module = f"{project}_{name}".replace("-", "_")
    info = place / f"{project.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    headers = [f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}"]
    for extra, requirement in (extras or {}).items():
        headers.append(f'Provides-Extra: {extra}\nRequires-Dist: {requirement}; extra == "{extra}"')
    (info / "METADATA").write_text("\n".join(headers) + "\n")
    (info / "entry_points.txt").write_text(f"[engine.{kind}]\n{name} = {module}\n")
    (place / f"{module}.py").write_text(source)


def engine(place: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command ``engine`` with the packages in ``place`` on the path."""
    path = os.pathsep.join([str(place), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", "import sys; from engine.cli import main; sys.exit(main())", *argv],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
        timeout=120,
    )
