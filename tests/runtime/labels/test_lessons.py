from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from onspect.runtime.errors import ChoiceError, ModelFileError, OutputError
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.labels.lessons import Lessons
from onspect.runtime.labels.proposal import propose
from onspect.runtime.labels.store import LabelStore, PartKey, StoredPicture
from onspect.runtime.line import Line
from onspect.runtime.model.file import read_model_file
from onspect.runtime.sinks.base import Sink
from onspect.runtime.teaching import add

from ...conftest import MODEL_THRESHOLD
from ...tiny_model import write_model
from ..cameras import FedCamera
from ..teaching.conftest import draw
from ..verdicts import wait_until

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
from onspect.runtime.dashboard import Dashboard

from ..dashboard.test_dashboard import Client

TOKEN = "a-long-enough-token"


class Desk:
    """Lessons on a model file, with the pictures that the file judged; swaps are recorded."""

    def __init__(self, model: Path, **settings: Any) -> None:
        self.model = model
        self.swapped: list[Path] = []
        self.error: ModelFileError | None = None
        self.store = LabelStore(model.with_name("history.labels.db"))
        self.lessons = Lessons(self.store, lambda: self.model, self._swap, **settings)

    def _swap(self, path: Path) -> None:
        if self.error is not None:
            raise self.error
        self.swapped.append(path)

    def judge(self, number: int, label: str | None = None, *, spot: bool = True) -> StoredPicture:
        """Judge a part as the line does, keep its picture, and label it."""
        inspection = Inspector(self.model).examine(draw(number, spot=spot), source="cam", index=number)
        assert inspection.frame is not None
        self.store.keep(inspection.verdict, inspection.frame)
        found = self.store.find(PartKey.of(inspection.verdict))
        assert found is not None
        if label is None:
            return found
        self.store.label(found, label, "Anna")
        return dataclasses.replace(found, label=label)  # type: ignore[arg-type]


@pytest.fixture
def open_desk(taught: Path) -> Iterator[Callable[..., Desk]]:
    """Return a function that opens a desk for the taught file."""
    opened: list[Desk] = []

    def open_one(**settings: Any) -> Desk:
        opened.append(Desk(taught, **settings))
        return opened[-1]

    yield open_one
    for desk in opened:
        desk.store.close()


def test_preview_changes_nothing_and_says_what_would(open_desk: Callable[..., Desk]) -> None:
    """A preview names the stored parts that would pass, and leaves file, log and line as they are."""
    desk = open_desk()
    before = desk.model.read_bytes()
    part = desk.judge(300, "good")
    others = [desk.judge(number) for number in range(301, 305)]
    still = desk.judge(310, spot=False)
    preview = desk.lessons.preview(part)
    assert {one.picture.id for one in preview.changes} == {part.id, *(other.id for other in others)}
    assert {(one.before, one.after) for one in preview.changes} == {("ng", "ok")}
    assert preview.judged == 6
    assert still.id not in {one.picture.id for one in preview.changes}
    assert preview.score < preview.threshold
    assert desk.model.read_bytes() == before
    assert desk.swapped == []
    assert [change.kind for change in desk.store.changes()] == ["label"]


def test_accepted_part_passes_and_is_taken_back(open_desk: Callable[..., Desk]) -> None:
    """The file that was previewed is put in place and swapped in; undo brings the memory of before."""
    desk = open_desk()
    old = read_model_file(desk.model).info
    part = desk.judge(300, "good")
    change = desk.lessons.accept(desk.lessons.preview(part).id, "Anna")
    taught = Inspector(desk.model)
    assert taught.inspect(draw(301, spot=True)).verdict == "ok"
    assert taught.threshold == old.threshold
    assert desk.lessons.can_undo()
    assert (change.kind, change.who, change.facts["picture"]) == ("add", "Anna", part.sha256)
    with pytest.raises(ChoiceError, match="in the memory already"):
        desk.lessons.preview(part)
    desk.lessons.undo("Ben")
    assert read_model_file(desk.model).info == old
    assert Inspector(desk.model).inspect(draw(301, spot=True)).verdict == "ng"
    assert desk.swapped == [desk.model] * 2
    assert [(one.kind, one.who) for one in desk.store.changes()] == [
        ("label", "Anna"),
        ("add", "Anna"),
        ("undo", "Ben"),
    ]
    assert desk.store.verify() == []
    with pytest.raises(ChoiceError, match="no part was taught"):
        desk.lessons.undo("Ben")


