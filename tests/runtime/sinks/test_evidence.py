from __future__ import annotations

import tracemalloc
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from onspect.runtime.errors import OutputError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.line.build import queue_sinks
from onspect.runtime.sinks import evidence
from onspect.runtime.sinks.columns import encode_verdict
from onspect.runtime.sinks.evidence import EvidenceSink, evidence_name
from onspect.runtime.sinks.history import read_recent
from onspect.runtime.sinks.registry import open_sinks
from onspect.runtime.sinks.sqlite import SqliteSink

from ..verdicts import inspection

PICTURE = np.full((256, 256), 128, np.uint8)


@pytest.fixture(autouse=True)
def equal_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pictures that differ in a few bytes take the same of the disk."""
    monkeypatch.setattr(evidence, "_BLOCK", 1 << 16)


def part(verdict: str, index: int, **facts: Any) -> Inspection:
    """Return an inspection with a picture, a second after the one before."""
    time = f"2026-01-01T00:{index:02d}:00.000Z"
    return inspection(verdict=verdict, index=index, time=time, frame=PICTURE, review_threshold=0.1, **facts)


def pictures(folder: Path) -> Counter[str]:
    """Count the pictures of each verdict."""
    return Counter(path.relative_to(folder).parts[0] for path in folder.rglob("*.jpg"))


def measure(folder: Path) -> int:
    """Return what one picture takes of the disk."""
    with EvidenceSink(folder) as sink:
        sink.write(part("ok", 0))
        return sink.used


def test_evidence_is_an_annotated_picture(tmp_path: Path) -> None:
    """Each part with a picture gets a JPEG with a banner, under its verdict and day; a part without one gets none."""
    with EvidenceSink(tmp_path) as sink:
        sink.write(part("ng", 7, source="rtsp://me:geheim@10.0.0.7/left"))
        sink.write(inspection(verdict="fault", score=None, reason="no frame"))
    (path,) = tmp_path.rglob("*.*")
    assert path.relative_to(tmp_path).as_posix() == "ng/2026-01-01/000700.000Z-left-7.jpg"
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[0] > picture.shape[1]


def test_oldest_ok_goes_first_and_ng_stays(tmp_path: Path) -> None:
    """Within the quota the oldest ok give way, then review, then fault; ng only to newer ng."""
    size = measure(tmp_path / "one")
    with EvidenceSink(tmp_path / "e", quota=6 * size) as sink:
        for index, verdict in enumerate(["ok", "ng", "ok", "fault", "review", "ok"]):
            sink.write(part(verdict, index))
        sink.write(part("ng", 6))
        kept = sorted(path.name for path in (tmp_path / "e" / "ok").rglob("*.jpg"))
        assert kept == ["000200.000Z-a.png-2.jpg", "000500.000Z-a.png-5.jpg"]
        for index in range(7, 10):
            sink.write(part("ng", index))
        assert pictures(tmp_path / "e") == {"fault": 1, "ng": 5}
        sink.write(part("ok", 10))
        assert pictures(tmp_path / "e") == {"fault": 1, "ng": 5}, "an ok must not take an ng's place"
        for index in range(11, 14):
            sink.write(part("ng", index))
        assert pictures(tmp_path / "e") == {"ng": 6}
        assert sink.used == 6 * size
    assert min(path.name for path in tmp_path.joinpath("e", "ng").rglob("*.jpg")).startswith("0007")


def test_earlier_runs_count(tmp_path: Path) -> None:
    """After a restart pictures of earlier runs count and can be removed, and unfinished files are gone."""
    size = measure(tmp_path)
    with EvidenceSink(tmp_path, quota=4 * size) as sink:
        for index in range(1, 4):
            sink.write(part("ok", index))
    stump = tmp_path / "ok" / "2026-01-01" / ".onspect-0123456789abcdef.tmp"
    stump.write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("a person's")
    with EvidenceSink(tmp_path, quota=4 * size) as sink:
        assert sink.used == 4 * size
        sink.write(part("ok", 5))
        assert sorted(path.name[:4] for path in tmp_path.rglob("*.jpg")) == ["0001", "0002", "0003", "0005"]
    assert not stump.exists()
    with EvidenceSink(tmp_path, quota=size) as sink:
        assert sink.used == size
    assert (tmp_path / "notes.txt").exists()


def test_pictures_of_a_clock_that_was_ahead_go_first(tmp_path: Path) -> None:
    """A picture dated in the future counts as older than a new one."""
    size = measure(tmp_path)
    (tmp_path / "ok" / "2026-01-01").rename(tmp_path / "ok" / "2999-01-01")
    with EvidenceSink(tmp_path, quota=2 * size) as sink:
        sink.write(part("ok", 1))
    with EvidenceSink(tmp_path, quota=2 * size) as sink:
        sink.write(part("ok", 2))
    assert sorted(path.name[:4] for path in tmp_path.rglob("*.jpg")) == ["0001", "0002"]


def test_emptied_day_goes(tmp_path: Path) -> None:
    """The folder of a day goes with its last picture."""
    size = measure(tmp_path)
    with EvidenceSink(tmp_path, quota=size) as sink:
        sink.write(part("ok", 1, source="b"))
        sink.write(inspection(verdict="ok", frame=PICTURE, time="2026-01-02T00:00:00.000Z"))
    assert [path.name for path in (tmp_path / "ok").iterdir()] == ["2026-01-02"]


@pytest.mark.parametrize(
    "source",
    ["../../etc/passwd", "C:\\parts\\a b.png", "rtsp://me:geheim@host", "x" * 300, "..", "", "Prüfling\n\x00|<>", "a/"],
)
def test_name_stays_in_the_folder(source: str) -> None:
    """The picture of any source has a name that is valid on every file system and has no password."""
    name = evidence_name(part("ok", 1, source=source).verdict)
    assert name.startswith("ok/2026-01-01/000100.000Z-")
    assert name.count("/") == 2
    assert len(name) < 100
    assert name.isascii()
    assert "geheim" not in name
    assert not set(name) & set('\\:*?"<>|\n\x00')


def test_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    """A file in the place of the folder raises OutputError when the sink opens."""
    (tmp_path / "e").write_text("")
    with pytest.raises(OutputError, match="e'"), EvidenceSink(tmp_path / "e"):
        pass


def test_the_record_says_which_picture_could_not_be_written(tmp_path: Path) -> None:
    """A row of the history names a picture only if it was written: not with a full disk, and not beyond the quota."""
    texts = [f"sqlite:{tmp_path / 'line.db'}", f"evidence:{tmp_path / 'pictures'}"]
    named = list(zip(texts, open_sinks(texts, append=True), strict=True))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "ng").write_bytes(b"no folder, so that writing fails as on a full disk")
    with ExitStack() as stack:
        sinks = [stack.enter_context(sink) for sink in queue_sinks(named, tmp_path / "spool", live=True)]
        for index, verdict in enumerate(["ok", "ng", "fault", "ok", "ng"]):
            for sink in sinks:
                sink.write(inspection(verdict=verdict, index=index, frame=None if verdict == "fault" else PICTURE))
    records = sorted(read_recent(tmp_path / "line.db"), key=lambda record: record.id)
    assert [record.evidence is not None for record in records] == [True, False, False, True, False]
    assert all((tmp_path / "pictures" / record.evidence).is_file() for record in records if record.evidence)


def test_only_the_database_names_pictures(tmp_path: Path) -> None:
    """A record that cannot take a name back has none: SQLite marks a lost picture, and no other record names it."""
    texts = [f"{kind}:{tmp_path / kind}" for kind in ("sqlite", "jsonl", "csv", "evidence")]
    with ExitStack() as stack:
        sinks = [stack.enter_context(sink) for sink in open_sinks(texts, append=True)]
        for sink in sinks:
            sink.write(part("ng", 1))
    name = evidence_name(part("ng", 1).verdict)
    assert read_recent(tmp_path / "sqlite")[0].evidence == name
    for text in (
        (tmp_path / "jsonl").read_text(),
        (tmp_path / "csv").read_text(),
        encode_verdict(part("ng", 1).verdict).decode(),
    ):
        assert "ng" in text
        assert name not in text
        assert "evidence" not in text


def test_a_picture_costs_few_bytes_of_memory(tmp_path: Path) -> None:
    """A line knows millions of pictures: each takes less than 50 bytes, and the oldest goes first."""
    kept = evidence._Kept()
    names = [
        f"ok/2026-01-{day:02}/{number:06}.123Z-camera-1-{number}.jpg" for day in (1, 2) for number in range(20_000)
    ]
    tracemalloc.start()
    for name in names:
        kept.add(name, 4096)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < 50 * len(names)
    gone = []
    while (oldest := kept.oldest()) is not None:
        gone.append(oldest)
        kept.pop()
    assert gone == names
    assert kept.used == 0


def test_a_picture_that_was_given_up_is_taken_out_of_a_row_that_comes_later(tmp_path: Path) -> None:
    """The record may come after the loss: the row still reports it, also without another part."""
    with SqliteSink(tmp_path / "line.db", evidence=True) as sink:
        first, second = part("ng", 1), part("ng", 2)
        sink.forget_evidence([evidence_name(first.verdict)])
        sink.flush()
        sink.write(first)
        sink.write(second)
        sink.forget_evidence([evidence_name(second.verdict)])
        sink.flush()
        assert [record.evidence for record in read_recent(tmp_path / "line.db")] == [None, None]
