from __future__ import annotations

import http.client
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, ImageError
from onspect.runtime.images.region import Reference, read_region

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
pytest.importorskip("fcntl", reason="the browser is driven over pipes as Linux and macOS have them")
from onspect.runtime.drawing import RegionPage
from onspect.runtime.drawing.pictures import open_pictures

from .browser import CHROMIUM, Browser

pytestmark = pytest.mark.slow

in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two pictures of 320 x 240 pixels."""
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(2):
        picture = np.full((240, 320), 60 + 40 * number, np.uint8)
        cv2.circle(picture, (160, 120), 70, (180,), -1)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


@pytest.fixture
def page(folder: Path, tmp_path: Path) -> Iterator[RegionPage]:
    """Return a page over the folder, on its own port."""
    with RegionPage(open_pictures(str(folder)), tmp_path / "roi.toml", address="127.0.0.1:0") as page:
        yield page


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


class Hand:
    """A mouse over the picture: coordinates are pixels of the picture."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        facts = browser.evaluate("(() => { const b = canvas.getBoundingClientRect(); return [b.left, b.top]; })()")
        self._corner = facts

    def _send(self, kind: str, x: float, y: float, clicks: int = 1) -> None:
        zoom, left, top = self._browser.evaluate("[zoom, left, top_]")
        place = {"x": self._corner[0] + left + x * zoom, "y": self._corner[1] + top + y * zoom}
        self._browser.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=clicks, **place)

    def drag(self, x: float, y: float, to_x: float, to_y: float) -> None:
        self._send("mousePressed", x, y)
        self._send("mouseMoved", (x + to_x) / 2, (y + to_y) / 2)
        self._send("mouseMoved", to_x, to_y)
        self._send("mouseReleased", to_x, to_y)

    def click(self, x: float, y: float) -> None:
        self._send("mousePressed", x, y)
        self._send("mouseReleased", x, y)


def open_page(browser: Browser, page: RegionPage) -> Hand:
    browser.problems.clear()
    browser.open(page.url)
    browser.wait_for(f"location.href === '{page.url}' && document.body.dataset.ready && width > 0")
    browser.wait_for("zoom > 1")
    return Hand(browser)


def ask(page: RegionPage, path: str, body: object = None) -> tuple[int, Any]:
    """Return a request's status and JSON answer."""
    connection = http.client.HTTPConnection(urlsplit(page.url).netloc, timeout=20)
    if body is None:
        connection.request("GET", path)
    else:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if answer.getheader("content-type") == "application/json" else content


@in_chromium
def test_region_is_drawn_and_read_back(browser: Browser, page: RegionPage, tmp_path: Path) -> None:
    """Rectangle, polygon, ignored area and reference are drawn by mouse and keyboard, saved, and read back."""
    hand = open_page(browser, page)
    browser.press("r")
    hand.drag(80.2, 40.3, 240.4, 200.2)
    browser.press("p")
    for corner in ((250.5, 100.5), (300.5, 100.5), (280.5, 150.5)):
        hand.click(*corner)
    browser.press("Enter")
    browser.press("i")
    hand.drag(100.2, 60.2, 119.6, 79.6)
    browser.press("f")
    hand.drag(90.2, 50.2, 229.6, 189.6)
    assert browser.evaluate("shapes.length") == 4
    browser.evaluate("document.getElementById('turn').value = 90")
    browser.press("s")
    browser.wait_for("document.getElementById('saved').dataset.state === 'on'")
    region = read_region(tmp_path / "roi.toml")
    assert region.rectangles == ((80, 40, 161, 161),)
    assert region.polygons == (((250, 100), (300, 100), (280, 150)),)
    assert region.ignored_rectangles == ((100, 60, 20, 20),)
    assert region.frame == (320, 240)
    assert region.reference == Reference(tmp_path / "good/0.png", (90, 50, 140, 140), 90.0, 0.0)
    assert page.saved.is_set()
    assert browser.problems == []


