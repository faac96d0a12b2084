from __future__ import annotations

import csv
import dataclasses
import errno
import json
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from onspect.runtime.address import Options, parse_file
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.sinks.history import read_recent
from onspect.runtime.sinks.lines import CsvSink, JsonlSink, Rotation
from onspect.runtime.sinks.overlays import OverlaySink
from onspect.runtime.sinks.registry import open_sink, open_sinks

from ..verdicts import inspection


class HalfFullDisk:
    """A file on a disk with room for a number of bytes: writes the fitting part, then fails."""

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
    """If the disk fills up inside a line, OutputError is raised and the lines before it remain complete."""
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
        "from onspect.runtime.inspection.inspector import Inspection\n"
        "from onspect.runtime.inspection.verdict import Verdict\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with JsonlSink(Path(sys.argv[1])) as sink:\n"
        "    for i in range(99):\n"
        "        sink.write(Inspection.without_picture(Verdict('a', i, 't', 'ok', 0.1, 0.2, (), 1.0, 'm')))\n"
    )
    path = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = path.read_text().splitlines(keepends=True)
    assert "OutputError" in done.stderr
    assert [json.loads(line)["index"] for line in lines] == list(range(len(lines)))
    assert 2 < len(lines) < 10
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
    """Each verdict is one row below the header, with its regions as JSON and empty cells for missing values."""
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
    """If power was lost inside the last line, the next verdict starts on its own line."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"source": "a.p')
    with JsonlSink(path, append=True) as sink:
        sink.write(inspection(index=7))
    assert json.loads(path.read_bytes().splitlines()[-1])["index"] == 7


@pytest.mark.parametrize("stump", [b'{"sou', b'{"source": "a.png", "regions": [{"x"', b"{"])
def test_torn_verdict_is_cut_off(tmp_path: Path, stump: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """An unfinished verdict of a killed process is cut off, with a warning."""
    path = tmp_path / "out.jsonl"
    whole = inspection().verdict.to_json().encode() + b"\n"
    path.write_bytes(whole + stump)
    with caplog.at_level(logging.WARNING), JsonlSink(path, append=True) as sink:
        sink.write(inspection())
    assert path.read_bytes() == 2 * whole
    assert "ended inside a verdict" in caplog.text


def test_foreign_last_line_is_kept(tmp_path: Path) -> None:
    """A last line without an end that is not an unfinished verdict gets its end, and nothing is cut off."""
    path = tmp_path / "out.jsonl"
    whole = inspection().verdict.to_json().encode()
    for text in (whole, b"a note by hand"):
        path.write_bytes(text)
        with JsonlSink(path, append=True):
            pass
        assert path.read_bytes() == text + b"\n"


@pytest.mark.parametrize(("kind", "header"), [(JsonlSink, b""), (CsvSink, CsvSink.header)])
def test_rotation_parts_no_line_and_loses_none(tmp_path: Path, kind: type[JsonlSink], header: bytes) -> None:
    """Full files are set aside under numbers, newest first, each within the size, with whole lines and its header."""
    size = len(header) + 2000
    for run in range(3):
        with kind(tmp_path / "out", append=True, rotation=Rotation(size, 100)) as sink:
            for index in range(run * 20, run * 20 + 20):
                sink.write(inspection(index=index))
    files = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:] or 0))
    assert len(files) > 3
    assert files[-1].name == "out"
    found = []
    for path in files:
        data = path.read_bytes()
        assert data.startswith(header)
        assert len(data) <= size
        lines = data[len(header) :].splitlines()
        found += [json.loads(line)["index"] if not header else int(line.split(b",")[1]) for line in lines]
    assert found == list(range(60))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "sqlite"])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_record_that_is_removed_under_the_line_is_begun_anew(
    tmp_path: Path, kind: str, renamed: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verdicts after a removal or a rename (logrotate) are in a new file, with a message; none is lost."""
    monkeypatch.setattr(logging.getLogger("onspect"), "propagate", True)
    path = tmp_path / "line" / "record"
    with open_sink(f"{kind}:{path}", append=True) as sink:
        sink.write(inspection(index=0))
        sink.flush()
        for file in path.parent.iterdir():
            file.rename(tmp_path / f"aside-{file.name}") if renamed else file.unlink()
        for index in (1, 2):
            sink.write(inspection(index=index))
            sink.flush()
    if kind == "sqlite":
        assert [record.verdict.index for record in read_recent(path)] == [2, 1]
    else:
        assert len(path.read_bytes().splitlines()) == 2 + (kind == "csv")
    if renamed and kind != "sqlite":
        assert len((tmp_path / "aside-record").read_bytes().splitlines()) == 1 + (kind == "csv")
    assert [record.getMessage() for record in caplog.records if "removed or renamed" in record.getMessage()] == [
        f"{str(path)!r} was removed or renamed while verdicts were written to it; a new file is begun"
    ]


