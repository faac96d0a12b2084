from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result

from onspect.demo.belt import Belt, make_belt
from onspect.runtime.errors import ChoiceError
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.region import read_region
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.labels.store import LabelStore
from onspect.runtime.line import Line
from onspect.runtime.model.file import read_model_info
from onspect.runtime.presence import PresenceSettings
from onspect.runtime.presence.cut import cut_parts
from onspect.runtime.sources.base import Capture, Source

from .runtime.cameras import FedCamera
from .runtime.labels.conftest import base_file
from .runtime.teaching.conftest import draw
from .runtime.verdicts import wait_until

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
pytest.importorskip("fcntl", reason="the browser is driven over pipes as Linux and macOS have them")
from onspect.runtime.dashboard.teach_session import TeachSession

from .browser import CHROMIUM, Browser
from .test_dashboard_page import browser, started_browser, text

pytestmark = pytest.mark.slow

__all__ = ["base_file", "browser", "started_browser"]

TOKEN = "a-long-enough-token"


class Box:
    """A session with a camera; frames are seen one by one."""

    def __init__(self, folder: Path, base: Path, white_level: int = 65535) -> None:
        self.camera = FedCamera()
        self.model = folder / "new.onnx"
        self.store = LabelStore(folder / "history.labels.db")
        self.session = TeachSession(self.camera, self.model, base, self.store, copies="none", white_level=white_level)
        self.session.open()

    def show(self, frame: np.ndarray) -> None:
        before = self.session.describe()["number"]
        self.camera.show(frame)
        wait_until(lambda: self.session.describe()["number"] > before)

    def take(self, numbers: range) -> None:
        for number in numbers:
            self.show(draw(number))
            self.session.take(1)

    def teach(self) -> None:
        self.session.start_teaching()
        wait_until(lambda: self.session.describe()["phase"] != "teaching", 60.0)


@pytest.fixture
def box(tmp_path: Path, base_file: Path) -> Iterator[Box]:
    """Return a session whose camera shows the drawings of the test."""
    box = Box(tmp_path, base_file)
    yield box
    box.session.close()
    box.store.close()


def test_parts_become_a_model_in_service(box: Box) -> None:
    """Good parts are taken, taught and tried; nothing is in the model's place before it is put into service."""
    box.take(range(10))
    box.teach()
    state = box.session.describe()
    assert (state["phase"], state["taken"], state["error"]) == ("try", 10, "")
    assert "With 10 good pictures" in state["support"]
    for number, spot, verdict in ((300, False, "ok"), (301, True, "ng")):
        box.show(draw(number, spot=spot))
        _, jpeg, facts = box.session.picture()
        assert facts is not None
        assert facts["verdict"] == verdict
        assert jpeg[:2] == b"\xff\xd8"
    assert not box.model.exists()
    with pytest.raises(ChoiceError, match="your name"):
        box.session.put_into_service(" ")
    box.session.put_into_service("Anna")
    assert box.session.in_service.is_set()
    assert Inspector(box.model).inspect(draw(301, spot=True)).verdict == "ng"
    (change,) = box.store.changes()
    assert (change.kind, change.who, change.facts["pictures"]) == ("teach", "Anna", 10)
    box.session.close()
    assert Inspector(box.model).info.name == "new"
    assert sorted(path.name for path in box.model.parent.glob("new*")) == ["new-good", "new.onnx"]


class BeltCamera(Source):
    """A camera over a belt, as fast as the test takes its frames; its clock is that of 30 frames a second."""

    live = True

    def __init__(self, belt: Belt) -> None:
        super().__init__("belt")
        self._belt = belt

    def __iter__(self) -> Iterator[Capture]:
        for number in range(self._belt.frames):
            yield Capture("belt", self._belt.draw(number), captured=number / 30)


def test_parts_of_a_belt_are_taken_once_each(tmp_path: Path, base_file: Path) -> None:
    """With presence each passing part is taken once, as 'onspect parts' does, and the file fits the line."""
    belt = make_belt(12, stops=1, stop_frames=20, seed=5)
    presence = PresenceSettings(learn=2.0, window=(112, 112), white_level=4095)
    cut_parts(BeltCamera(belt), presence, tmp_path / "cut")
    model = tmp_path / "new.onnx"
    session = TeachSession(BeltCamera(belt), model, base_file, copies="none", presence=presence)
    session.take(10)
    session.open()
    wait_until(lambda: session.describe()["number"] == 12, 60.0)
    assert (session.describe()["taken"], session.describe()["wanted"]) == (10, 0)
    assert session.picture()[0] == 12
    for taken, cut in zip(sorted(session.folder.iterdir()), sorted((tmp_path / "cut/parts").iterdir()), strict=False):
        assert np.array_equal(read_image(taken), read_image(cut))
    session.start_teaching()
    wait_until(lambda: session.describe()["phase"] != "teaching", 60.0)
    assert session.describe()["error"] == ""
    session.put_into_service("Anna")
    session.close()
    assert read_model_info(model).preprocess.white_level == 4095, "that of the presence settings"
    status = Line(model, [BeltCamera(belt)], [], presence=presence, policies=["wait"]).run()
    assert status.ok + status.ng + status.review == 12
    assert status.fault == 0


