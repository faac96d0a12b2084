from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, GapError, ImageError
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.line import Line, Models
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sources.base import Capture, Retry
from onspect.runtime.sources.registry import open_source
from onspect.runtime.sources.watch import WatchSource

from ...image_makers import make_tiff

PICTURE = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))[1].tobytes()


def watch(folder: Path, done: Path | None = None, *, grace: float = 0.3) -> WatchSource:
    """Return a watched folder that is looked at often, and again soon where it is lost."""
    return WatchSource(folder, done=done, poll=0.02, grace=grace, retry=Retry(first=0.02))


def names(captures: Iterator[Capture], count: int) -> list[str]:
    """Return the names of the next files."""
    return [Path(capture.source).name for capture in itertools.islice(captures, count)]


def later(work: Callable[[], object], seconds: float = 0.1) -> None:
    """Do something in a moment."""
    threading.Timer(seconds, work).start()


def test_new_images_are_taken_and_old_ones_left_alone(tmp_path: Path) -> None:
    """Images that come are taken in the order of their times; those from before, hidden ones and others are not."""
    (tmp_path / "old.png").write_bytes(PICTURE)

    def bring() -> None:
        for name in ("b.png", "a.png", ".hidden.png", "notes.txt"):
            (tmp_path / name).write_bytes(PICTURE)
            time.sleep(0.02)

    with watch(tmp_path) as source:
        captures = iter(source)
        later(bring)
        assert names(captures, 2) == ["b.png", "a.png"]
        later(source.stop, 0.2)
        assert list(captures) == []