@pytest.mark.slow
def test_flush_beside_a_rotation(tmp_path: Path) -> None:
    """Files are brought to the disk while they are set aside, and none stays open."""
    with JsonlSink(tmp_path / "out.jsonl", rotation=Rotation(600, 500)) as sink:
        with ThreadPoolExecutor() as pool:
            flushes = [pool.submit(sink.flush) for _ in range(200) if sink.write(inspection()) is None]
        assert all(flush.exception() is None for flush in flushes)
        sink.flush()
        assert sink._to_sync == []
    assert sum(len(path.read_bytes().splitlines()) for path in tmp_path.iterdir()) == 200


def test_rotation_keeps_so_many(tmp_path: Path) -> None:
    """Only the requested number of older files stays, and a gap that a killed process left is filled without loss."""
    path = tmp_path / "out.jsonl"
    line = len(inspection().verdict.to_json()) + 1
    with JsonlSink(path, rotation=Rotation(line, 3)) as sink:
        for index in range(9):
            sink.write(inspection(index=index))
        (tmp_path / "out.jsonl.1").replace(tmp_path / "kept")
        sink.write(inspection(index=9))
    assert sorted(other.name for other in tmp_path.iterdir()) == [
        "kept", "out.jsonl", "out.jsonl.1", "out.jsonl.2", "out.jsonl.3"
    ]  # fmt: skip
    indices = [json.loads((tmp_path / f"out.jsonl{end}").read_text())["index"] for end in (".3", ".2", ".1", "")]
    assert indices == [5, 6, 8, 9]


def test_file_that_cannot_be_renamed_grows_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If renaming fails, as on Windows while another program reads, the file keeps growing with one warning."""

    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    path = tmp_path / "out.jsonl"
    with caplog.at_level(logging.WARNING), JsonlSink(path, rotation=Rotation(10, 3)) as sink:
        for index in range(5):
            sink.write(inspection(index=index))
    assert len(path.read_text().splitlines()) == 5
    assert caplog.text.count("the file keeps growing") == 1


def test_recent_verdicts_are_read_over_a_rotation(tmp_path: Path) -> None:
    """The last verdicts come back in order, also those in the file that was set aside; other lines are left out."""
    path = tmp_path / "out.jsonl"
    with JsonlSink(path, rotation=Rotation(1500, 9)) as sink:
        for index in range(12):
            sink.write(inspection(index=index))
    with path.open("ab") as file:
        file.write(b"a note by hand\n")
    with JsonlSink(path, append=True) as sink:
        recent = sink.read_recent(6)
    assert recent == [inspection(index=index).verdict for index in range(7, 12)]


def test_batch_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Of several verdicts that find no room together, none is left in the file."""
    path = tmp_path / "out"
    with JsonlSink(path) as sink:
        sink.write(inspection(index=0))
        whole = path.read_bytes()
        sink._file.close()  # type: ignore[union-attr]
        sink._file = HalfFullDisk(path, 500)  # type: ignore[assignment]
        with pytest.raises(OutputError, match="No space left"):
            sink.write_many([inspection(index=index) for index in range(1, 9)])
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", [JsonlSink, CsvSink])
def test_file_name_that_is_no_utf8_is_written(tmp_path: Path, kind: type[JsonlSink]) -> None:
    r"""A file name with bytes that are not UTF-8 is written as its JSON escape, \udce4, and the file stays UTF-8."""
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
    with pytest.raises(ValueError, match="give one of jsonl:FILE, csv:FILE"):
        open_sink(text, append=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jsonl:a?rotate=7x", "rotate is '7x'; give a size such as 100MB"),
        ("jsonl:a?rotate=100", "rotate is '100'; give a size such as 100MB or 5GB, at least 100000 bytes"),
        ("evidence:a?quota=5", "at least 1000000 bytes"),
        ("jsonl:a?rotate=1MB&keep=0", "keep is '0'; give a whole number from 1"),
        ("csv:a?keep=3", "keep= without rotate="),
        ("jsonl:-?rotate=1MB", "cannot rotate standard output"),
        ("jsonl:a?size=1MB", "has the option 'size'; the options are: rotate=SIZE, keep=COUNT"),
        ("evidence:a?quota=much", "quota is 'much'; give a size"),
        ("sqlite:a?days=-1", "days is '-1'; give a whole number from 1"),
        ("jsonl:a?token=abc", "the options are"),
    ],
)
def test_wrong_option_is_refused(text: str, message: str) -> None:
    """An option that a sink does not have, or a value that makes no sense, is refused with what would be right."""
    with pytest.raises(ChoiceError, match=re.escape(message)) as caught:
        open_sink(text, append=True)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(("text", "size"), [("100MB", 10**8), ("1.5 kB", 1500), ("2GiB", 2 * 1024**3), ("77", 77)])