def test_next_parts_are_taken_as_they_come(box: Box) -> None:
    """New parts are taken up to the requested number; a part that stays in view is taken once."""
    box.session.take(3)
    for number in (0, 0, 1, 1, 2, 3, 4):
        box.show(draw(number))
    assert (box.session.describe()["taken"], box.session.describe()["wanted"]) == (3, 0)
    box.session.remove_last()
    assert box.session.describe()["taken"] == 2
    assert len(list(box.session.folder.iterdir())) == 2


def test_pictures_of_before_are_found_again(box: Box, tmp_path: Path, base_file: Path) -> None:
    """After a restart the parts that were taken are still there."""
    box.take(range(3))
    box.session.close()
    again = Box(tmp_path, base_file)
    assert again.session.describe()["taken"] == 3
    again.take(range(3, 4))
    again.session.close()
    again.store.close()
    assert len(list(box.session.folder.glob("*.png"))) == 4


def test_region_is_what_is_inspected(box: Box) -> None:
    """A defect outside of the region raises no alarm; a region outside of the picture is refused."""
    with pytest.raises(ChoiceError, match="not inside the picture"):
        box.session.set_region((0.5, 0.5, 0.9, 0.2))
    box.session.set_region((0.0, 0.0, 0.3, 1.0))
    box.take(range(10))
    box.teach()
    assert box.session.describe()["phase"] == "try"
    box.show(draw(300, spot=True))
    facts = box.session.picture()[2]
    assert facts is not None
    assert facts["verdict"] == "ok"
    region = read_region(box.model.with_name("new-roi.toml"))
    assert (region.rectangles, region.frame) == (((0, 0, 29, 96),), (96, 96))


