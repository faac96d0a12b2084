from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onspect.runtime.labels.store import LabelStore
from onspect.runtime.status import SourceState

from .runtime.labels.conftest import base_file, parts, taught, taught_once
from .runtime.verdicts import line_status

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
pytest.importorskip("fcntl", reason="the browser is driven over pipes as Linux and macOS have them")
from onspect.runtime.dashboard import Dashboard
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.sinks.evidence import EvidenceSink
from onspect.runtime.sinks.sqlite import SqliteSink

from .browser import CHROMIUM, Browser
from .runtime.labels.test_lessons import Running
from .test_dashboard_page import SIZES, browser, dashboard, examine, inspector, started_browser, text

__all__ = ["base_file", "browser", "dashboard", "inspector", "parts", "started_browser", "taught", "taught_once"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]

TOKEN = "a-long-enough-token"
WORD = "document.getElementById('verdict-word').textContent"
KIND = "document.getElementById('verdict').dataset.verdict"


def grow_old(dashboard: Dashboard, seconds: float) -> None:
    """Let the last part have come so long ago."""
    shown = dashboard._app_state.displayed._shown
    shown["latest"] = dataclasses.replace(shown["latest"], came=time.monotonic() - seconds)


def enter_token(browser: Browser, name: str | None = "Anna") -> None:
    """Log in, and give a name if the page asks for one."""
    browser.wait_for("document.getElementById('login').open")
    browser.evaluate(f"document.getElementById('token').value = {TOKEN!r}")
    browser.press("Enter")
    if name is not None:
        browser.wait_for("document.getElementById('name').open")
        browser.evaluate(f"document.getElementById('label-who').value = {name!r}")
        browser.press("Enter")


def test_old_verdict_fades_to_waiting(browser: Browser, dashboard: Dashboard, inspector: Inspector) -> None:
    """An OK of three seconds ago is faded; one of a minute ago is WAITING, with the last verdict in small words."""
    dashboard.write(examine(inspector, "ok"))
    grow_old(dashboard, 3.0)
    browser.open(dashboard.url)
    browser.wait_for(f"{WORD} === 'OK' && document.getElementById('verdict').classList.contains('fading')")
    grow_old(dashboard, 60.0)
    browser.wait_for(f"{WORD} === 'WAITING' && {KIND} === 'none'")
    assert text(browser, "verdict-score") == "for the next part; the last one was OK, camera"
    dashboard.write(examine(inspector, "ng", 1))
    browser.wait_for(f"{WORD} === 'NG' && !document.getElementById('verdict').classList.contains('fading')")


def test_lost_camera_is_louder_than_the_other_one_s_ok(
    browser: Browser, dashboard: Dashboard, inspector: Inspector
) -> None:
    """With two cameras, one of them lost, the page says NO CAMERA and which, however many parts of the other are OK."""
    both = (SourceState("cam 1", connected=True), SourceState("cam 2", connected=False))
    dashboard.write(examine(inspector, "ok"))
    dashboard.report(line_status(sources=(both[0], SourceState("cam 2", connected=True))))
    browser.open(dashboard.url)
    browser.wait_for(f"{WORD} === 'OK'")
    dashboard.report(line_status(sources=both))
    browser.wait_for(f"{WORD} === 'NO CAMERA' && {KIND} === 'lost'")
    assert text(browser, "verdict-score") == "cam 2 is away; 1 other connected"
    dashboard.write(examine(inspector, "ok", 1))
    browser.wait_for("document.getElementById('caption').textContent.includes('no. 2')")
    assert browser.evaluate(WORD) == "NO CAMERA"


def test_tile_and_picture_are_of_the_same_part(browser: Browser, dashboard: Dashboard, inspector: Inspector) -> None:
    """While the picture of the newest part is not there yet, the tile shows the part on the screen, and its camera."""
    dashboard.write(examine(inspector, "ok"))
    browser.open(dashboard.url)
    browser.wait_for("document.getElementById('caption').textContent.startsWith('OK')")
    assert text(browser, "verdict-source") == "camera"
    newer = "{...state.data, number: 2, latest: {...state.data.latest, number: 2, verdict: 'ng'}}"
    seen = browser.evaluate(f"(state.data = {newer}, render(), {WORD})")
    assert seen == "OK"
    assert browser.evaluate(f"(state.data = {newer}, state.shownAt -= 5000, render(), {WORD})") == "NG"