def test_sizes(text: str, size: int) -> None:
    """Sizes are decimal with MB and GB, binary with MiB and GiB, and bytes without a unit."""
    assert Options(f"rotate={text}", {"rotate": "SIZE"}, "jsonl:a").size("rotate", smallest=1) == size


def test_question_mark_in_a_file_name(tmp_path: Path) -> None:
    """A question mark that no options follow belongs to the file's name."""
    place, options = parse_file("jsonl:what?.jsonl", {})
    assert (place, options.pairs) == ("what?.jsonl", [])
    place, options = parse_file("jsonl:a?b.jsonl?keep=2", {"keep": ""})
    assert (place, options.pairs) == ("a?b.jsonl", [("keep", "2")])


def test_evidence_is_named_in_the_database_beside_it(tmp_path: Path) -> None:
    """If pictures are kept too, each row of the database has the path of its picture; otherwise none."""
    picture = np.full((32, 32), 128, np.uint8)
    for texts in ([f"sqlite:{tmp_path}/a.db", f"evidence:{tmp_path}/pictures"], [f"sqlite:{tmp_path}/b.db"]):
        with ExitStack() as stack:
            for sink in open_sinks(texts, append=True):
                stack.enter_context(sink).write(inspection(frame=picture))
    (record,) = read_recent(tmp_path / "a.db")
    assert record.evidence is not None
    assert (tmp_path / "pictures" / record.evidence).is_file()
    assert read_recent(tmp_path / "b.db")[0].evidence is None


def overlay_sink(root: Path) -> OverlaySink:
    """Return a sink of overlays for the images below a folder."""
    return OverlaySink(root / "overlays", root=root)


def written(root: Path) -> list[str]:
    """Return the overlays below a folder."""
    return sorted(path.relative_to(root / "overlays").as_posix() for path in (root / "overlays").rglob("*.png"))


def test_overlays_mirror_the_folders(tmp_path: Path) -> None:
    """An overlay is in the subfolder of its image, and images that differ in their ending only do not meet."""
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
    """A source that is not an image, such as a file of floats, is skipped without an error."""
    with overlay_sink(tmp_path) as sink:
        sink.write(inspection(str(tmp_path / "a.tif"), frame=frame, verdict="fault", score=None, reason="no image"))
    assert written(tmp_path) == []


def test_overlay_has_the_scale_of_the_model_that_judged(tmp_path: Path) -> None:
    """After a model swap, heat map and 16-bit picture follow the new model's map threshold and white level."""
    seen = inspection("a.png", frame=np.full((300, 300), 2000, np.uint16))
    models = {"first.png": (0.5, 4095), "hotter.png": (2.0, 4095), "brighter.png": (0.5, 65535)}
    with overlay_sink(tmp_path) as sink:
        for name, (map_threshold, white_level) in models.items():
            verdict = dataclasses.replace(seen.verdict, source=str(tmp_path / name))
            sink.write(dataclasses.replace(seen, verdict=verdict, map_threshold=map_threshold, white_level=white_level))
    first, hotter, brighter = (cv2.imread(str(tmp_path / "overlays" / name)) for name in models)
    assert first is not None
    assert not np.array_equal(first, hotter)
    assert not np.array_equal(first, brighter)


def test_overlay_never_leaves_its_folder(tmp_path: Path) -> None:
    """An image named with '..' out of the root gets its overlay inside the folder of overlays."""
    root = tmp_path / "parts"
    with overlay_sink(root) as sink:
        sink.write(inspection(f"{root}/../other/b.png", frame=np.zeros((8, 8), np.uint8)))
    assert written(root) == ["b.png"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_holds_no_formula(tmp_path: Path, text: str) -> None:
    """A part id or a source that a spreadsheet would run as a formula gets an apostrophe; numbers stay numbers."""
    path = tmp_path / "out.csv"
    with open_sink(f"csv:{path}", append=False) as sink:
        sink.write(inspection(part=text, score=-1.5))
    with path.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["part"] == f"'{text}"
    assert row["score"] == "-1.5"
