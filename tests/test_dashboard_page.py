from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onspect.runtime.errors import ImageError
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.line import Line, Models
from onspect.runtime.model.schema import Threshold
from onspect.runtime.sources.fake import FakeSource

from .tiny_model import write_model

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
pytest.importorskip("fcntl", reason="the browser is driven over pipes as Linux and macOS have them")
from onspect.runtime.dashboard import Dashboard

from .browser import CHROMIUM, Browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]

TOKEN = "a-long-enough-token"
SIZES = [(1280, 800), (1024, 768), (768, 1024), (390, 844)]


@pytest.fixture(scope="module")
def started_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a browser for all tests of this file."""
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(started_browser: Browser) -> Browser:
    """Return a browser of 1280 x 800 pixels that has forgotten the page before."""
    started_browser.open("about:blank")
    started_browser.wait_for("location.href === 'about:blank'")
    started_browser.resize(1280, 800)
    started_browser.problems.clear()
    return started_browser


@pytest.fixture
def inspector(tmp_path: Path) -> Inspector:
    """Return the tiny model with a band of review."""
    threshold = Threshold(score=0.1, map=0.1, review=0.05)
    return Inspector(write_model(tmp_path / "part.onnx", threshold=threshold))


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    """Return a dashboard on its own port."""
    with Dashboard("127.0.0.1:0", token=TOKEN) as dashboard:
        yield dashboard


def examine(inspector: Inspector, verdict: str, index: int = 0) -> Inspection:
    if verdict == "fault":
        return inspector.examine(ImageError("the picture is black"), source="camera", index=index)
    brightness = {"ok": 130, "review": 190, "ng": 250}[verdict]
    return inspector.examine(np.full((64, 64), brightness, np.uint8), source="camera", index=index)


def text(browser: Browser, name: str) -> str:
    return str(browser.evaluate(f"document.getElementById({name!r}).textContent"))


def test_line_is_seen_and_moved_through_the_page(browser: Browser, tmp_path: Path) -> None:
    """A running line's verdicts, counters and camera are read in a browser, and its threshold moved by keyboard."""
    path = write_model(tmp_path / "part.onnx", threshold=Threshold(score=0.1, map=0.1))
    models = Models({None: path}, None, Inspector, None)
    noise = np.random.default_rng(0).integers(-3, 4, (64, 64))
    source = FakeSource(
        lambda number: np.clip(noise + (250 if number % 5 == 4 else 130), 0, 255).astype(np.uint8),
        rate=20,
        name="cam 1",
    )
    dashboard = Dashboard("127.0.0.1:0", token=TOKEN)
    line = Line(models, [source], [dashboard])
    thread = threading.Thread(target=line.run)
    thread.start()
    try:
        while dashboard.url.endswith(":0/"):
            thread.join(0.01)
        browser.open(dashboard.url)
        browser.wait_for("Number(document.getElementById('count-ng').textContent) >= 3")
        assert text(browser, "verdict-word") in ("OK", "NG")
        assert "cam 1" in text(browser, "health")
        assert browser.wait_for("!document.getElementById('picture').hidden")
        assert browser.wait_for("document.querySelectorAll('#rejects img').length >= 2")
        browser.press("t")
        browser.wait_for("document.getElementById('login').open")
        browser.evaluate(f"document.getElementById('token').value = {TOKEN!r}")
        browser.press("Enter")
        browser.wait_for("document.getElementById('move').open")
        browser.evaluate(
            "document.getElementById('new-score').value = 0.9; document.getElementById('who').value = 'Anna'"
        )
        browser.press("Enter")
        browser.wait_for("document.getElementById('threshold').textContent === '0.9'")
        assert "Anna" in text(browser, "moved")
    finally:
        line.stop()
        thread.join()
    assert line.status().threshold == 0.9
    assert browser.problems == []


@pytest.mark.parametrize("verdict", ["ok", "ng", "review", "fault"])
def test_verdict_has_a_word_and_a_shape(
    browser: Browser, dashboard: Dashboard, inspector: Inspector, verdict: str
) -> None:
    """Each verdict has a large word and its own shape, not only a colour."""
    dashboard.write(examine(inspector, verdict))
    browser.open(dashboard.url)
    browser.wait_for(f"document.getElementById('verdict-word').textContent === {verdict.upper()!r}")
    assert browser.evaluate("document.getElementById('verdict-shape').getAttribute('href')") == f"#shape-{verdict}"
    height = browser.evaluate("parseFloat(getComputedStyle(document.getElementById('verdict-word')).fontSize)")
    assert height >= 80  # a tenth of the screen's height: read from three metres on a panel of 15 inches
    if verdict == "fault":
        assert "the picture is black" in text(browser, "verdict-score")


