"""Draw docs/roi.jpg: the page of `onspect roi`, photographed in a headless Chromium. The part is synthetic."""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import click
import cv2
import numpy as np

from onspect.demo.parts import draw_part
from onspect.runtime.drawing import RegionPage
from onspect.runtime.drawing.pictures import open_pictures
from onspect.runtime.images.region import Reference, RegionFile, format_region

PICTURE = Path(__file__).with_name("roi.jpg")


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=PICTURE, show_default=True)
def generate(output: Path) -> None:
    """Draw docs/roi.jpg."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.browser import Browser

    rng = np.random.default_rng(5)
    frame = np.clip(40.0 + rng.normal(0.0, 1.5, (480, 640)), 0, 255).astype(np.uint8)
    frame[90:390, 180:480] = draw_part(rng, None, 300)[0]
    circle = tuple(
        (round(330 + 132 * math.cos(math.radians(turn))), round(240 + 132 * math.sin(math.radians(turn))))
        for turn in range(0, 360, 15)
    )
    region = RegionFile(
        polygons=(circle,),
        ignored_rectangles=((298, 208, 64, 64),),
        frame=(640, 480),
        reference=Reference(None, (194, 104, 272, 272), 180.0, 0.0),
    )
    with tempfile.TemporaryDirectory() as folder:
        picture, file = Path(folder, "000.png"), Path(folder, "roi.toml")
        cv2.imwrite(str(picture), frame)
        file.write_text(format_region(region, Path(folder)))
        with (
            RegionPage(open_pictures(str(picture)), file, address="127.0.0.1:0") as page,
            Browser(Path(folder, "profile"), width=1280, height=800) as browser,
        ):
            browser.open(page.url)
            browser.wait_for("document.body.dataset.ready && width > 0 && zoom > 1")
            browser.evaluate("document.getElementById('output').textContent = 'roi.toml'; chosen = 0; list(); draw()")
            browser.screenshot(output)
    click.echo(f"wrote {output} ({output.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    generate()
