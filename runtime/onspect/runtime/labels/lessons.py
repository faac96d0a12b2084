"""Good parts into the memory of a running line: preview, addition to the file, and undo."""

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

from onspect.runtime.atomic import write_atomically
from onspect.runtime.errors import ChoiceError, DatasetError, ModelFileError, OnspectError
from onspect.runtime.explain import explaining
from onspect.runtime.images.decode import decode_image
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.judgement import Judgement
from onspect.runtime.labels.audit import Change
from onspect.runtime.labels.store import LabelStore, StoredPicture, check_name
from onspect.runtime.model.schema import Threshold

ADDITIONS = 20
"""Largest number of parts that may be taught in one shift."""

SHIFT = timedelta(hours=8)
"""Length of a shift; additions in this time before now are counted."""

_DAY = timedelta(hours=24)
_JUDGED = 300  # largest number of pictures that a preview judges, the newest first
_PREVIEWS = 4  # previews that can be accepted; each contains a model file


@dataclass(frozen=True)
class ChangedVerdict:
    """A stored part whose verdict would change."""

    picture: StoredPicture
    """The part."""

    before: Judgement
    """Its verdict by the current model file and threshold."""

    after: Judgement
    """Its verdict after the addition."""

    score: float
    """Its score after the addition."""


@dataclass(frozen=True)
class Preview:
    """The effect of an addition."""

    id: str
    """Name by which it is accepted."""

    picture: StoredPicture
    """The good part."""

    score: float
    """Its score after the addition."""

    threshold: float
    """Threshold of the file, which does not change."""

    judged: int
    """Number of parts of the last day that were judged again."""

    changes: tuple[ChangedVerdict, ...]
    """Parts whose verdict would change, newest first."""

    left: int
    """Number of additions that are left in this shift, this one included."""

    model: Path = field(repr=False)
    """The model file."""

    base: str = field(repr=False)
    """SHA-256 of the model file that was copied."""

    content: bytes = field(repr=False)
    """The model file after the addition."""

    @property
    def missed(self) -> tuple[ChangedVerdict, ...]:
        """Parts with the label bad that would pass."""
        return tuple(one for one in self.changes if one.picture.label == "bad" and one.after == "ok")


class Lessons:
    """Teach the model file of a line, one part at a time; may be used from several threads.

    Parameters
    ----------
    store
        Pictures, labels and log.
    model
        Returns the model file of the line.
    swap
        Lets the line judge with a file from the next part on.
    most
        Largest number of additions in one shift.
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
        """Teach a copy of the model file, and judge the stored parts of the last day with it. Nothing is changed.

        Parameters
        ----------
        picture
            The part; its label must be good.
        threshold
            Current threshold of the line; None for that of the file.

        Returns
        -------
        Preview
            The effect.

        Raises
        ------
        ChoiceError
            If the part is not labelled good, the shift has no addition left, or the memory has the part already.
        ModelFileError
            If the file has no memory or is full.
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
        """Replace the model file as previewed, and let the line judge with it.

        Parameters
        ----------
        preview_id
            Id of the preview.
        who
            Name of the person.

        Returns
        -------
        Change
            The row of the log.

        Raises
        ------
        ChoiceError
            If the preview is unknown, the file has changed, a bad part would pass, or the shift has no addition left.
        ModelFileError
            If the line cannot use the file; the file is then as before.
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
                    "the part is too similar to them"
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
        """Undo the last addition that was made here.

        Parameters
        ----------
        who
            Name of the person.

        Returns
        -------
        Change
            The row of the log.

        Raises
        ------
        ChoiceError
            If the last change of the file was not such an addition.
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
        """Return whether there is an addition to undo.

        Returns
        -------
        bool
            False also if the model file cannot be read.
        """
        try:
            return bool(self._find_additions(hashlib.sha256(_read(self._model())).hexdigest()))
        except OnspectError:
            return False

    def left(self) -> int:
        """Return the number of parts that may still be taught in this shift.

        Returns
        -------
        int
            0 or more.
        """
        since = _ago(SHIFT)
        changes = [change for change in self._store.changes(kinds=("add", "undo")) if change.time >= since]
        added = sum(1 if change.kind == "add" else -1 for change in changes)
        return max(0, self._most - max(0, added))

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
        """Return the additions that led to the current model file and were not undone, oldest first."""
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
        """Replace the model file and write the log; if one fails, the other is not changed."""
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
            if before.score is None or after.score is None:  # a part of another model with another size
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
    with explaining(ModelFileError, f"cannot read the model {str(path)!r}", "put the file back"):
        return path.read_bytes()


def _explain(error: DatasetError) -> str:
    if "taught already" in str(error):
        return "this part is in the memory already"
    return str(error).partition(" pixels, ")[0] if "does not accept" in str(error) else str(error)