@in_chromium
def test_file_is_shown_and_changed_by_keyboard(browser: Browser, folder: Path, tmp_path: Path) -> None:
    """The content of a file is shown; arrow keys move the chosen shape, undo reverts it, Delete removes a shape."""
    path = tmp_path / "roi.toml"
    path.write_text('frame = [320, 240]\nrectangles = [[10, 20, 30, 40]]\nmask = "paint.png"\n')
    with RegionPage(open_pictures(str(folder)), path, address="127.0.0.1:0") as page:
        hand = open_page(browser, page)
        assert browser.evaluate("shapes.length") == 1
        browser.press("v")
        hand.click(25, 40)
        browser.press("ArrowRight")
        browser.press("ArrowLeft")
        browser.press("ArrowRight")
        assert browser.evaluate("[shapes[0].x, shapes[0].y]") == [11, 20]
        browser.press("u")
        browser.press("s")
        browser.wait_for("document.getElementById('saved').dataset.state === 'on' && !unsaved")
        assert read_region(path).rectangles == ((10, 20, 30, 40),)
        assert read_region(path).mask == tmp_path / "paint.png"
        before = browser.evaluate("zoom")
        browser.press("+")
        assert browser.evaluate("zoom") == pytest.approx(before * 1.25)
        browser.press("0")
        assert browser.evaluate("zoom") == pytest.approx(before)
        browser.evaluate("remove(0)")
        assert browser.evaluate("document.getElementById('empty').hidden") is False
        browser.evaluate("save()")
        browser.wait_for("!unsaved")
        assert "rectangles" not in tomllib.loads(path.read_text())
    assert browser.problems == []


@in_chromium
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (768, 1024)])
def test_page_fits_the_screen(browser: Browser, page: RegionPage, width: int, height: int) -> None:
    """The page is not wider than the screen, and the picture is seen whole."""
    browser.resize(width, height)
    try:
        open_page(browser, page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("left >= 0 && top_ >= 0")
    finally:
        browser.resize(1280, 800)


def test_page_offers_the_pictures(page: RegionPage) -> None:
    """The page gets the names and each picture with its size; an invalid number is an error."""
    status, state = ask(page, "/state")
    assert (status, state["names"], state["live"], state["newest"]) == (200, ["0.png", "1.png"], False, 1)
    status, jpeg = ask(page, "/picture?number=1")
    assert status == 200
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (240, 320)
    assert ask(page, "/picture?number=9") == (404, {"error": "there is no picture 9"})


def test_page_shows_pictures_of_12_bits(tmp_path: Path) -> None:
    """A picture of 12 bits in 16 is as bright on the page as the same picture of 8 bits."""
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((64, 64), 3000, np.uint16))
    with RegionPage(open_pictures(str(tmp_path)), tmp_path / "roi.toml", address="127.0.0.1:0") as page:
        _, jpeg = ask(page, "/picture?number=0")
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.mean() == pytest.approx(3000 * 255 / 4095, abs=2)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"number": 0, "rectangles": [[300, 0, 50, 50]]}, "does not fit into the pictures of 320x240"),
        ({"number": 0, "rectangles": [[1, 2, 3]]}, "rectangles has"),
        ({"number": 0, "rectangles": [[0, 0, 9, 9]], "ignore": {"rectangles": [[0, 0, 9, 9]]}}, "leave nothing"),
        ({"rectangles": []}, "reload the page"),
        ({"number": 7}, "there is no picture 7"),
    ],
)
def test_region_that_is_wrong_is_not_written(page: RegionPage, tmp_path: Path, body: object, words: str) -> None:
    """What cannot be used is refused with its reason, and no file is written."""
    status, answer = ask(page, "/region", body)
    assert status == 422
    assert words in answer["error"]
    assert not (tmp_path / "roi.toml").exists()
    assert not page.saved.is_set()


def test_page_is_for_this_computer_alone(folder: Path, tmp_path: Path) -> None:
    """An address that other computers reach is refused, with the way to use the page from one."""
    with pytest.raises(ChoiceError, match="ssh -L"):
        RegionPage(open_pictures(str(folder)), tmp_path / "roi.toml", address="0.0.0.0:8081")


def test_frame_of_a_camera_is_kept_as_the_reference(tmp_path: Path) -> None:
    """On a stream, the frame that was drawn on is written beside the file, as it came."""
    video = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(4):
        writer.write(np.full((48, 64, 3), 40 * number + 20, np.uint8))
    writer.release()
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    path = tmp_path / "roi.toml"
    pictures = open_pictures(str(video))
    with RegionPage(pictures, path, address="127.0.0.1:0") as page:
        status = 404
        while status == 404:
            status, _ = ask(page, "/picture")
        number = pictures.newest
        shown = pictures.read(number)
        body = {
            "number": number,
            "frame": [64, 48],
            "rectangles": [[4, 4, 40, 40]],
            "reference": {"patch": [4, 4, 30, 30]},
        }
        assert ask(page, "/region", body)[0] == 200
    region = read_region(path)
    assert region.reference is not None
    assert region.reference.picture == tmp_path / "roi-reference.png"
    assert np.array_equal(cv2.imread(str(region.reference.picture), cv2.IMREAD_UNCHANGED), shown)
    with pytest.raises(ImageError, match="no longer kept"):
        pictures.read(10**6)
