"""The report in a real browser: light and dark, on a phone, a picture made large, on paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from onspect.runtime.model.schema import Threshold

from ...browser import CHROMIUM, Browser

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def page(
    onspect: Callable[..., Result],
    tmp_path_factory: pytest.TempPathFactory,
    write_model: Callable[..., Path],
    write_image: Callable[..., Path],
) -> Iterator[Browser]:
    """Open a report on a few parts in a browser."""
    root = tmp_path_factory.mktemp("seen")
    model = write_model(root / "part.onnx", threshold=Threshold(0.0062, 0.0062))
    for kind, brightnesses in (("good", [125, 128, 131, 160]), ("bright", [200, 210, 129])):
        for number, brightness in enumerate(brightnesses):
            write_image(root / f"parts/test/{kind}/{number}.png", brightness)
    result = onspect("evaluate", model, root / "parts", "-o", root / "report", "--max-fpr", "1%")
    assert result.exit_code == 0, result.output
    with Browser(root / "profile", width=1000, height=900) as browser:
        browser.open((root / "report/report.html").as_uri())
        browser.wait_for("document.readyState === 'complete' && document.querySelectorAll('.zoom').length")
        yield browser
        assert browser.problems == []


def set_scheme(page: Browser, scheme: str) -> tuple[int, int]:
    """Return how bright ground and words are, 0 to 255, for a screen that is light or dark."""
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    ground, ink = page.evaluate(
        "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name].match(/\\d+/g)[1] | 0)"
    )
    return ground, ink


def test_the_page_is_light_or_dark_as_the_screen(page: Browser) -> None:
    """Dark words on light ground, or the reverse."""
    ground, ink = set_scheme(page, "dark")
    assert ground < 60 < 180 < ink
    ground, ink = set_scheme(page, "light")
    assert ink < 60 < 180 < ground


def test_a_click_makes_a_picture_large_and_small_again(page: Browser) -> None:
    """A picture of the gallery fills the window after a click, and is as before after another."""
    width = "document.querySelector('.zoom img').getBoundingClientRect().width"
    small = page.evaluate(width)
    page.evaluate("document.querySelector('.zoom').click()")
    assert page.evaluate(width) == 1000 > 3 * small
    page.evaluate("document.querySelector('.zoom').click()")
    assert page.evaluate(width) == small


def test_the_page_fits_a_phone(page: Browser) -> None:
    """On 390 pixels nothing makes the page wider; tables scroll by themselves."""
    page.resize(390, 844)
    try:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        page.resize(1000, 900)


@pytest.mark.parametrize(("width", "height"), [(8.27, 11.69), (8.5, 11.0)])
def test_it_prints_on_a4_and_letter(page: Browser, width: float, height: float) -> None:
    """The paper is the printer's, and there are a few pages of it, no wider than the paper."""
    answer = page.call("Page.printToPDF", paperWidth=width, paperHeight=height, preferCSSPageSize=True)
    data = base64.b64decode(answer["data"])
    boxes = {tuple(map(float, box)) for box in re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data)}
    assert len(boxes) == 1
    assert boxes.pop() == pytest.approx((72 * width, 72 * height), abs=1.0)
    assert 3 <= len(re.findall(rb"/Type /Page\b", data)) <= 8