def test_part_is_labelled_by_key(browser: Browser, taught: Path) -> None:
    """G labels the part on the screen after token and name were given once; B labels an opened reject."""
    with Running(taught) as running:
        running.judge(300)
        running.judge(400, spot=False)
        browser.open(running.dashboard.url)
        browser.evaluate("sessionStorage.clear()")
        browser.wait_for("document.getElementById('caption').textContent.startsWith('OK')")
        browser.press("b")
        enter_token(browser)
        browser.wait_for("document.getElementById('toast').textContent.startsWith('Labelled bad: cam 1, no. 2')")
        browser.wait_for("document.querySelectorAll('#rejects button').length === 1")
        browser.evaluate("document.querySelector('#rejects button').click()")
        browser.press("g")
        browser.wait_for("document.getElementById('reject-label').textContent === 'labelled good by Anna'")
        assert browser.problems == []
    store = LabelStore(taught.with_name("history.labels.db"))
    assert {(one.key.index, one.label, one.who) for one in store.list_pictures(labelled=True)} == {
        (0, "good", "Anna"),
        (1, "bad", "Anna"),
    }
    store.close()


def test_part_is_taught_and_taken_back_through_the_page(browser: Browser, taught: Path) -> None:
    """A false reject is labelled, previewed and taught, and the next part passes; the log undoes it."""
    with Running(taught) as running:
        for number in (300, 301):
            assert running.judge(number).verdict == "ng"
        browser.open(running.dashboard.url)
        browser.evaluate("sessionStorage.clear()")
        browser.wait_for("document.querySelectorAll('#rejects button').length === 2")
        browser.evaluate("document.querySelector('#rejects button').click()")
        browser.press("g")
        enter_token(browser)
        browser.wait_for("!document.getElementById('reject-teach').hidden")
        browser.press("e")
        browser.wait_for("!document.getElementById('teach-accept').disabled")
        assert "2 verdicts would change" in text(browser, "teach-words")
        assert browser.evaluate("document.querySelectorAll('#teach-changes li').length") == 2
        browser.evaluate("document.getElementById('teach-accept').click()")
        browser.wait_for("!document.getElementById('teach').open")
        assert running.judge(302).verdict == "ok"
        browser.press("Escape")
        browser.wait_for("!document.getElementById('reject').open")
        browser.press("c")
        browser.wait_for("document.querySelectorAll('#audit-rows li').length >= 2")
        assert text(browser, "audit-state") == "1 good and 0 bad labels; the log is complete"
        browser.evaluate("document.getElementById('undo').click()")
        browser.wait_for("document.getElementById('audit-note').textContent.startsWith('Undone')")
        assert running.judge(303).verdict == "ng"
        assert browser.problems == []


def test_threshold_from_labels_takes_a_second_click(browser: Browser, taught: Path) -> None:
    """The proposal says its interval and moves nothing; the second click moves the threshold."""
    with Running(taught) as running:
        running.client.log_in()
        for number, label in ((400, "good"), (300, "bad")):
            verdict = running.judge(number, spot=label == "bad")
            key = {"time": verdict.time, "index": verdict.index, "source": verdict.source}
            running.client.post("/labels", key | {"label": label, "who": "Ben"})
        before = running.line.status().threshold
        browser.open(running.dashboard.url)
        browser.evaluate("sessionStorage.clear()")
        browser.wait_for("!document.getElementById('changes').hidden")
        browser.press("c")
        enter_token(browser)
        browser.wait_for("document.getElementById('audit').open")
        browser.evaluate("document.getElementById('propose').click()")
        browser.wait_for("!document.getElementById('apply-proposal').hidden")
        assert "Of 1 bad parts it misses 0: below 95.0 %" in text(browser, "audit-note")
        assert running.line.status().threshold == before
        browser.evaluate("document.getElementById('apply-proposal').click()")
        browser.wait_for("document.getElementById('audit-rows').textContent.includes('Threshold')")
        running.judge(401, spot=False)
        assert running.line.status().threshold != before
        assert browser.problems == []


