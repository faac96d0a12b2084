"""Draw docs/animation.webp: teach, run, and the dashboard at a bad part, with drawn parts.

Needs the folder that `onspect demo` leaves, and docs/dashboard.jpg.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.visualization import draw_overlay, to_bgr

HERE = Path(__file__).parent
WIDTH, HEIGHT = 960, 540
INK, GROUND = (240, 240, 240), (38, 32, 28)


def make_slide(command: str, caption: str) -> Any:
    """Return an empty slide with a command above and a caption below."""
    slide = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    cv2.putText(slide, f"$ {command}", (24, 42), cv2.FONT_HERSHEY_DUPLEX, 0.72, INK, 1, cv2.LINE_AA)
    cv2.putText(slide, caption, (24, HEIGHT - 22), cv2.FONT_HERSHEY_DUPLEX, 0.72, INK, 1, cv2.LINE_AA)
    return slide


def place(slide: Any, picture: Any, box: tuple[int, int, int, int]) -> None:
    """Fit a picture into a box (x, y, width, height) of a slide, in its centre."""
    x, y, width, height = box
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = x + (width - size[0]) // 2, y + (height - size[1]) // 2
    slide[top : top + size[1], left : left + size[0]] = small


@click.command()
@click.argument("demo", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path), default=HERE / "animation.webp", show_default=True)
def generate(demo: Path, output: Path) -> None:
    """Draw docs/animation.webp from DEMO, the folder that onspect demo made."""
    slides, times = [], []
    good = sorted((demo / "parts/train/good").glob("*.png"))[:10]
    slide = make_slide(
        "onspect teach parts/train/good -o part.onnx", "Pictures of good parts are enough to begin with."
    )
    for number, path in enumerate(good):
        place(
            slide,
            to_bgr(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)),
            (24 + number % 5 * 184, 66 + number // 5 * 212, 176, 204),
        )
        slides.append(slide.copy())
        times.append(1800 if path == good[-1] else 150)
    inspector = Inspector(demo / "part.onnx")
    for kind, name in (("good", "000"), ("dent", "003"), ("good", "001"), ("scratch", "002"), ("stain", "001")):
        inspection = next(iter(inspector.examine_many([demo / f"parts/test/{kind}/{name}.png"])))
        verdict = inspection.verdict
        assert inspection.frame is not None
        overlay = draw_overlay(inspection)
        assert overlay is not None
        slide = make_slide(
            "onspect run part.onnx rtsp://10.0.0.5/stream --dashboard 127.0.0.1:8080",
            f"{verdict.verdict.upper()}: score {verdict.score:.2f}, threshold {verdict.threshold:.2f}",
        )
        place(slide, to_bgr(inspection.frame), (24, 70, 440, 400))
        place(slide, overlay, (496, 70, 440, 400))
        slides.append(slide)
        times.append(1400)
    slide = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    place(slide, cv2.imread(str(HERE / "dashboard.jpg")), (0, 0, WIDTH, HEIGHT))
    slides.append(slide)
    times.append(3500)
    animation = cv2.Animation()
    animation.frames, animation.durations = slides, np.array(times, np.int32)
    if not cv2.imwriteanimation(str(output), animation, [cv2.IMWRITE_WEBP_QUALITY, 80]):
        raise click.ClickException(f"cannot write {output}")
    click.echo(f"wrote {output} ({output.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    generate()
