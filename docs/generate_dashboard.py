"""Draw docs/dashboard.jpg: a line that judges drawn parts, photographed in a headless Chromium.

Needs the model that `onspect demo -o DEMO` leaves in DEMO/part.onnx. Parts, camera and hours are synthetic.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np

from onspect.demo.parts import DEFECT_KINDS, draw_part
from onspect.runtime.dashboard import Dashboard
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.line import Line, Models
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.evidence import EvidenceSink
from onspect.runtime.sinks.sqlite import SqliteSink
from onspect.runtime.sources.fake import FakeFault, FakeSource

PICTURE = Path(__file__).with_name("dashboard.jpg")
PARTS = 260
SHARE_OF_DEFECTS = 0.07


def draw(number: int) -> Any:
    """Draw a part; the last one has a scratch."""
    rng = np.random.default_rng([7, number])
    defect = None
    if number == PARTS - 1:
        defect = "scratch"
    elif rng.random() < SHARE_OF_DEFECTS:
        defect = str(rng.choice(DEFECT_KINDS))
    return draw_part(np.random.default_rng([8, number]), defect, 256)[0]


def fill_earlier_hours(history: Path, inspector: Inspector) -> None:
    """Write the hours before this one into the history, so that the page has something to show of them."""
    rng = np.random.default_rng(3)
    good, bad = (inspector.examine(draw_part(rng, defect, 256)[0]) for defect in (None, "dent"))
    with SqliteSink(history) as sink:
        for back in range(1, 12):
            at = (datetime.now(UTC) - timedelta(hours=back)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            for number in range(int(rng.integers(230, 260))):
                one = bad if rng.random() < rng.uniform(0.03, 0.07) else good
                sink.write(replace(one, verdict=replace(one.verdict, time=at, index=number)))


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--size", default="1280x800", show_default=True, help="Width and height of the screen.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=PICTURE, show_default=True)
def generate(model: Path, size: str, output: Path) -> None:
    """Draw docs/dashboard.jpg with MODEL, the file that onspect demo made."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.browser import Browser

    def open_inspector(path: Path) -> Inspector:
        inspector = Inspector(path)
        return inspector.with_threshold(replace(inspector.threshold, review=0.97 * inspector.threshold.score))

    width, _, height = size.partition("x")
    with tempfile.TemporaryDirectory() as folder:
        history, evidence = Path(folder, "history.db"), Path(folder, "evidence")
        fill_earlier_hours(history, open_inspector(model))
        faults = {120: FakeFault("corrupt"), PARTS: FakeFault("gap")}
        source = FakeSource(draw, rate=12, faults=faults, name="genicam:DA0123456", patience=None)
        dashboard = Dashboard("127.0.0.1:0", token=secrets.token_urlsafe(), history=history, evidence=evidence)
        queued = [
            QueuedSink(sink, name, Path(folder, "spool", name.partition(":")[0]))
            for name, sink in (
                ("sqlite:history.db", SqliteSink(history, evidence=True)),
                ("evidence:pictures", EvidenceSink(evidence)),
            )
        ]
        line = Line(
            Models({None: model}, None, open_inspector, None), [source], [*queued, dashboard], policies=["every"]
        )
        thread = threading.Thread(target=line.run)
        thread.start()
        try:
            while line.status().judged < PARTS - 30:
                time.sleep(0.1)
            with Browser(Path(folder, "profile"), width=int(width), height=int(height)) as browser:
                browser.open(dashboard.url)
                browser.wait_for("document.getElementById('caption').textContent.includes('260')", 60)
                time.sleep(3)  # the last reject's picture, and the counters
                browser.screenshot(output)
        finally:
            line.stop()
            thread.join()
    click.echo(f"wrote {output} ({output.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    generate()
