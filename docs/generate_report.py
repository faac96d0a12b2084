"""Draw docs/report.jpg: the beginning of a report on the screen, and a printed page of it.

    python docs/generate_report.py report/report.html docs/report.jpg

Needs a headless Chromium, and pdftoppm of Poppler. docs/report-before.jpg shows page 4 of the report that release 0.1.0
makes with the same model file and the same images.
"""

from __future__ import annotations

import base64
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import cv2
import numpy as np

ROOT = Path(__file__).parents[1]
HEIGHT = 980  # of the picture, in pixels
SCREEN = 960, 1344  # pixels
A4 = {"paperWidth": 8.27, "paperHeight": 11.69}  # inches
QUALITY = 54


@click.command()
@click.argument("report", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--page", type=click.IntRange(min=1), default=4, show_default=True, help="The printed page to show.")
def generate(report: Path, output: Path, page: int) -> None:
    """Draw the picture OUTPUT of the page REPORT."""
    sys.path.insert(0, str(ROOT))
    from tests.browser import Browser

    with (
        tempfile.TemporaryDirectory() as name,
        Browser(Path(name, "profile"), width=SCREEN[0], height=SCREEN[1]) as browser,
    ):
        browser.open(report.resolve().as_uri())
        browser.wait_for("document.readyState === 'complete' && document.images.length > 0")
        browser.screenshot(Path(name, "screen.png"))
        pdf = browser.call("Page.printToPDF", **A4)["data"]
        Path(name, "report.pdf").write_bytes(base64.b64decode(pdf))
        one = ("-f", str(page), "-l", str(page), "-singlefile")
        scale = ("-scale-to-x", "-1", "-scale-to-y", str(HEIGHT))
        subprocess.run(["pdftoppm", *one, *scale, "-png", "report.pdf", "page"], cwd=name, check=True)  # noqa: S603, S607
        screen, printed = (cv2.imread(str(Path(name, f"{part}.png"))) for part in ("screen", "page"))
    screen = cv2.resize(screen, (HEIGHT * SCREEN[0] // SCREEN[1], HEIGHT), interpolation=cv2.INTER_AREA)
    gap = np.full((HEIGHT, 12, 3), 160, np.uint8)
    cv2.imwrite(str(output), np.hstack([screen, gap, printed]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    click.echo(f"wrote {output} ({output.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    generate()
