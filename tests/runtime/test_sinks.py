from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.errors import OutputError
from onspect.runtime.inspector import Inspection
from onspect.runtime.sinks import open_sink
from onspect.runtime.sinks.lines import CsvSink, JsonlSink
from onspect.runtime.sinks.overlays import OverlaySink
from onspect.runtime.verdict import Region, Verdict

REGION = Region(1, 2, 3, 4, 0.75, 12)


def inspection(source: str = "a.png", index: int = 0, frame: NDArray[Any] | None = None, **facts: Any) -> Inspection:
    """Return an inspection of a part that is ng."""
    common: dict[str, Any] = {"time": "2026-01-01T00:00:00.000Z", "verdict": "ng", "score": 0.5, "threshold": 0.25}
    verdict = Verdict(source, index, **(common | {"regions": (REGION,), "latency_ms": 1.5, "model": "m"} | facts))
    return Inspection(verdict, frame, None if frame is None else np.ones((4, 4), np.float32))


class HalfFullDisk:
    """A file on a disk with room for so many bytes more: writes what fits, then fails."""

    def __init__(self, path: Path, room: int) -> None:
        self._file = path.open("r+b", buffering=0)
        self._file.seek(0, os.SEEK_END)
        self._room = room
        self.truncate, self.close = self._file.truncate, self._file.close

    def write(self, data: bytes) -> int:
        """Write what fits."""
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._file.write(data[: self._room])
        self._room -= written
        return written


@pytest.mark.parametrize("kind", [JsonlSink, CsvSink])
def test_full_disk_leaves_whole_lines(tmp_path: Path, kind: type[JsonlSink]) -> None:
    """Where the disk fills up inside a line, OutputError is raised and the lines before it remain, whole."""
    path = tmp_path / "out"
    with kind(path) as sink:
        sink.write(inspection(index=0))
        whole = path.read_bytes()
        sink._file.close()  # type: ignore[union-attr]
        sink._file = HalfFullDisk(path, 25)  # type: ignore[assignment]
        with pytest.raises(OutputError, match="No space left on device; the 1 verdicts before"):
            sink.write(inspection(index=1))
    assert path.read_bytes() == whole
    assert whole.endswith(b"\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file-size limit")
def test_really_limited_file_holds_whole_lines(tmp_path: Path) -> None:
    """A process whose files may not grow beyond 1000 bytes ends with an error and whole lines."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from onspect.runtime.sinks.lines import JsonlSink\n"
        "from onspect.runtime.inspector import Inspection; from onspect.runtime.verdict import Verdict\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with JsonlSink(Path(sys.argv[1])) as sink:\n"
        "    for i in range(99):\n"
        "        sink.write(Inspection(Verdict('a', i, 't', 'ok', 0.1, 0.2, (), 1.0, 'm'), None, None))\n"
    )
    path = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = path.read_text().splitlines(keepends=True)
    assert "OutputError" in done.stderr
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
    assert 3 < len(lines) < 10
    assert lines[-1].endswith("\n")


def test_jsonl_is_a_line_for_each_verdict(tmp_path: Path) -> None:
    """Each verdict is one line of JSON, equal to the verdict, in a folder that is made where missing."""
    items = [inspection(index=index, source=f"Teil\n{index} ü.png") for index in range(3)]
    path = tmp_path / "new" / "out.jsonl"
    with JsonlSink(path) as sink:
        for item in items:
            sink.write(item)
    lines = path.read_text("utf-8").splitlines()
    assert [json.loads(line)["source"] for line in lines] == [item.verdict.source for item in items]


def test_csv_is_a_row_for_each_verdict(tmp_path: Path) -> None:
    """Each verdict is one row below the header, with its regions as JSON and nothing for what it lacks."""
    path = tmp_path / "out.csv"
    with CsvSink(path) as sink:
        sink.write(inspection(source='a, "b"\n.png'))
        sink.write(inspection(verdict="fault", score=None, reason="broken"))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(inspection().verdict.to_dict())
    assert rows[0]["source"] == 'a, "b"\n.png'
    assert json.loads(rows[0]["regions"])[0]["width"] == 3
    assert (rows[1]["score"], rows[1]["reason"]) == ("", "broken")


@pytest.mark.parametrize(("kind", "header"), [(JsonlSink, 0), (CsvSink, 1)])
def test_append_keeps_what_is_there(tmp_path: Path, kind: type[JsonlSink], header: int) -> None:
    """Appending keeps the lines of earlier runs and writes the header of CSV once; otherwise the file is replaced."""
    path = tmp_path / "out"
    for append, expected in ((True, 1), (True, 2), (False, 1)):
        with kind(path, append=append) as sink:
            sink.write(inspection())
        assert len(path.read_bytes().splitlines()) == expected + header


def test_append_does_not_glue_to_a_stump(tmp_path: Path) -> None:
    """Where power was lost inside the last line, the next verdict starts on a line of its own."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"source": "a.p')
    with JsonlSink(path, append=True) as sink:
        sink.write(inspection(index=7))
    assert json.loads(path.read_bytes().splitlines()[-1])["index"] == 7


