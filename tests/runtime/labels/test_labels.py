from __future__ import annotations

import dataclasses
import json
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

from onspect.runtime.dashboard.state import DashboardState
from onspect.runtime.dataset.folder import labelled_images, training_images
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.images.decode import decode_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.labels import LabelStore, export_labels, labels_path
from onspect.runtime.labels.keeper import PictureKeeper
from onspect.runtime.labels.store import PartKey
from onspect.runtime.presence.crop import prepare_window

from ..verdicts import inspection, wait_until


def draw(number: int, dtype: type = np.uint8, channels: int = 1) -> NDArray[Any]:
    shape = (20, 30) if channels == 1 else (20, 30, channels)
    return np.random.default_rng(number).integers(0, np.iinfo(dtype).max, shape, dtype)


def keep(store: LabelStore, number: int, label: str | None = None, who: str = "Anna") -> PartKey:
    """Keep a picture, and label it."""
    verdict = inspection(index=number, source="cam 1").verdict
    store.keep(verdict, draw(number))
    key = PartKey.of(verdict)
    if label is not None:
        found = store.find(key)
        assert found is not None
        store.label(found, label, who)
    return key


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = LabelStore(tmp_path / "history.labels.db")
    yield store
    store.close()


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
def test_kept_picture_is_the_camera_s(store: LabelStore, dtype: type, channels: int) -> None:
    """A picture of 8 or 16 bits, grey or colour, comes back pixel by pixel."""
    frame = draw(1, dtype, channels)
    number = store.keep(inspection().verdict, frame)
    assert np.array_equal(decode_image(store.read(number)), frame)


def test_store_makes_no_file_before_it_has_something(store: LabelStore) -> None:
    """Reading where nothing was kept finds nothing, and makes no database."""
    assert store.find(PartKey("2026", 0, "cam")) is None
    assert store.list_pictures() == store.changes() == store.verify() == []
    assert not store.path.exists()


def test_a_database_that_is_removed_is_begun_anew(store: LabelStore) -> None:
    """A label after the removal of the file is written into a new file."""
    keep(store, 1, "good")
    for file in store.path.parent.glob("history.labels*"):
        file.unlink()
    assert store.list_pictures() == []
    keep(store, 2, "bad")
    store.close()
    assert [one.label for one in LabelStore(store.path).list_pictures()] == ["bad"]


def test_newest_label_counts(store: LabelStore) -> None:
    """A part that is labelled again has the new label; both are in the log, with who gave them."""
    key = keep(store, 1, "good", "Anna")
    found = store.find(key)
    assert found is not None
    assert (found.label, found.who) == ("good", "Anna")
    store.label(found, "bad", "Ben")
    found = store.find(key)
    assert found is not None
    assert (found.label, found.who) == ("bad", "Ben")
    assert [(change.who, change.facts["label"], change.facts["before"]) for change in store.changes()] == [
        ("Anna", "good", None),
        ("Ben", "bad", "good"),
    ]


def test_bad_labels_and_names_are_refused(store: LabelStore) -> None:
    """A label is good or bad, and has a name; nothing is written otherwise."""
    found = store.find(keep(store, 1))
    assert found is not None
    for label, who, message in (("fine", "A", "label is 'fine'"), ("good", " ", "your name"), ("good", "x" * 81, "80")):
        with pytest.raises(ChoiceError, match=message):
            store.label(found, label, who)
    assert store.changes() == []


def test_pictures_without_a_label_give_way(tmp_path: Path) -> None:
    """Beyond the quota the oldest picture without a label goes; a labelled one stays."""
    store = LabelStore(tmp_path / "l.db", quota=2500)
    keys = [keep(store, number, "good" if number == 0 else None) for number in range(12)]
    kept = [picture.key.index for picture in store.list_pictures()]
    store.close()
    assert 0 in kept
    assert kept[0] == 11
    assert 2 < len(kept) < len(keys)
    assert kept[:-1] == list(range(11, 12 - len(kept), -1))


def test_long_source_is_found_by_its_beginning(store: LabelStore) -> None:
    """The page knows 300 characters of a source; a shorter source is not taken for a longer one."""
    long = inspection(source="x" * 500).verdict
    store.keep(long, draw(1))
    assert store.find(PartKey(long.time, 0, "x" * 300)) is not None
    assert store.find(PartKey(long.time, 0, "x" * 299)) is None