def test_no_half_written_image_is_taken(tmp_path: Path) -> None:
    """An image that is written slowly, with pauses, is taken once and whole."""

    def write_slowly() -> None:
        with (tmp_path / "slow.png").open("wb", buffering=0) as file:
            for start in range(0, len(PICTURE), len(PICTURE) // 4):
                file.write(PICTURE[start : start + len(PICTURE) // 4])
                time.sleep(0.1)  # longer than two looks

    with watch(tmp_path) as source:
        captures = iter(source)
        later(write_slowly)
        capture = next(captures)
        assert isinstance(capture.frame, np.ndarray)
        assert np.array_equal(capture.frame, cv2.imdecode(np.frombuffer(PICTURE, np.uint8), cv2.IMREAD_UNCHANGED))
        later(source.stop, 0.2)
        assert list(captures) == []


def test_an_image_that_stays_cut_is_a_fault(tmp_path: Path) -> None:
    """A file that never becomes a whole image is an ImageError, once."""
    with watch(tmp_path) as source:
        captures = iter(source)
        later(lambda: (tmp_path / "cut.png").write_bytes(PICTURE[:-100]), 0.05)
        assert isinstance(next(captures).frame, ImageError)
        later(source.stop, 0.2)
        assert list(captures) == []


def test_what_came_last_is_judged_or_a_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the source is stopped, a whole image is taken, and a cut one or one of two pages is a fault at once."""
    pages = make_tiff(np.zeros((8, 8), np.uint8), following=make_tiff(np.zeros((8, 8), np.uint8)))

    def bring() -> None:
        (tmp_path / "cut.png").write_bytes(PICTURE[:-100])
        (tmp_path / "pages.tif").write_bytes(pages)
        (tmp_path / "other.heic").write_bytes(b"x")
        (tmp_path / "gone.png").write_bytes(PICTURE[:-100])
        time.sleep(0.3)
        (tmp_path / "gone.png").unlink()
        time.sleep(0.1)
        (tmp_path / "whole.png").write_bytes(PICTURE)
        (tmp_path / "today").mkdir()
        (tmp_path / "today" / "whole.png").write_bytes(PICTURE)
        source.stop()

    with watch(tmp_path, grace=60.0) as source:
        captures = iter(source)
        later(bring)
        found = {Path(capture.source).name: capture.frame for capture in captures}
    assert set(found) == {"cut.png", "pages.tif", "gone.png", "whole.png"}
    assert isinstance(found["whole.png"], np.ndarray)
    assert "truncated" in str(found["cut.png"])
    assert "several pages" in str(found["pages.tif"])
    assert "vanished" in str(found["gone.png"])
    assert "1 file (.heic: 1); folder not looked into: 'today'" in caplog.text


def test_a_file_that_vanishes_while_it_waits_is_a_fault(tmp_path: Path) -> None:
    """An image that came and was deleted before it was taken is counted: its part went by without a verdict."""
    with watch(tmp_path, grace=60.0) as source:
        captures = iter(source)
        later(lambda: (tmp_path / "gone.png").write_bytes(PICTURE[:-100]))
        later((tmp_path / "gone.png").unlink, 1.5)  # a busy machine may look seldom, and must have seen the file
        next_one = next(captures)
        assert isinstance(next_one.frame, ImageError)
        assert (next_one.frame.code, Path(next_one.source).name) == ("vanished", "gone.png")
        later(source.stop, 0.2)
        assert list(captures) == []


def test_a_file_that_gets_another_name_is_judged_once(tmp_path: Path) -> None:
    """A camera that renames its file when it is whole has lost nothing."""
    with watch(tmp_path, grace=60.0) as source:
        captures = iter(source)
        later(lambda: (tmp_path / "new.png").write_bytes(PICTURE[:-100]))

        def finish() -> None:
            (tmp_path / "new.png").rename(tmp_path / "part.png")
            time.sleep(0.1)
            with (tmp_path / "part.png").open("ab") as file:
                file.write(PICTURE[-100:])

        later(finish, 0.4)
        assert names(captures, 1) == ["part.png"]
        later(source.stop, 0.3)
        assert list(captures) == []


def test_a_file_that_is_written_anew_is_a_new_image(tmp_path: Path) -> None:
    """A camera that always writes the same file is followed."""
    path = tmp_path / "current.png"
    with watch(tmp_path) as source:
        captures = iter(source)
        later(lambda: path.write_bytes(PICTURE))
        next(captures)
        later(lambda: path.write_bytes(PICTURE))
        assert names(captures, 1) == ["current.png"]


def test_judged_images_are_moved_and_those_from_before_are_judged(
    tmp_path: Path, calibrated: Path, write_image: Callable[..., Path]
) -> None:
    """With done, images from before are judged, and each is in done only after its verdict was passed on."""
    folder, done = tmp_path / "in", tmp_path / "in" / "done"
    for name in ("a.png", "b.png"):
        write_image(folder / name)
    write_image(done / "a.png")  # of yesterday
    there: list[bool] = []

    class Look(Sink):
        def __enter__(self):
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def write(self, inspection: Inspection) -> None:
            there.append(Path(inspection.verdict.source).exists())
            if len(there) == 2:
                line.stop()

    line = Line(
        Models({None: calibrated}, None, Inspector), [open_source(f"watch:{folder}?done={done}&poll=0.02")], [Look()]
    )
    line.run()
    assert there == [True, True]
    assert sorted(path.name for path in done.iterdir()) == ["a-1.png", "a.png", "b.png"]
    assert [path.name for path in folder.iterdir()] == ["done"]


def test_an_image_that_came_under_the_same_name_meanwhile_is_not_moved(tmp_path: Path) -> None:
    """Only the very file that was judged is moved away."""
    (tmp_path / "a.png").write_bytes(PICTURE)
    with watch(tmp_path, tmp_path / "done") as source:
        captures = iter(source)
        first = next(captures)
        (tmp_path / "a.png").write_bytes(PICTURE + b"\0")
        source.task_done(first)
        assert (tmp_path / "a.png").exists()
        assert names(captures, 1) == ["a.png"]


def test_a_folder_that_goes_away_is_a_gap(tmp_path: Path) -> None:
    """A network share that is lost is a gap, and what comes after is taken."""
    folder = tmp_path / "in"
    folder.mkdir()

    def come_back() -> None:
        folder.mkdir()
        (folder / "a.png").write_bytes(PICTURE)

    with watch(folder) as source:
        captures = iter(source)
        later(lambda: shutil.rmtree(folder))
        assert isinstance(next(captures).frame, GapError)
        come_back()
        assert names(captures, 1) == ["a.png"]


def test_wrong_watches_are_refused(tmp_path: Path) -> None:
    """A missing folder and an unknown option are refused by name."""
    with pytest.raises(ChoiceError, match="none"):
        open_source(f"watch:{tmp_path / 'none'}")
    with pytest.raises(ChoiceError, match="gone"):
        open_source(f"watch:{tmp_path}?gone=x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_links_to_nothing_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A broken link and a named pipe are not images, with any name, and are counted at the end."""
    with watch(tmp_path) as source:
        captures = iter(source)

        def bring() -> None:
            (tmp_path / "link.png").symlink_to("nowhere.png")
            os.mkfifo(tmp_path / "pipe.png")
            (tmp_path / "a.png").write_bytes(PICTURE)

        later(bring)
        assert names(captures, 1) == ["a.png"]
        source.stop()
        assert list(captures) == []
    assert "2 files (.png: 2)" in caplog.text