@pytest.mark.parametrize("kind", [JsonlSink, CsvSink])
def test_file_name_that_is_no_utf8_is_written(tmp_path: Path, kind: type[JsonlSink]) -> None:
    r"""A file name with bytes that are no UTF-8 is written as its JSON escape, \udce4, and the file stays UTF-8."""
    path = tmp_path / "out"
    with kind(path) as sink:
        sink.write(inspection(source="Pr\udce4fling.png"))
    assert r"Pr\udce4fling.png" in path.read_text("utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_at_the_start_is_an_output_error() -> None:
    """A device that takes nothing raises OutputError from the first verdict on."""
    with JsonlSink(Path("/dev/full")) as sink, pytest.raises(OutputError, match="No space left"):
        sink.write(inspection())


def test_folder_as_a_file_is_an_output_error(tmp_path: Path) -> None:
    """A folder in the place of the file raises OutputError."""
    with pytest.raises(OutputError, match="Is a directory"), JsonlSink(tmp_path):
        pass


@pytest.mark.parametrize("text", ["jsonl", "jsonl:", "xml:a", "out.jsonl", ""])
def test_unknown_sink_is_refused(text: str) -> None:
    """A sink that is not known raises ValueError with the forms that are."""
    with pytest.raises(ValueError, match="give jsonl:FILE or csv:FILE"):
        open_sink(text, append=True)


def overlay_sink(root: Path) -> OverlaySink:
    """Return a sink of overlays for the images below a folder."""
    return OverlaySink(root / "overlays", root=root, map_threshold=0.5, white_level=4095)


def written(root: Path) -> list[str]:
    """Return the overlays below a folder."""
    return sorted(path.relative_to(root / "overlays").as_posix() for path in (root / "overlays").rglob("*.png"))


def test_overlays_mirror_the_folders(tmp_path: Path) -> None:
    """An overlay lies in the subfolder of its image, and images that differ in their ending only do not meet."""
    with overlay_sink(tmp_path) as sink:
        for name in ("a.png", "sub/a.png", "sub/a.jpg", "sub/../other/b.tif"):
            sink.write(inspection(str(tmp_path / name), frame=np.zeros((8, 8), np.uint8)))
    assert written(tmp_path) == ["a.png", "other/b.png", "sub/a.jpg.png", "sub/a.png"]


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((1, 1), np.uint8),
        np.zeros((20, 3, 3), np.uint8),
        np.full((8, 8, 1), 4095, np.uint16),
        np.zeros((1, 20_000), np.uint8),
        np.zeros((300, 280), np.uint8),
    ],
)
def test_overlay_is_a_readable_picture(tmp_path: Path, frame: NDArray[Any]) -> None:
    """Overlays of the smallest, longest, deepest images are colour pictures of a size that can be looked at."""
    with overlay_sink(tmp_path) as sink:
        sink.write(inspection(str(tmp_path / "a.png"), frame=frame))
    picture = cv2.imread(str(tmp_path / "overlays" / "a.png"))
    assert picture is not None
    assert picture.shape[1] >= frame.shape[1]
    assert picture.size < 3 * 1e7


@pytest.mark.parametrize(
    "frame", [None, np.zeros((4, 4), np.float64), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_fault_without_a_picture_has_no_overlay(tmp_path: Path, frame: NDArray[Any] | None) -> None:
    """What is no image, such as a file of floats, is passed over without an error."""
    with overlay_sink(tmp_path) as sink:
        sink.write(inspection(str(tmp_path / "a.tif"), frame=frame, verdict="fault", score=None, reason="no image"))
    assert written(tmp_path) == []


def test_overlay_never_leaves_its_folder(tmp_path: Path) -> None:
    """An image named with '..' out of the root gets its overlay inside the folder of overlays."""
    root = tmp_path / "parts"
    with overlay_sink(root) as sink:
        sink.write(inspection(f"{root}/../other/b.png", frame=np.zeros((8, 8), np.uint8)))
    assert written(root) == ["b.png"]