def test_page_without_a_history_has_no_label_buttons(
    browser: Browser, dashboard: Dashboard, inspector: Inspector
) -> None:
    """If labels cannot be kept the page shows no buttons for them, and their keys do nothing."""
    dashboard.write(examine(inspector, "ng"))
    browser.open(dashboard.url)
    browser.wait_for("document.getElementById('caption').textContent.startsWith('NG')")
    assert browser.evaluate("document.getElementById('live-labels').hidden")
    browser.press("g")
    assert not browser.evaluate("document.querySelector('dialog[open]') !== null")


def test_history_is_searched_on_the_page(browser: Browser, inspector: Inspector, tmp_path: Path) -> None:
    """Rejects are listed with their pictures; a click on a place narrows them; the page fits every screen."""
    items = [examine(inspector, verdict, index) for index, verdict in enumerate(("ng", "ok", "fault", "ng"))]
    with SqliteSink(tmp_path / "history.db", evidence=True) as sink, EvidenceSink(tmp_path / "evidence") as evidence:
        sink.write_many(items)
        evidence.write_many(items)
    with Dashboard("127.0.0.1:0", history=tmp_path / "history.db", evidence=tmp_path / "evidence") as dashboard:
        browser.open(f"{dashboard.url}history")
        browser.wait_for("document.querySelectorAll('#parts li').length === 3")
        assert text(browser, "counts") == "3 parts: 2 NG, 1 FAULT, 0.0 % OK"
        browser.wait_for("document.querySelector('#parts img').naturalWidth > 0")
        browser.evaluate("document.querySelector('#places button').click()")
        browser.wait_for("document.querySelectorAll('#parts li').length === 2")
        browser.evaluate("document.getElementById('clear-place').click()")
        browser.evaluate("document.getElementById('verdict').value = ''")
        browser.evaluate("document.getElementById('verdict').onchange()")
        browser.wait_for("document.querySelectorAll('#parts li').length === 4")
        for width, height in SIZES:
            browser.resize(width, height)
            browser.wait_for(f"innerWidth === {width}")
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.problems == []


def test_past_parts_are_labelled_on_the_history_page(browser: Browser, taught: Path) -> None:
    """On the history page a part is labelled by click, and the next one by arrow key and B; both are there again."""
    history = taught.with_name("history.db")
    with Running(taught) as running, SqliteSink(history) as sink:
        sink.write_many([Inspection.without_picture(running.judge(number)) for number in (300, 301)])
        lost = dataclasses.replace(running.judge(302), time="2026-01-01T00:00:00.000Z")
        sink.write(Inspection.without_picture(lost))
        browser.open(f"{running.dashboard.url}history")
        browser.evaluate("sessionStorage.clear()")
        browser.wait_for("document.querySelectorAll('#parts [data-give]').length === 6")
        gone, second, first = (f"document.querySelectorAll('#parts li')[{number}]" for number in range(3))
        assert browser.evaluate(f"{gone}.querySelector('[data-give=good]').disabled")
        browser.evaluate(f"{second}.querySelector('[data-give=good]').click()")
        enter_token(browser)
        browser.wait_for(f"{second}.dataset.label === 'good'")
        browser.evaluate(f"{second}.focus()")
        browser.press("ArrowRight")
        assert browser.evaluate(f"document.activeElement === {first}")
        browser.press("b")
        browser.wait_for(f"{first}.dataset.label === 'bad'")
        browser.open(f"{running.dashboard.url}history")
        browser.wait_for("document.querySelectorAll('#parts [data-label]').length === 2")
        assert browser.evaluate(f"{first}.querySelector('.note').textContent") == "by Anna"
        assert browser.evaluate(f"{second}.querySelector('[data-give=good]').ariaPressed") == "true"
        assert browser.problems == []


@pytest.fixture(autouse=True)
def no_name(browser: Browser) -> Iterator[None]:
    """Forget the page after each test."""
    yield
    browser.open("about:blank")