def test_only_good_parts_are_taught(open_desk: Callable[..., Desk]) -> None:
    """A part without a label, or one that was called bad, is not taught."""
    desk = open_desk()
    for label in (None, "bad"):
        with pytest.raises(ChoiceError, match="only a part that is labelled good"):
            desk.lessons.preview(desk.judge(300, label))


def test_part_like_a_bad_one_is_not_taught(open_desk: Callable[..., Desk]) -> None:
    """If a part that a person called bad would pass, the addition is refused, and the file stays."""
    desk = open_desk()
    desk.judge(301, "bad")
    preview = desk.lessons.preview(desk.judge(300, "good"))
    before = desk.model.read_bytes()
    assert [one.picture.key.index for one in preview.missed] == [301]
    with pytest.raises(ChoiceError, match="1 parts that are labelled bad would pass"):
        desk.lessons.accept(preview.id, "Anna")
    assert desk.model.read_bytes() == before


def test_additions_of_a_shift_are_limited(open_desk: Callable[..., Desk]) -> None:
    """After the largest number of additions the next one is refused; an undone one does not count."""
    desk = open_desk(most=1)
    desk.lessons.accept(desk.lessons.preview(desk.judge(300, "good")).id, "Anna")
    different = desk.judge(700, "good", spot=False)
    with pytest.raises(ChoiceError, match="1 parts were taught in the last 8 hours"):
        desk.lessons.preview(different)
    desk.lessons.undo("Anna")
    desk.lessons.accept(desk.lessons.preview(different).id, "Anna")
    assert desk.lessons.left() == 0


def test_file_that_changed_since_is_not_overwritten(open_desk: Callable[..., Desk], tmp_path: Path) -> None:
    """A preview of an older file is refused; so is an undo after the file was changed elsewhere."""
    desk = open_desk()
    first, second = (desk.lessons.preview(desk.judge(number, "good", spot=False)) for number in (700, 701))
    desk.lessons.accept(first.id, "Anna")
    with pytest.raises(ChoiceError, match="not known any more"):
        desk.lessons.accept(second.id, "Anna")
    preview = desk.lessons.preview(desk.judge(702, "good", spot=False))
    cv2.imwrite(str(tmp_path / "x.png"), draw(800))
    add(desk.model, [tmp_path / "x.png"])
    changed = desk.model.read_bytes()
    with pytest.raises(ChoiceError, match="has changed since the preview"):
        desk.lessons.accept(preview.id, "Anna")
    with pytest.raises(ChoiceError, match="no part was taught to this model file here"):
        desk.lessons.undo("Anna")
    assert desk.model.read_bytes() == changed


