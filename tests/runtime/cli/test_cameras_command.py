from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from click.testing import Result

from onspect.runtime.sources.cameras import discovery
from onspect.runtime.sources.cameras.gentl import SEARCH_PATH

genicam = pytest.importorskip("genicam", reason="the extra 'genicam' is not installed")
VIKY = Path(genicam.__file__).with_name("viky.cti")


class Webcam:
    """Replaces OpenCV's capture; only camera 1 exists."""

    def __init__(self, index: int) -> None:
        self.opened = index == 1

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.opened

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0}[what]

    def release(self) -> None:
        self.opened = False


find_local_cameras = discovery.find_local_cameras


def test_cameras_are_tried_where_the_system_has_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows and macOS the first indices are tried, and those that open are listed with their size."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    assert find_local_cameras() == [discovery.FoundCamera("1", "local camera, 640 x 480", "free")]


@pytest.fixture(autouse=True)
def no_local_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list does not depend on the cameras of the test machine."""
    monkeypatch.setattr(discovery, "find_local_cameras", list)


def test_cameras_are_a_table(onspect: Callable[..., Result]) -> None:
    """Each line begins with what onspect run takes."""
    result = onspect("cameras", "--cti", VIKY)
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["SOURCE", "STATUS", "CAMERA"]
    assert [line[:2] for line in lines[1:]] == [[f"genicam:{serial}", "free"] for serial in (0, 1, 2)]


def test_cameras_are_json(onspect: Callable[..., Result]) -> None:
    """With --json the same list is for programs."""
    found = json.loads(onspect("cameras", "--cti", VIKY, "--json").stdout)
    assert [sorted(camera) for camera in found] == [["name", "source", "status"]] * 3


def test_local_cameras_come_first(onspect: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """A local camera is listed by its index."""
    webcam = discovery.FoundCamera("0", "USB camera, 640 x 480", "free")
    monkeypatch.setattr(discovery, "find_local_cameras", lambda: [webcam])
    assert onspect("cameras", "--cti", VIKY).stdout.splitlines()[1].split(None, 2)[::2] == ["0", webcam.name]


def test_no_driver_is_no_failure(onspect: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a camera maker's driver the command says why industrial cameras are missing, and what to do."""
    monkeypatch.delenv(SEARCH_PATH, raising=False)
    result = onspect("cameras")
    assert (result.exit_code, result.stdout) == (0, "")
    assert SEARCH_PATH in result.stderr
    assert "no camera was found" in result.stderr


def test_missing_package_names_its_extra(onspect: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra it says what to install; if a producer was named, that is a failure."""
    monkeypatch.setitem(sys.modules, "harvesters.core", None)
    monkeypatch.setitem(sys.modules, "harvesters", None)
    assert "pip install 'onspect[genicam]'" in onspect("cameras").stderr
    result = onspect("cameras", "--cti", VIKY)
    assert result.exit_code == 1
    assert "pip install 'onspect[genicam]'" in result.stderr