def test_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """A file that is another program's database is refused, and not changed."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(OutputError, match="not a database of labels"):
        LabelStore(path).list_pictures()
    assert path.read_bytes() == before


TAMPERING = {
    "who of a log row": ("UPDATE audit SET who = 'Eve' WHERE id = 2", "row 2 of the audit log was changed"),
    "facts of a log row": ("UPDATE audit SET facts = replace(facts, 'good', 'bad') WHERE id = 1", "row 1 of the audit"),
    "log row removed": ("DELETE FROM audit WHERE id = 2", "row 2 of the audit log is missing"),
    "last log row removed": ("DELETE FROM audit WHERE id = 3", "label 3 is not in the audit log"),
    "label changed": ("UPDATE labels SET label = 'bad' WHERE id = 1", "label 1 is not as the audit log has it"),
    "label added": ("INSERT INTO labels VALUES (9, 1, 'bad', 'Anna', '2026')", "label 9 is not in the audit log"),
    "label removed": ("DELETE FROM labels WHERE id = 2", "label 2 is in the audit log"),
    "facts of a log row made unreadable": ("UPDATE audit SET facts = '{' WHERE id = 2", "row 2 of the audit log was"),
    "facts of a log row emptied": (
        "UPDATE audit SET facts = '{\"id\": 2}' WHERE id = 2",
        "label 2 is not as the audit",
    ),
    "picture given to another part": ("UPDATE pictures SET number = 77 WHERE id = 1", "label 1 is not as the audit"),
    "picture changed": ("UPDATE pictures SET png = x'00' WHERE id = 1", "picture of label 1 was changed"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_audit_notices_what_was_changed(
    tmp_path: Path, store: LabelStore, onspect: Callable[..., Result], what: str
) -> None:
    """Log, labels and pictures verify; after any change of one of them they do not, and the command says so."""
    for number in range(3):
        keep(store, number, "good")
    store.close()
    assert store.verify() == []
    result = onspect("labels", "audit", tmp_path / "history.db")
    assert result.exit_code == 0
    assert "3 changes, none of them tampered with" in result.stderr
    statement, message = TAMPERING[what]
    with closing(sqlite3.connect(store.path)) as connection:
        for trigger in ("audit_is_not_changed", "audit_is_not_deleted"):
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(statement)
        connection.commit()
    assert any(message in sentence for sentence in store.verify())
    result = onspect("labels", "audit", tmp_path / "history.db")
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_noted_hash_tells_what_was_cut_off(tmp_path: Path, store: LabelStore, onspect: Callable[..., Result]) -> None:
    """A log without its last row, or of another line, looks complete; only a noted hash reveals it."""
    hashes = [store.record("threshold", "Anna", {"before": 1.0, "score": 2.0}).hash for _ in range(3)]
    store.close()
    for digest in hashes:
        assert onspect("labels", "audit", tmp_path / "history.db", "--contains", digest.upper()).exit_code == 0
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("DROP TRIGGER audit_is_not_deleted")
        connection.execute("DELETE FROM audit WHERE id = 3")
        connection.commit()
    assert onspect("labels", "audit", tmp_path / "history.db").exit_code == 0
    assert onspect("labels", "audit", tmp_path / "history.db", "--contains", hashes[1]).exit_code == 0
    result = onspect("labels", "audit", tmp_path / "history.db", "--contains", hashes[2])
    assert (result.exit_code, "rows were cut off, or it is the log of another line" in result.stderr) == (1, True)


@pytest.mark.parametrize("statement", ["UPDATE audit SET who = 'Eve'", "DELETE FROM audit"])
def test_audit_is_append_only(store: LabelStore, statement: str) -> None:
    """A plain UPDATE or DELETE on the log is refused by the database itself."""
    keep(store, 1, "good")
    with closing(sqlite3.connect(store.path)) as connection, pytest.raises(sqlite3.Error, match="append-only"):
        connection.execute(statement)


def test_labels_become_a_dataset(tmp_path: Path, store: LabelStore, onspect: Callable[..., Result]) -> None:
    """The export is a dataset folder that teaching and evaluation read, with the camera's pixels."""
    for number in range(12):
        keep(store, number, "bad" if number >= 10 else "good")
    keep(store, 20)
    store.close()
    folder = tmp_path / "labelled"
    result = onspect("labels", "export", tmp_path / "history.db", folder)
    assert result.exit_code == 0
    assert "wrote 12 pictures" in result.stderr
    assert len(training_images(folder)) == 8
    kinds = [image.kind for image in labelled_images(folder, "test")]
    assert sorted(kinds) == ["bad", "bad", "good", "good"]
    lines = [json.loads(line) for line in (folder / "pictures.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(12))
    for line in lines:
        assert np.array_equal(cv2.imread(str(folder / line["picture"]), -1), draw(line["index"]))
    assert lines[0]["who"] == "Anna"
    result = onspect("labels", "export", tmp_path / "history.db", folder)
    assert result.exit_code == 1
    assert "is not an empty folder" in result.stderr


def test_export_needs_labels(tmp_path: Path, store: LabelStore, onspect: Callable[..., Result]) -> None:
    """Without a database, and without a label in it, the export names the missing thing and makes no folder."""
    result = onspect("labels", "export", tmp_path / "none.db", tmp_path / "out")
    assert (result.exit_code, "there are no labels at" in result.stderr) == (1, True)
    keep(store, 1)
    with pytest.raises(OutputError, match="has a label"):
        export_labels(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert labels_path(tmp_path / "history.db") == labels_path(store.path) == store.path


def test_an_export_that_fails_leaves_no_folder(
    tmp_path: Path, store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the second picture cannot be read, or Ctrl-C comes, the folder and the first picture are gone."""
    for number in range(3):
        keep(store, number, "good")
    read = store.read
    for failure in (OutputError("damaged"), KeyboardInterrupt()):
        left = [None, failure]

        def fail(number: int, left: list[BaseException | None] = left) -> bytes:
            wrong = left.pop(0)
            if wrong is not None:
                raise wrong
            return read(number)

        monkeypatch.setattr(store, "read", fail)
        with pytest.raises(type(failure)):
            export_labels(store, tmp_path / "out" / "labelled")
        assert not (tmp_path / "out").exists()


def test_keeper_keeps_rejects_and_the_last_parts(store: LabelStore) -> None:
    """Rejects and reviews are written; of ok parts one now and then, the last ones only in memory; faults never."""
    keeper = PictureKeeper(store, ok_every=3600.0, recent_bytes=3 * draw(0).nbytes)
    keeper.open()
    verdicts = ["ok", "ng", "ok", "review", "fault", "ok"]
    items = [inspection(index=index, verdict=name, frame=draw(index)) for index, name in enumerate(verdicts)]
    for item in items:
        keeper.add(item)
    wait_until(lambda: len(store.list_pictures()) >= 3)
    keeper.close()
    assert sorted(picture.key.index for picture in store.list_pictures()) == [0, 1, 3]
    keys = [PartKey.of(item.verdict) for item in items]
    assert [keeper.find(key) is not None for key in keys] == [False, False, True, True, False, True]
    assert keeper.missed == 0


def test_no_memory_of_the_model_s_runtime_is_held(store: LabelStore, calibrated: Path) -> None:
    """The last parts, and the dashboard's last reject, keep frames and no map of a model that may be replaced."""
    inspections = [Inspector(calibrated).examine(draw(number)[:16, :16], index=number) for number in range(2)]
    rejects = [dataclasses.replace(one, verdict=dataclasses.replace(one.verdict, verdict="ng")) for one in inspections]
    maps = [weakref.ref(one.error_map) for one in rejects]
    keeper, board = PictureKeeper(store), DashboardState()
    for one in rejects:
        keeper.add(one)
        board.add(one)
    found = board.find("rejected")
    assert found is not None
    assert np.array_equal(found.inspection.error_map, rejects[1].error_map)
    board.add(dataclasses.replace(inspections[0], error_map=None))
    keys = [PartKey.of(one.verdict) for one in rejects]
    del inspections, rejects, one
    assert [ref() for ref in maps] == [None, None]
    assert all(keeper.find(key) is not None for key in keys)


def test_kept_picture_of_a_belt_is_the_part_alone(store: LabelStore, calibrated: Path) -> None:
    """Of a frame with several parts, the picture that is kept, labelled and taught is presence's window of one part."""
    inspector, frame = Inspector(calibrated), np.full((60, 90), 250, np.uint8)
    frame[20:36, 30:46] = draw(1)[:16, :16]
    prepared = prepare_window(inspector, frame, (30, 20, 16, 16))
    (inspected,) = inspector.judge([prepared], inspector.infer_frames([prepared]))
    keeper = PictureKeeper(store, ok_every=0.0)
    keeper.open()
    keeper.add(inspected)
    keeper.close()
    (picture,) = store.list_pictures()
    assert np.array_equal(decode_image(store.read(picture.id)), frame[20:36, 30:46])
    assert inspector.inspect(decode_image(store.read(picture.id))).score == inspected.verdict.score


def test_keeper_goes_on_where_nothing_can_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the pictures cannot be written the line continues; they are counted, and the log says so once."""
    (tmp_path / "file").write_text("no folder")
    keeper = PictureKeeper(LabelStore(tmp_path / "file" / "l.db"))
    keeper.open()
    for index in range(3):
        keeper.add(inspection(index=index, frame=draw(index)))
    keeper.close()
    assert keeper.missed == 3
    assert caplog.text.count("not kept for labels") == 1