def test_file_stays_where_the_line_or_the_log_fails(
    open_desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the line cannot use the file, or the log cannot be written, the file is as before."""
    desk = open_desk()
    before = desk.model.read_bytes()
    part = desk.judge(300, "good")
    preview = desk.lessons.preview(part)
    desk.error = ModelFileError("it does not load")
    with pytest.raises(ModelFileError, match="does not load"):
        desk.lessons.accept(preview.id, "Anna")
    assert desk.model.read_bytes() == before
    desk.error = None
    preview = desk.lessons.preview(part)

    def fail(*_: object) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(desk.store, "record", fail)
    with pytest.raises(OutputError, match="disk full"):
        desk.lessons.accept(preview.id, "Anna")
    assert desk.model.read_bytes() == before


def test_file_without_a_memory_says_so(open_desk: Callable[..., Desk], tmp_path: Path) -> None:
    """An autoencoder cannot be taught a part; the message says what can."""
    desk = open_desk()
    part = desk.judge(300, "good")
    desk.model = write_model(tmp_path / "autoencoder.onnx", threshold=MODEL_THRESHOLD)
    with pytest.raises(ModelFileError, match="has no memory of good parts"):
        desk.lessons.preview(part)


def test_threshold_is_proposed_from_labels(open_desk: Callable[..., Desk]) -> None:
    """The proposal separates good from bad labels, gives its range, and states what the labels prove."""
    desk = open_desk()
    with pytest.raises(ChoiceError, match="0 good parts that were not taught and 0 bad ones"):
        propose(desk.store, Inspector(desk.model))
    inspector = Inspector(desk.model)
    good = [inspector.inspect(draw(number)).score for number in range(500, 503)]
    bad = [inspector.inspect(draw(number, spot=True)).score for number in range(510, 514)]
    for number in range(500, 503):
        desk.judge(number, "good", spot=False)
    for number in range(510, 514):
        desk.judge(number, "bad")
    found = propose(desk.store, inspector)
    assert found.lowest == pytest.approx(max(good))  # type: ignore[type-var]
    assert found.highest == pytest.approx(min(bad))  # type: ignore[type-var]
    assert found.score == pytest.approx((found.lowest + found.highest) / 2)
    assert (found.good, found.rejected, found.bad, found.missed) == (3, 0, 4, 0)
    assert found.rejected_at_most == pytest.approx(1 - 0.05 ** (1 / 3))
    assert found.missed_at_most == pytest.approx(1 - 0.05 ** (1 / 4))


def test_proposal_misses_no_bad_part_for_a_good_one(open_desk: Callable[..., Desk]) -> None:
    """If a good part scores above a bad one, the bad one is found and the good one is rejected."""
    desk = open_desk()
    desk.judge(500, "bad", spot=False)
    desk.judge(510, "good")
    desk.judge(511, "bad")
    found = propose(desk.store, Inspector(desk.model))
    assert (found.missed, found.rejected) == (0, 1)
    assert found.score <= Inspector(desk.model).inspect(draw(500)).score  # type: ignore[operator]


class Listener(Sink):
    """Notes verdicts, and the changes that people make."""

    def __init__(self) -> None:
        self.verdicts: list[Any] = []
        self.changes: list[Any] = []

    def write(self, inspection: Any) -> None:
        self.verdicts.append(inspection.verdict)

    def note(self, change: Any) -> None:
        self.changes.append(change)


class Running:
    """A line with a dashboard, to which the test sends parts."""

    def __init__(self, model: Path) -> None:
        self.conveyor, self.listener = FedCamera(), Listener()
        self.dashboard = Dashboard("127.0.0.1:0", token=TOKEN, history=model.with_name("history.db"))
        self.line = Line(model, [self.conveyor], [self.listener, self.dashboard], policies=["every"])
        self._thread = threading.Thread(target=self.line.run)

    def __enter__(self) -> Running:
        self._thread.start()
        wait_until(lambda: not self.dashboard.url.endswith(":0/"))
        self.client = Client(self.dashboard)
        return self

    def __exit__(self, *exception: object) -> None:
        self.line.stop()
        self._thread.join()

    def judge(self, number: int, *, spot: bool = True) -> Any:
        """Send a part, and return its verdict."""
        count = len(self.listener.verdicts)
        self.conveyor.show(draw(number, spot=spot))
        wait_until(lambda: len(self.listener.verdicts) > count)
        return self.listener.verdicts[-1]


def key_of(verdict: Any) -> dict[str, Any]:
    return {"time": verdict.time, "index": verdict.index, "source": verdict.source}


ODD_REQUESTS: tuple[tuple[str, dict[str, Any] | None, int], ...] = (
    ("/threshold", {"score": 10**400, "who": "Anna"}, 422),
    ("/threshold", {"score": 0.7, "who": "   "}, 422),
    ("/labels", {"time": "\ud800", "label": "good", "who": "Anna"}, 422),
    ("/labels", {"source": "\ud800", "label": "good", "who": "Anna"}, 422),
    ("/labels", {"label": ["good"], "who": "Anna"}, 422),
    ("/lessons/accept", {"id": None, "who": "\ud800"}, 422),
    ("/labels/pictures/99999999999999999999999", None, 404),
    ("/report?since=0001-01-01T00:00%2B14:00", None, 422),
)


def test_odd_requests_are_refused_in_words(taught: Path) -> None:
    """Numbers, texts and times that no field can contain are refused with a sentence; the server has no error."""
    with Running(taught) as running:
        client = running.client
        client.log_in()
        key = key_of(running.judge(300))
        for path, body, expected in ODD_REQUESTS:
            answer = client.ask(path) if body is None else client.post(path, key | body)
            assert answer.status == expected, path
            assert answer.json()["error"], path
        assert running.line.status().moved is None


def test_a_name_of_no_utf8_is_written_as_escapes(taught: Path) -> None:
    """A move of the threshold by such a name is in the log, as a label by it is."""
    with Running(taught) as running:
        running.client.log_in()
        key = key_of(running.judge(300))
        assert running.client.post("/threshold", {"score": 0.7, "who": "A\ud800"}).status == 200
        assert running.client.post("/labels", key | {"label": "good", "who": "A\ud800"}).status == 200
        changes = running.client.ask("/audit").json()["changes"]
    assert [(change["kind"], change["who"]) for change in changes] == [("label", "A\\ud800"), ("threshold", "A\\ud800")]


def test_no_threshold_moves_without_a_row_in_the_log(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the audit log cannot be written, a move and an undo are refused, and the threshold is as before."""
    with Running(taught) as running:
        running.client.log_in()
        running.judge(300)
        own = running.line.status().threshold
        store = running.dashboard._app_state.desk.store  # type: ignore[union-attr]

        def fail(*_: object) -> None:
            raise OutputError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(store, "record", fail)
            answer = running.client.post("/threshold", {"score": 2 * own, "who": "Anna"})
        assert (answer.status, "audit log cannot be written: disk full" in answer.json()["error"]) == (409, True)
        assert running.judge(301).threshold == own
        assert running.client.post("/threshold", {"score": 2 * own, "who": "Anna"}).status == 200
        with monkeypatch.context() as patch:
            patch.setattr(store, "record", fail)
            assert running.client.post("/threshold/undo", {"who": "Anna"}).status == 409
        assert running.judge(302).threshold == 2 * own
        assert running.line.status().moved is not None


@pytest.mark.slow
def test_two_people_who_move_the_threshold_at_once_are_both_in_the_log(taught: Path) -> None:
    """Each row has the threshold of before and who moved it; what came over the page is in the log once."""
    with Running(taught) as running:
        running.client.log_in()
        running.judge(300)
        own = running.line.status().threshold
        for factor, who in ((1.1, "Anna"), (1.2, "Ben"), (1.3, "Anna")):
            assert running.client.post("/threshold", {"score": factor * own, "who": who}).status == 200
        assert running.client.post("/threshold/undo", {"who": "Ben"}).status == 200
        running.judge(301)
        board = running.dashboard._app_state.displayed
        wait_until(lambda: (board.describe(0)["status"] or {}).get("threshold") == 1.2 * own, 60.0)
        running.line.set_threshold(3 * own)  # over MQTT, say
        running.judge(302)
        wait_until(lambda: running.client.ask("/audit").json()["changes"][0]["who"] == "", 60.0)
        changes = running.client.ask("/audit").json()["changes"][::-1]
    rows = [(change["who"], change["facts"].get("before"), change["facts"].get("score")) for change in changes]
    assert rows == [
        ("Anna", own, 1.1 * own),
        ("Ben", 1.1 * own, 1.2 * own),
        ("Anna", 1.2 * own, 1.3 * own),
        ("Ben", 1.3 * own, None),
        ("", 1.2 * own, 3 * own),
    ]


def test_good_label_ends_a_repeated_false_reject_within_one_part(taught: Path) -> None:
    """The part after the second click passes; after the undo it is rejected again; all is logged and told."""
    with Running(taught) as running:
        client = running.client
        assert [running.judge(number).verdict for number in range(300, 304)] == ["ng"] * 4
        verdict = running.listener.verdicts[-1]
        assert client.post("/labels", key_of(verdict) | {"label": "good", "who": "Anna"}).status == 401
        client.log_in()
        labelled = client.post("/labels", key_of(verdict) | {"label": "good", "who": "Anna"})
        assert (labelled.status, labelled.json()["good"]) == (200, 1)
        preview = client.post("/lessons/preview", key_of(verdict)).json()
        assert (preview["judged"], preview["changed"]) == (4, 4)
        assert client.ask(preview["changes"][0]["picture"]).headers["content-type"] == "image/jpeg"
        assert running.judge(304).verdict == "ng"
        taught_now = client.post("/lessons/accept", {"id": preview["id"], "who": "Anna"})
        assert taught_now.json()["can_undo"]
        assert running.judge(305).verdict == "ok"
        assert running.judge(400, spot=False).verdict == "ok"
        assert client.post("/lessons/undo", {"who": "Ben"}).status == 200
        assert running.judge(306).verdict == "ng"
        audit = client.ask("/audit").json()
        told = [(change["kind"], change["who"]) for change in running.listener.changes if change["kind"] != "swap"]
    assert told == [("label", "Anna"), ("add", "Anna"), ("undo", "Ben")]
    assert audit["broken"] == []
    assert [one["hash"] for one in reversed(audit["changes"])][:3] == [
        one["hash"] for one in running.listener.changes[:3]
    ]


def test_live_ok_part_is_labelled_bad(taught: Path) -> None:
    """A part that passed, without a written picture, can be labelled while it is among the last ones."""
    with Running(taught) as running:
        verdicts = [running.judge(number, spot=False) for number in (400, 401)]
        running.client.log_in()
        for verdict in verdicts:
            answer = running.client.post("/labels", key_of(verdict) | {"label": "bad", "who": "Anna"})
            assert answer.status == 200
        unknown = key_of(verdicts[0]) | {"index": 77, "label": "bad", "who": "Anna"}
        answer = running.client.post("/labels", unknown)
        assert (answer.status, "no longer kept" in answer.json()["error"]) == (422, True)
        store = LabelStore(taught.with_name("history.labels.db"))
        assert [picture.label for picture in store.list_pictures(labelled=True)] == ["bad", "bad"]
        store.close()


def test_rejects_carry_their_label(taught: Path) -> None:
    """The list of rejects says which of them have a label, and whose."""
    with Running(taught) as running:
        verdict = running.judge(300)
        running.client.log_in()
        running.client.post("/labels", key_of(verdict) | {"label": "bad", "who": "Anna"})
        (reject,) = running.client.ask("/rejects").json()["rejects"]
        assert (reject["label"], reject["label_who"]) == ("bad", "Anna")


@pytest.mark.slow
def test_threshold_and_swap_are_logged_whoever_does_them(taught: Path, tmp_path: Path) -> None:
    """A threshold moved on the page is logged once, with its name; one moved by a command, and a swap, without one."""
    other = tmp_path / "other.onnx"
    other.write_bytes(taught.read_bytes())
    cv2.imwrite(str(tmp_path / "x.png"), draw(800))
    add(other, [tmp_path / "x.png"])
    with Running(taught) as running:
        wait_until(lambda: running.client.next_event()["status"] is not None)
        running.client.log_in()
        assert running.client.post("/threshold", {"score": 0.7, "who": "Anna"}).status == 200
        running.judge(400, spot=False)
        wait_until(lambda: running.client.next_event()["status"]["threshold"] == 0.7)
        running.line.set_threshold(0.8)
        wait_until(lambda: len(running.listener.changes) == 2)
        assert running.client.post("/threshold/undo", {"who": "Ben"}).status == 200
        wait_until(lambda: running.client.next_event()["status"]["threshold"] == 0.7)
        running.line.swap(other)
        wait_until(lambda: len(running.listener.changes) == 4)
    found = [(change["kind"], change["who"]) for change in running.listener.changes]
    assert found == [("threshold", "Anna"), ("threshold", ""), ("threshold", "Ben"), ("swap", "")]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/labels", {}, 422),
        ("/labels", {"time": "t", "index": True, "source": "s"}, 422),
        ("/labels", {"time": "t", "index": 1, "source": "s", "label": 3, "who": "A"}, 422),
        ("/lessons/accept", {"id": "none", "who": "A"}, 422),
        ("/lessons/accept", {"id": ["x"]}, 422),
        ("/lessons/undo", {"who": 3}, 422),
    ],
)
def test_requests_that_make_no_sense_change_nothing(taught: Path, path: str, body: dict[str, Any], status: int) -> None:
    """A request without a part, a name or a preview is answered with a sentence."""
    before = taught.read_bytes()
    with Running(taught) as running:
        running.client.log_in()
        answer = running.client.post(path, body)
        assert (answer.status, bool(answer.json()["error"])) == (status, True)
    assert taught.read_bytes() == before


def test_without_a_history_labels_are_refused(calibrated: Path) -> None:
    """If nothing is recorded the page says what to start the line with."""
    with Dashboard("127.0.0.1:0", token=TOKEN) as dashboard:
        client = Client(dashboard)
        client.log_in()
        answer = client.ask("/labels")
        assert (answer.status, "--sink sqlite:FILE" in answer.json()["error"]) == (409, True)
