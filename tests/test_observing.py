"""docs/observing.md keeps up with what a server shows."""

from __future__ import annotations

import re

from tests.core.server.serving import in_memory
from tests.sources import REPOSITORY
from tools import metrics_table

PAGE = metrics_table.PAGE


async def test_the_table_of_metrics_is_current():
    text = PAGE.read_text()
    assert metrics_table.render(text, metrics_table.registry()) == text, "run: python -m tools.metrics_table"
    async with in_memory() as http:
        page = (await http.get("/metrics")).text
    shown = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE") and not line.split()[2].endswith("_created")}
    for name in shown:
        if not name.startswith(("process_", "python_")):
            assert f"`{name}`" in text, name


def test_every_attribute_of_a_span_is_explained():
    sources = "".join(path.read_text() for path in (REPOSITORY / "core/engine/tracing").glob("*.py"))
    text = PAGE.read_text()
    names = set(re.findall(r'"(gen_ai\.[\w.]+|engine\.[\w.]+_?\w*|url\.path|http\.[\w.]+)"', sources)) - {"engine.tracing"}
    assert len(names) > 15
    for name in names:
        assert f"`{name}`" in text or f"`.{name.rsplit('.', 1)[1]}`" in text, name


def test_its_pictures_and_flags_exist():
    text = PAGE.read_text()
    pictures = re.findall(r"\]\(([\w.-]+\.png)\)", text)
    assert len(pictures) == 3 and all((REPOSITORY / "docs" / name).stat().st_size > 5000 for name in pictures)
    from engine.args.table import FLAGS

    known = {spelling for flag in FLAGS for spelling in flag.spellings}
    named = set(re.findall(r"`?(--[a-z][a-z-]+)", text))
    assert named <= known, named - known