def test_old_verdict_is_not_shown_as_the_line_s(browser: Browser, inspector: Inspector) -> None:
    """If the line is gone the page says NO DATA within seconds, and no verdict stays on it."""
    with Dashboard("127.0.0.1:0") as dashboard:
        dashboard.write(examine(inspector, "ok"))
        browser.open(dashboard.url)
        browser.wait_for("document.getElementById('verdict-word').textContent === 'OK'")
    browser.wait_for("document.getElementById('verdict-word').textContent === 'NO DATA'")
    assert text(browser, "link").strip() == "No connection"


def test_keys_choose_what_is_seen(browser: Browser, dashboard: Dashboard, inspector: Inspector) -> None:
    """R stays on the last reject, L goes back to the live picture, H takes the heat map away."""
    for index, verdict in enumerate(("ng", "ok")):
        dashboard.write(examine(inspector, verdict, index))
    browser.open(dashboard.url)
    caption = "document.getElementById('caption').textContent"
    browser.wait_for(f"{caption}.startsWith('OK')")
    browser.press("r")
    browser.wait_for(f"{caption}.startsWith('NG')")
    browser.press("l")
    browser.wait_for(f"{caption}.startsWith('OK')")
    browser.press("h")
    assert browser.evaluate("document.getElementById('heat').getAttribute('aria-pressed')") == "false"


def test_reject_is_looked_at_by_keyboard(browser: Browser, dashboard: Dashboard, inspector: Inspector) -> None:
    """Enter on a reject opens it, the arrows go to its neighbours, Escape closes it."""
    for index, verdict in enumerate(("fault", "ng")):
        dashboard.write(examine(inspector, verdict, index))
    browser.open(dashboard.url)
    browser.wait_for("document.querySelectorAll('#rejects button').length === 2")
    browser.evaluate("document.querySelector('#rejects button').focus()")
    browser.press("Enter")
    browser.wait_for("document.getElementById('reject').open")
    assert text(browser, "reject-title").startswith("NG")
    browser.press("ArrowRight")
    assert text(browser, "reject-title") == "FAULT: the picture is black"
    browser.press("Escape")
    browser.wait_for("!document.getElementById('reject').open")


def test_page_fits_every_screen(browser: Browser, dashboard: Dashboard, inspector: Inspector) -> None:
    """On a panel, a tablet and a phone nothing is wider than the screen, and the verdict is in sight at once."""
    dashboard.write(examine(inspector, "review"))
    browser.open(dashboard.url)
    browser.wait_for("document.getElementById('verdict-word').textContent === 'REVIEW'")
    for width, height in SIZES:
        browser.resize(width, height)
        browser.wait_for(f"innerWidth === {width}")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        bottom = browser.wait_for(
            "(() => { const box = document.getElementById('verdict-word').getBoundingClientRect();"
            "return box.right <= innerWidth && box.bottom; })()"
        )
        assert bottom <= height


def test_every_control_has_a_name(browser: Browser, dashboard: Dashboard) -> None:
    """Buttons, pictures and fields have names for a screen reader."""
    browser.open(dashboard.url)
    browser.wait_for("document.readyState === 'complete'")
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    unnamed = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node.get("role", {}).get("value") in ("button", "textbox", "spinbutton", "image", "region", "link")
        and not node.get("name", {}).get("value")
    ]
    assert unnamed == []
    assert browser.evaluate("document.title") == "Onspect"


def test_strange_words_stay_words(browser: Browser, dashboard: Dashboard, inspector: Inspector) -> None:
    """The name of a camera or file is shown as text, with any content."""
    name = "<img src=x onerror=alert(1)>"
    dashboard.write(inspector.examine(np.full((64, 64), 250, np.uint8), source=name))
    browser.open(dashboard.url)
    browser.wait_for("document.getElementById('caption').textContent.includes('onerror')")
    browser.wait_for("document.querySelectorAll('#rejects button').length === 1")
    assert browser.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert browser.problems == []


def test_page_of_others_asks_for_the_token_first(browser: Browser, inspector: Inspector) -> None:
    """If other computers reach it, the page shows nothing before the token, and names a wrong one."""
    with Dashboard("0.0.0.0:0", token=TOKEN) as dashboard:
        dashboard.write(examine(inspector, "ng"))
        browser.open(dashboard.url.replace("0.0.0.0", "127.0.0.1"))
        browser.wait_for("document.getElementById('login').open")
        browser.evaluate("document.getElementById('token').value = 'wrong'")
        browser.press("Enter")
        browser.wait_for("document.getElementById('login-error').textContent === 'the token is wrong'")
        assert text(browser, "verdict-word") != "NG"
        browser.evaluate(f"document.getElementById('token').value = {TOKEN!r}")
        browser.press("Enter")
        browser.wait_for("document.getElementById('verdict-word').textContent === 'NG'")