def test_exposure_and_focus_are_told(box: Box) -> None:
    """Dark, overexposed and blurred pictures have their own advice."""
    good = draw(0)
    box.show(good)
    assert box.session.describe()["advice"] == "Exposure and focus are good."
    for frame, words in (
        (good // 10, "dark"),
        (np.full_like(good, 255), "is white"),
        (cv2.GaussianBlur(good, (0, 0), 4), "was sharper before"),
    ):
        box.show(frame)
        assert words in box.session.describe()["advice"]


@pytest.mark.parametrize(
    ("level", "advice"), [(65535, "give --white-level 4095"), (4095, "Exposure and focus are good.")]
)
def test_a_12_bit_camera_is_taught_at_its_white_level(tmp_path: Path, base_file: Path, level: int, advice: str) -> None:
    """The page shows 12 bits as bright as 8, and the model file has the white level; without it, the page names it."""
    box = Box(tmp_path, base_file, white_level=level)
    for number in range(8):
        box.show(draw(number).astype(np.uint16) << 4)
        box.session.take(1)
    assert advice in box.session.describe()["advice"]
    shown = cv2.imdecode(np.frombuffer(box.session.picture()[1], np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (float(shown.mean()) > 0.9 * float(draw(7).mean())) == (level == 4095)
    box.teach()
    box.session.put_into_service("Anna")
    box.session.close()
    box.store.close()
    assert read_model_info(box.model).preprocess.white_level == level


def test_steps_out_of_order_are_refused(box: Box) -> None:
    """Taking without a picture, teaching too few parts, and service before a try are refused with a sentence."""
    for work, message in (
        (lambda: box.session.take(1), "no part yet"),
        (box.session.remove_last, "no part was taken"),
        (box.session.start_teaching, "take at least 2"),
        (lambda: box.session.put_into_service("Anna"), "parts are taken"),
        (lambda: box.session.take(501), "give 1 to 500"),
    ):
        with pytest.raises(ChoiceError, match=message):
            work()
    box.take(range(1))
    with pytest.raises(ChoiceError, match="taken already"):
        box.session.take(1)


def test_teaching_that_fails_says_why(box: Box) -> None:
    """If the parts cannot be taught, the page says why, and more can be taken."""
    box.show(draw(0))
    box.session.take(1)
    box.show(draw(0))
    box.session.take(1)
    box.teach()
    state = box.session.describe()
    assert state["phase"] == "take"
    assert "there is only 1 picture" in state["error"]
    box.take(range(1, 3))


def test_run_with_a_base_needs_a_page(tmp_path: Path, onspect: Callable[..., Result]) -> None:
    """Without a dashboard and its token teaching is refused, and nothing is written."""
    result = onspect("run", tmp_path / "new.onnx", tmp_path, "--base", tmp_path / "base.onnx")
    assert result.exit_code == 2
    assert "--dashboard-token" in result.stderr
    result = onspect("run", tmp_path / "new.onnx", tmp_path, "--white-level", "4095")
    assert result.exit_code == 2
    assert "--white-level needs --base" in result.stderr
    assert list(tmp_path.iterdir()) == []


def drag(browser: Browser, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a rectangle on the picture with the mouse; places are shares of the picture."""
    box = "[b.stage.left + b.left, b.stage.top + b.top, b.width, b.height]"
    script = f"(() => {{ const b = pictureBox(); return {box}; }})()"
    left, top, width, height = browser.evaluate(script)
    moves = (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end))
    for kind, (x, y) in moves:
        place = {"x": left + x * width, "y": top + y * height, "button": "left", "buttons": 1, "clickCount": 1}
        browser.call("Input.dispatchMouseEvent", type=kind, **place)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_empty_box_becomes_a_running_line(browser: Browser, tmp_path: Path, base_file: Path) -> None:
    """From a folder with nothing but base.onnx to the first NG of a running line, on the page alone."""
    shutil.copy(base_file, tmp_path / "base.onnx")
    (tmp_path / "camera").mkdir()
    sink = ["--sink", "sqlite:history.db"]
    page = ["--base", "base.onnx", "--dashboard", "127.0.0.1:0", "--dashboard-token", "env:TOKEN"]
    process = subprocess.Popen(
        [sys.executable, "-m", "onspect.runtime", "run", "new.onnx", "watch:camera?poll=0.05", *sink, *page],
        cwd=tmp_path,
        env=os.environ | {"TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url = re.search(r"http://\S+", process.stderr.readline())
        assert url is not None
        count = 0

        def show(number: int, *, spot: bool = False) -> None:
            nonlocal count
            count += 1
            temporary = tmp_path / "next.png"
            cv2.imwrite(str(temporary), draw(number, spot=spot))
            temporary.replace(tmp_path / "camera" / f"{count:03}.png")

        browser.open(url.group())
        browser.wait_for("document.getElementById('login').open")
        browser.evaluate(f"document.getElementById('token').value = {TOKEN!r}")
        browser.press("Enter")
        browser.wait_for("document.getElementById('link').dataset.state === 'on'")
        show(0)
        browser.wait_for("!document.getElementById('picture').hidden")
        browser.press(" ")
        browser.wait_for("document.getElementById('taken').textContent === '1'")
        browser.evaluate("document.getElementById('count').value = 9; document.getElementById('take-many').click()")
        browser.wait_for("document.getElementById('wanted').textContent.startsWith('9 more')")
        for number in range(1, 10):
            show(number)
            browser.wait_for(f"document.getElementById('taken').textContent === '{number + 1}'")
        drag(browser, (0.05, 0.05), (0.95, 0.95))
        browser.wait_for("!document.getElementById('region').hidden && state.region")
        browser.evaluate("document.getElementById('teach').click()")
        browser.wait_for("!document.getElementById('service').disabled", 300.0)
        assert "With 10 good pictures" in text(browser, "progress")
        show(300, spot=True)
        browser.wait_for("document.getElementById('verdict').textContent === 'NG'")
        assert not (tmp_path / "new.onnx").exists()
        browser.evaluate("document.getElementById('who').value = 'Anna'; document.getElementById('service').click()")
        browser.wait_for("document.getElementById('verdict-word') !== null")
        browser.wait_for("document.getElementById('link').textContent.includes('Running')")
        show(301, spot=True)
        browser.wait_for("document.getElementById('verdict-word').textContent === 'NG'")
        assert [problem for problem in browser.problems if "ERR_" not in problem] == []  # between the two servers
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    store = LabelStore(tmp_path / "history.labels.db")
    assert [(change.kind, change.who) for change in store.changes()][:1] == [("teach", "Anna")]
    store.close()
