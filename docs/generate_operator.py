"""Draw docs/teach-page.jpg, docs/labels.jpg and docs/history.jpg: a line from an empty folder, taught on its pages.

    python docs/generate_operator.py base.onnx

Needs a headless Chromium and the base file of ``onspect backbone``. Parts and camera are synthetic.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from onspect.demo.parts import draw_part
from onspect.runtime.dashboard import Dashboard
from onspect.runtime.dashboard.teach_page import TeachPage
from onspect.runtime.labels.store import LabelStore, labels_path
from onspect.runtime.line import Line
from onspect.runtime.sinks.evidence import EvidenceSink
from onspect.runtime.sinks.sqlite import SqliteSink
from onspect.runtime.sources.fake import FakeSource

DOCS = Path(__file__).parent
GOOD_PARTS = 20
LINE_PARTS = 60


def draw(number: int) -> Any:
    """Draw a part; on the line every seventh has a dark line that is no defect, every eleventh a scratch."""
    picture = draw_part(np.random.default_rng([8, number]), "scratch" if number % 11 == 10 else None, 256)[0]
    if number % 7 == 3:
        picture[118:124, 60:190] //= 3
    return picture


def make_camera(first: int, *, rate: float, count: int | None = None, **options: Any) -> FakeSource:
    """Return a camera that shows parts from a number on; the taught ones come first and have no line or scratch."""

    def show(number: int) -> Any:
        if number + first < 1000:
            return draw_part(np.random.default_rng([7, number]), None, 256)[0]
        return draw(number)

    return FakeSource(show, rate=rate, count=count, name="genicam:DA0123456", **options)


@click.command()
@click.argument("base", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=DOCS, show_default=True)
def generate(base: Path, output: Path) -> None:
    """Draw the pictures of the teach page, the labels and the history with BASE."""
    sys.path.insert(0, str(DOCS.parent))
    from tests.browser import Browser

    token = secrets.token_urlsafe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        history, evidence, model = folder / "history.db", folder / "evidence", folder / "part.onnx"
        store = LabelStore(labels_path(history))

        with Browser(folder / "profile") as browser:

            def log_in() -> None:
                browser.wait_for("document.getElementById('login').open")
                browser.evaluate(f"document.getElementById('token').value = {token!r}")
                browser.press("Enter")

            with TeachPage("127.0.0.1:0", token, make_camera(0, rate=2), model, base, store) as page:
                browser.open(page.url)
                log_in()
                browser.wait_for("!document.getElementById('picture').hidden")
                browser.evaluate(
                    f"document.getElementById('count').value = {GOOD_PARTS};"
                    "document.getElementById('take-many').click()"
                )
                browser.wait_for(f"document.getElementById('taken').textContent === '{GOOD_PARTS}'")
                browser.evaluate("document.getElementById('teach').click()")
                browser.wait_for("!document.getElementById('service').disabled", 400)
                browser.evaluate("document.getElementById('who').value = 'Anna'")
                browser.wait_for("document.getElementById('verdict').textContent === 'OK'")
                browser.screenshot(output / "teach-page.jpg")
                browser.evaluate("document.getElementById('service').click()")
                page.wait()
            store.close()

            dashboard = Dashboard("127.0.0.1:0", token=token, history=history, evidence=evidence)
            sinks = [SqliteSink(history, evidence=True), EvidenceSink(evidence), dashboard]
            camera = make_camera(1000, rate=5, patience=None)
            line = Line(model, [camera], sinks, policies=["every"])
            thread = threading.Thread(target=line.run)
            thread.start()
            try:
                while line.status().judged < LINE_PARTS:
                    time.sleep(0.1)
                browser.open(dashboard.url)
                browser.evaluate("sessionStorage.setItem('onspect-who', 'Anna')")
                browser.open(dashboard.url)
                browser.wait_for("document.querySelectorAll('#rejects button').length > 3")
                browser.press("c")
                log_in()
                browser.wait_for("document.getElementById('name').open || document.getElementById('audit').open")
                if browser.evaluate("document.getElementById('name').open"):
                    browser.evaluate("document.getElementById('label-who').value = 'Anna'")
                    browser.press("Enter")
                browser.wait_for("document.getElementById('audit').open")
                browser.press("Escape")
                browser.wait_for("!document.getElementById('audit').open")
                number = browser.evaluate(
                    "state.rejects.findIndex((one) => one.index % 7 === 3 && one.index % 11 !== 10)"
                )
                browser.evaluate(f"openReject({number})")
                browser.press("g")
                browser.wait_for("!document.getElementById('reject-teach').hidden")
                browser.press("e")
                browser.wait_for("!document.getElementById('teach-accept').disabled", 300)
                browser.wait_for("[...document.querySelectorAll('#teach-changes img')].every((one) => one.complete)")
                browser.screenshot(output / "labels.jpg")
                browser.open(f"{dashboard.url}history")
                browser.wait_for("document.querySelectorAll('#parts li').length > 5")
                time.sleep(1.5)
                browser.screenshot(output / "history.jpg")
            finally:
                line.stop()
                thread.join()
    for name in ("teach-page.jpg", "labels.jpg", "history.jpg"):
        click.echo(f"wrote {output / name} ({(output / name).stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    generate()
