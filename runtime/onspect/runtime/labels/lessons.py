"""Good parts into the memory of a running line: previewed, applied to the file, and taken back."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from onspect.runtime.atomic import describe_os_error, write_atomically
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError, OnspectError
from onspect.runtime.images.decode import decode_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import Judgement
from onspect.runtime.labels.audit import Change
from onspect.runtime.labels.store import LabelStore, StoredPicture, check_name
from onspect.runtime.model.schema import Threshold

ADDITIONS = 20
"""Parts that may be taught in one shift."""

SHIFT = timedelta(hours=8)
"""The time in which additions are counted, back from now."""

_DAY = timedelta(hours=24)
_JUDGED = 300  # pictures that a preview judges at most, the newest first
_PREVIEWS = 4  # that can be accepted; each holds a model file


@dataclass(frozen=True)
class ChangedVerdict:
    """A stored part that would be judged differently."""

    picture: StoredPicture
    """The part."""

    before: Judgement
    """Its verdict by the model file and threshold of now."""

    after: Judgement
    """Its verdict after the addition."""

    score: float
    """Its score after the addition."""


@dataclass(frozen=True)
class Preview:
    """What an addition would do."""

    id: str
    """By which it is accepted."""

    picture: StoredPicture
    """The good part."""

    score: float
    """Its score after the addition."""

    threshold: float
    """The threshold of the file, which stays."""

    judged: int
    """Parts of the last day that were judged again."""

    changes: tuple[ChangedVerdict, ...]
    """Those whose verdict would change, newest first."""

    left: int
    """Additions that are left in this shift, this one included."""

    model: Path = field(repr=False)
    """The model file."""

    base: str = field(repr=False)
    """SHA-256 of the model file that was copied."""

    content: bytes = field(repr=False)
    """The model file after the addition."""

    @property
    def missed(self) -> tuple[ChangedVerdict, ...]:
        """Parts that a person called bad and that would pass."""
        return tuple(one for one in self.changes if one.picture.label == "bad" and one.after == "ok")


class Lessons:
    """Teaches the model file that a line judges with, one part at a time.

    store: pictures, labels and log. model: returns the file that the line judges with. swap: lets the line judge with a
    file from the next part on. most: additions in one shift. Used from several threads.
    """

    def __init__(
        self,
        store: LabelStore,
        model: Callable[[], Path],
        swap: Callable[[Path], None],
        *,
        most: int = ADDITIONS,
    ) -> None:
        self._store = store
        self._model = model
        self._swap = swap
        self._most = most
        self._lock = threading.Lock()
        self._previews: OrderedDict[str, Preview] = OrderedDict()

    def preview(self, picture: StoredPicture, threshold: Threshold | None = None) -> Preview:
        """Teach a copy of the model file, and judge the stored parts of the last day with it.

        threshold: with which the line judges now, None for the file's. Nothing is changed. Raises ChoiceError if the
        picture is not labelled good or the shift has no addition left, ModelFileError if the file has no memory or is
        full, DatasetError if the picture is in the memory already.
        """
        from onspect.runtime.teaching import add

        if picture.label != "good":
            raise ChoiceError("only a part that is labelled good can be taught; label it first")
        with self._lock:
            left = self._count_left()
            path = self._model()
            data = _read(path)
            base = hashlib.sha256(data).hexdigest()
            with tempfile.TemporaryDirectory() as folder:
                copy, png = Path(folder, path.name), Path(folder, "part.png")
                copy.write_bytes(data)
                now = Inspector(copy)
                png.write_bytes(self._store.read(picture.id))
                try:
                    add(copy, [png], keep_threshold=True)
                except DatasetError as error:
                    raise ChoiceError(_explain(error)) from error
                content = copy.read_bytes()
                then = Inspector(copy)
                judged, changes = self._compare(now, then, threshold or now.threshold)
                score = self._score(then, picture)
            preview = Preview(
                id=secrets.token_hex(8),
                picture=picture,
                score=score,
                threshold=then.threshold.score,
                judged=judged,
                changes=tuple(changes),
                left=left,
                model=path,
                base=base,
                content=content,
            )
            self._previews[preview.id] = preview
            while len(self._previews) > _PREVIEWS:
                self._previews.popitem(last=False)
        return preview

    def accept(self, preview_id: str, who: str) -> Change:
        """Replace the model file as previewed, and let the line judge with it; return the row of the log.

        Raises ChoiceError if there is no such preview, the model file has changed since, a part called bad would pass,
        or the shift has no addition left; ModelFileError if the line cannot use the file, which is then as before.
        """
        who = check_name(who)
        with self._lock:
            preview = self._previews.get(preview_id)
            if preview is None:
                raise ChoiceError("this preview is not known any more; preview the part again")
            self._count_left()
            if preview.missed:
                names = ", ".join(one.picture.key.time for one in preview.missed[:3])
                raise ChoiceError(
                    f"{len(preview.missed)} parts that are labelled bad would pass, such as that of {names}; "
                    "the part is too much like them to be taught"
                )
            path, before = self._model(), _read(preview.model)
            if path != preview.model or hashlib.sha256(before).hexdigest() != preview.base:
                raise ChoiceError("the model file has changed since the preview; preview the part again")
            facts = {
                "picture": preview.picture.sha256,
                "part": dataclasses.asdict(preview.picture.key),
                "judged": preview.judged,
                "changed": len(preview.changes),
            }
            return self._apply("add", who, path, before, preview.content, facts)

    def undo(self, who: str) -> Change:
        """Take the last addition of this page back; return the row of the log.

        Raises ChoiceError if the last change of the file was not an addition of this page.
        """
        from onspect.runtime.teaching import take_back

        who = check_name(who)
        with self._lock:
            path = self._model()
            before = _read(path)
            sha256 = hashlib.sha256(before).hexdigest()
            added = self._find_additions(sha256)
            if not added:
                raise ChoiceError(
                    "no part was taught to this model file here since it was last changed; "
                    "'onspect teach --undo' undoes additions made elsewhere"
                )
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder, path.name)
                copy.write_bytes(before)
                take_back(copy)
                content = copy.read_bytes()
            return self._apply("undo", who, path, before, content, {"addition": added[-1].id})

    def can_undo(self) -> bool:
        """Tell whether `undo` has something to take back."""
        try:
            return bool(self._find_additions(hashlib.sha256(_read(self._model())).hexdigest()))
        except OnspectError:
            return False

    def left(self) -> int:
        """Return how many parts may still be taught in this shift."""
        return max(0, self._most - self._count_added())

    def _count_added(self) -> int:
        since = _ago(SHIFT)
        changes = [change for change in self._store.changes(kinds=("add", "undo")) if change.time >= since]
        return max(0, sum(1 if change.kind == "add" else -1 for change in changes))

    def _count_left(self) -> int:
        left = self.left()
        if not left:
            hours = SHIFT.total_seconds() / 3600
            raise ChoiceError(
                f"{self._most} parts were taught in the last {hours:g} hours, which is the most; "
                "look for the cause of these false rejects, or run 'onspect teach --add-to'"
            )
        return left

    def _find_additions(self, sha256: str) -> list[Change]:
        """Return the additions, oldest first, that led to the model file of now and were not taken back."""
        added: list[Change] = []
        current = None
        for change in self._store.changes(kinds=("add", "undo")):
            if change.facts.get("before") != current:
                added = []
            if change.kind == "add":
                added.append(change)
            elif added:
                added.pop()
            current = change.facts.get("after")
        return added if current == sha256 else []

    def _apply(self, kind: str, who: str, path: Path, before: bytes, after: bytes, facts: dict[str, Any]) -> Change:
        """Replace the model file and write the log; where one cannot be done, the other is not."""
        self._replace(path, after, before)
        self._previews.clear()
        sums = {"before": hashlib.sha256(before).hexdigest(), "after": hashlib.sha256(after).hexdigest()}
        try:
            return self._store.record(kind, who, {"model": path.name} | sums | facts)
        except OnspectError:
            self._replace(path, before, after)
            raise

    def _replace(self, path: Path, content: bytes, before: bytes) -> None:
        write_atomically(path, content)
        try:
            self._swap(path)
        except OnspectError:
            write_atomically(path, before)
            raise

    def _compare(self, now: Inspector, then: Inspector, threshold: Threshold) -> tuple[int, list[ChangedVerdict]]:
        """Judge the stored parts of the last day with both model files."""
        changes, judged = [], 0
        now = now.with_threshold(threshold)
        for stored in self._store.list_pictures(since=_ago(_DAY), limit=_JUDGED):
            frame = decode_image(self._store.read(stored.id))
            before, after = now.inspect(frame), then.inspect(frame)
            if before.score is None or after.score is None:  # a part of another model, of another size
                continue
            judged += 1
            if before.verdict != after.verdict:
                changes.append(ChangedVerdict(stored, before.verdict, after.verdict, after.score))
        return judged, changes

    def _score(self, inspector: Inspector, picture: StoredPicture) -> float:
        verdict = inspector.inspect(decode_image(self._store.read(picture.id)))
        if verdict.score is None:
            raise ChoiceError(f"the part cannot be judged with this model: {verdict.reason}")
        return verdict.score


def _ago(span: timedelta) -> str:
    return (datetime.now(UTC) - span).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read the model {str(path)!r}: {describe_os_error(error)}") from error


def _explain(error: DatasetError) -> str:
    if "taught already" in str(error):
        return "this part is in the memory already"
    return str(error).partition(" pixels, ")[0] if "does not accept" in str(error) else str(error)
