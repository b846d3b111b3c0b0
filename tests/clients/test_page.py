"""The live page in a real Chromium, against a served model."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.page import KEY, Visit, get, metrics, post, proxy, until, visit
from tests.integration.serving import RunningServer, serve

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.clients, pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("page") / "log"
    with serve(log, "demo", "--reasoning-parser", "qwen3", "--api-key", KEY, "--max-queued-requests", "64") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as made:
        launched = made.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def visited(browser: Any, server: RunningServer) -> Iterator[Visit]:
    with visit(browser, server.url) as opened:
        yield opened
        assert opened.problems == []
        assert opened.hosts == {server.url.split("/")[2]}, "somebody else was asked"


def test_it_is_there_within_a_second(browser: Any, server: RunningServer) -> None:
    taken = []
    for _ in range(3):
        began = time.monotonic()
        with visit(browser, server.url) as opened:
            taken.append(time.monotonic() - began)
            assert opened.page.inner_text("#model") == "demo"
    assert min(taken) < 1.0, taken


def test_a_chat_streams_with_its_thinking_apart(visited: Visit) -> None:
    page = visited.page
    page.check("#thinking")
    page.evaluate("""() => { window.seen = new Set(); new MutationObserver(() => {
        window.seen.add(document.querySelector('#messages').innerText.length) }).observe(document.querySelector('#messages'),
        {subtree: true, childList: true, characterData: true}) }""")
    visited.ask("What is 47 + 38?")
    answer = visited.answered()
    thought = page.text_content(".message.assistant details div")
    assert answer and thought and thought not in answer and "<think>" not in answer + thought
    assert page.evaluate("window.seen.size") > 3, "it did not grow while it was generated"
    assert re.search(r"first after \d+ ms", page.inner_text("#speed"))
    visited.ask("And 1 + 1?")
    assert visited.answered(2)
    page.click("#clear")
    assert page.query_selector(".message") is None


def test_an_answer_can_be_stopped(visited: Visit, server: RunningServer) -> None:
    page = visited.page
    page.fill("#temperature", "2")
    page.route("**/chat/completions", lambda route: route.continue_(
        post_data={**route.request.post_data_json, "ignore_eos": True, "max_tokens": 1500, "min_tokens": 1500}
    ))  # fmt: skip
    visited.ask("Tell me everything.")
    until(page, "document.querySelector('.message.assistant').innerText.length > 20")
    assert page.inner_text("#send") == "Stop"
    page.keyboard.press("Escape")
    visited.answered()
    assert page.query_selector(".message.failed") is None
    deadline = time.monotonic() + 5
    while "vllm:num_requests_running{model_name=\"demo\"} 0.0" not in metrics(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "vllm:num_requests_running{model_name=\"demo\"} 0.0" in metrics(server), "the engine goes on"
    page.unroute("**/chat/completions")
    page.fill("#most", "50")
    visited.ask("Hello")
    assert visited.answered(2), "a stopped chat goes on"


def test_errors_are_shown(browser: Any, server: RunningServer) -> None:
    with visit(browser, server.url) as opened:
        opened.page.fill("#most", "1000000")
        opened.ask("Hello")
        assert "maximum context length is 2048" in opened.answered() and opened.page.query_selector(".message.failed") is not None
        opened.page.fill("#most", "50")
        opened.ask("Hello")
        assert opened.answered(2) and len(opened.page.query_selector_all(".message.failed")) == 1


def test_the_plots_move(visited: Visit, server: RunningServer) -> None:
    page = visited.page
    page.click("text=Load")
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            post(server, {"model": "demo", "prompt": "On and on", "max_tokens": 200, "ignore_eos": True})

    threads = [threading.Thread(target=keep_busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        rate = "parseFloat(document.querySelector('#plots figure b').textContent.replace(/[^0-9.]/g, '')) > 0"
        until(page, rate)
        drawn = "document.querySelector('#plots canvas').toDataURL()"
        before = page.evaluate(drawn)
        until(page, f"{drawn} !== '{before}'")
        tiles = page.inner_text("#tiles")
        assert re.search(r"[1-9]\d*\s+running", tiles), tiles
        assert "serving" in page.inner_text("#health")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    names = page.evaluate("[...document.querySelectorAll('#plots canvas')].map((each) => each.getAttribute('aria-label'))")
    assert len(names) == 6 and all(re.search(r": (no value yet|[\d.,]+)", name) for name in names), names


def test_the_plan_has_every_plugin_and_why(visited: Visit, server: RunningServer) -> None:
    import json

    plan = json.loads(get(server, "/ui/plan"))
    visited.page.click("text=Plan")
    rows = visited.page.evaluate("[...document.querySelectorAll('#plugins tr')].map((row) => [...row.cells].map((cell) => cell.innerText))")
    expected = [(each["kind"], each["name"], each["reason"]) for each in plan["plugins"]]
    assert [(row[0], row[1].split(" ")[0], row[2]) for row in rows] == expected
    assert len(rows) > 5 and all(row[2] for row in rows)
    facts = visited.page.inner_text("#facts")
    assert str(plan["model"]["architecture"]) in facts and str(plan["model"]["max_model_len"]) in facts.replace(",", "")


def test_the_keyboard_and_a_reader_are_enough(visited: Visit) -> None:
    page = visited.page
    assert page.evaluate("document.activeElement.id") == "text"
    unnamed = page.evaluate("""() => [...document.querySelectorAll('button, input, textarea, canvas, nav, table')].filter((each) =>
        !(each.getAttribute('aria-label') || each.labels?.length || each.innerText?.trim())).map((each) => each.outerHTML)""")
    assert unnamed == []
    page.focus("nav button[data-view=chat]")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.is_visible("#plots") and not page.is_visible("#ask")
    current = "[...document.querySelectorAll('nav [aria-current=page]')].map((each) => each.dataset.view)"
    assert page.evaluate(current) == ["load"]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "the focus cannot be seen"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.is_visible("#plugins") and page.evaluate(current) == ["plan"]
    assert page.get_attribute("#messages", "aria-live") == "polite" and page.get_attribute("html", "lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["chat", "load", "plan"])
def test_it_can_be_read_in_both_schemes_and_on_a_telephone(browser: Any, server: RunningServer, scheme: str, view: str) -> None:
    with visit(browser, server.url, color_scheme=scheme, viewport={"width": 360, "height": 640}) as opened:
        page = opened.page
        page.click(f"nav button[data-view={view}]")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is wider than the screen"
        assert page.is_visible(f"#{view}")
        ratio = page.evaluate(_CONTRAST)
        assert min(ratio.values()) >= 4.5, ratio
        assert opened.problems == []


def test_no_key_no_page(browser: Any, server: RunningServer) -> None:
    context = browser.new_context(http_credentials={"username": "me", "password": "wrong"})
    assert context.new_page().goto(f"{server.url}/ui").status == 401
    context.close()


def test_behind_a_prefix(browser: Any, tmp_path: Path) -> None:
    flags = ("demo", "--root-path", "/models/one", "--disable-log-stats")
    with (
        serve(tmp_path / "log", *flags) as server,
        proxy(server, "/models/one") as url,
        visit(browser, f"{url}/models/one", key=None) as opened,
    ):
        opened.ask("Hello")
        assert opened.answered()
        opened.page.click("text=Load")
        opened.page.wait_for_selector("#off:visible")
        assert "--disable-log-stats" in opened.page.inner_text("#off")
        assert opened.problems == [] and opened.hosts == {url.split("/")[2]}


_CONTRAST = """() => {
  const rgb = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (text) => { const [r, g, b] = rgb(text).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = (each) => { for (; each; each = each.parentElement) { const color = getComputedStyle(each).backgroundColor;
    if (!/, 0\\)$/.test(color)) return color } return 'rgb(255, 255, 255)' };
  const found = {};
  const read = 'button, label, th, td, figcaption, .tile span, #model, #health, #facts dt, #facts dd, textarea';
  for (const each of document.querySelectorAll(read)) {
    if (!each.offsetParent) continue;
    const [a, b] = [light(getComputedStyle(each).color), light(behind(each))].sort((x, y) => y - x);
    found[each.tagName + (each.id || each.className)] = (a + 0.05) / (b + 0.05);
  }
  return found;
}"""
