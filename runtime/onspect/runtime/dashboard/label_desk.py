"""Labels on the page: label parts, teach good ones, and log every change."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onspect.runtime.errors import ChoiceError, OnspectError
from onspect.runtime.inspection.inspector import Inspection, Inspector
from onspect.runtime.labels.audit import Change
from onspect.runtime.labels.keeper import PictureKeeper
from onspect.runtime.labels.lessons import ChangedVerdict, Lessons
from onspect.runtime.labels.proposal import propose
from onspect.runtime.labels.store import LabelStore, PartKey, StoredPicture
from onspect.runtime.status import Commands, LineStatus

_LOG = logging.getLogger("onspect")

_CHANGES = 100  # rows of the log that the page shows
_APPLIED_S = 5.0  # seconds until a move of the threshold is in the status
_SHOWN = 24  # changed verdicts that the page shows


class LabelDesk:
    """The labels of one line.

    The line calls `write` and `report`, which take microseconds. The page's threads call the other methods, which raise
    OnspectError.

    Parameters
    ----------
    path
        The database of labels.
    additions
        Largest number of parts that may be taught in one shift.
    """

    def __init__(self, path: Path, *, additions: int) -> None:
        self.store = LabelStore(path)
        self._keeper = PictureKeeper(self.store)
        self._lessons = Lessons(self.store, lambda: self._line.model_path(), self._swap, most=additions)
        self._commands: Commands | None = None
        self._status: LineStatus | None = None
        self._known: deque[tuple[float, float]] = deque()
        """Thresholds that were set here, with their time, until a status has them."""

    def open(self) -> None:
        """Begin to keep pictures."""
        self._keeper.open()

    def close(self) -> None:
        """Write the waiting pictures, and close the database."""
        self._keeper.close()
        self.store.close()

    def attach(self, commands: Commands) -> None:
        """Teach this line from now on.

        Parameters
        ----------
        commands
            The commands of the line.
        """
        self._commands = commands

    def write(self, inspection: Inspection) -> None:
        """Keep the picture of a part if it is worth a label.

        Parameters
        ----------
        inspection
            The inspection.
        """
        self._keeper.add(inspection)

    def report(self, status: LineStatus) -> None:
        """Log a model or a threshold that was not changed on this page.

        Parameters
        ----------
        status
            The status of the line.
        """
        before, self._status = self._status, status
        if before is None:
            return
        if (before.model, before.recipe) != (status.model, status.recipe):
            keys = ("model", "recipe", "threshold")
            facts = {"before": {key: getattr(before, key) for key in keys}}
            self._record_quietly("swap", facts | {"after": {key: getattr(status, key) for key in keys}})
        elif before.threshold != status.threshold and not self._is_known(status.threshold):
            self._record_quietly("threshold", {"before": before.threshold, "score": status.threshold})

    def note_threshold(self, record: Mapping[str, Any]) -> None:
        """Log a threshold that was moved on this page.

        Parameters
        ----------
        record
            ``score``, ``before`` and ``who``.

        Raises
        ------
        OutputError
            If the log cannot be written.
        """
        self._known.append((record["score"], time.monotonic()))
        self._tell(self.store.record("threshold", record["who"], {key: record[key] for key in ("before", "score")}))

    def note_undo(self, before: float, after: float, who: str) -> None:
        """Log that the last move of the threshold was undone on this page.

        Parameters
        ----------
        before
            The threshold until then.
        after
            The threshold from now on.
        who
            Name of the person.

        Raises
        ------
        OutputError
            If the log cannot be written.
        """
        self._known.append((after, time.monotonic()))
        self._tell(self.store.record("threshold", who, {"before": before, "undo": True}))

    def add_labels(self, parts: Sequence[dict[str, Any]]) -> None:
        """Add ``label``, ``label_who`` and ``kept`` to each part of a page.

        ``label`` is the newest one, None without one. ``kept`` says whether the camera's picture exists, so that the
        part can be labelled.

        Parameters
        ----------
        parts
            Verdicts as JSON objects; they are changed.
        """
        keys = [PartKey(one["time"], one["index"], one["source"]) for one in parts]
        try:
            found = self.store.find_all(keys)
        except OnspectError as error:
            _LOG.warning("%s", error)
            found = [None] * len(keys)
        for part, key, stored in zip(parts, keys, found, strict=True):
            label, who = (None, None) if stored is None else (stored.label, stored.who)
            kept = stored is not None or self._keeper.find(key) is not None
            part.update(label=label, label_who=who, kept=kept)

    def describe(self) -> dict[str, Any]:
        """Return the counts that the page shows.

        Returns
        -------
        dict[str, Any]
            Numbers of labels, the number of parts that may still be taught, and whether an addition can be undone.
        """
        labels = [one.label for one in self.store.list_pictures(labelled=True)]
        return {
            "good": labels.count("good"),
            "bad": labels.count("bad"),
            "left": self._lessons.left(),
            "can_undo": self._commands is not None and self._lessons.can_undo(),
            "missed_pictures": self._keeper.missed,
        }

    def label(self, key: PartKey, label: object, who: object) -> dict[str, Any]:
        """Label a part.

        Parameters
        ----------
        key
            The part.
        label
            ``good`` or ``bad``.
        who
            Name of the person.

        Returns
        -------
        dict[str, Any]
            The row of the log, and the counts of `describe`.

        Raises
        ------
        ChoiceError
            If the label is not valid or the picture is no longer kept.
        """
        return self._describe_done(self.store.label(self._find(key), label, who))

    def preview(self, key: PartKey) -> dict[str, Any]:
        """Return the effect of teaching a part.

        Parameters
        ----------
        key
            The part.

        Returns
        -------
        dict[str, Any]
            The fields of `Preview`, and the first changed verdicts.

        Raises
        ------
        OnspectError
            If the part cannot be taught.
        """
        threshold = Inspector(self._line.model_path()).threshold
        if self._status is not None and self._status.threshold != threshold.score:
            review = threshold.review if (threshold.review or 0.0) < self._status.threshold else None
            threshold = type(threshold)(self._status.threshold, threshold.map, review, threshold.area)
        preview = self._lessons.preview(self._find(key), threshold)
        return {
            **{name: getattr(preview, name) for name in ("id", "score", "threshold", "judged", "left")},
            "running_threshold": threshold.score,
            "changed": len(preview.changes),
            "missed": len(preview.missed),
            "changes": [_describe_change(one) for one in preview.changes[:_SHOWN]],
        }

    def accept(self, preview: str, who: str) -> dict[str, Any]:
        """Teach a part as previewed; the line judges with it from the next part on.

        Parameters
        ----------
        preview
            Id of the preview.
        who
            Name of the person.

        Returns
        -------
        dict[str, Any]
            The row of the log, and the counts of `describe`.

        Raises
        ------
        OnspectError
            If the part cannot be taught.
        """
        return self._describe_done(self._lessons.accept(preview, who))

    def undo(self, who: str) -> dict[str, Any]:
        """Undo the last addition.

        Parameters
        ----------
        who
            Name of the person.

        Returns
        -------
        dict[str, Any]
            The row of the log, and the counts of `describe`.

        Raises
        ------
        ChoiceError
            If there is no addition to undo.
        """
        return self._describe_done(self._lessons.undo(who))

    def propose(self) -> dict[str, Any]:
        """Return the threshold that fits the labels.

        Returns
        -------
        dict[str, Any]
            The fields of `Proposal`.

        Raises
        ------
        ChoiceError
            If there is no good or no bad part.
        """
        return asdict(propose(self.store, Inspector(self._line.model_path())))

    def audit(self) -> dict[str, Any]:
        """Return the newest changes and the result of the check of the log.

        Returns
        -------
        dict[str, Any]
            ``changes``, newest first, and ``broken``, a sentence for each damaged place.
        """
        changes = [change.to_dict() for change in reversed(self.store.changes(_CHANGES))]
        return {"changes": changes, "broken": self.store.verify()}

    @property
    def _line(self) -> Commands:
        if self._commands is None:
            raise ChoiceError("no line is running")
        return self._commands

    def _swap(self, path: Path) -> None:
        self._line.swap(path)

    def _is_known(self, threshold: float) -> bool:
        """Return whether a threshold was set here just now, so that the log has it with its name.

        Earlier moves were replaced before a status had them.
        """
        while self._known and time.monotonic() - self._known[0][1] > _APPLIED_S:
            self._known.popleft()
        count = next((count for count, (score, _) in enumerate(self._known, 1) if score == threshold), 0)
        for _ in range(count):
            self._known.popleft()
        return count > 0

    def _find(self, key: PartKey) -> StoredPicture:
        found = self.store.find(key)
        if found is not None:
            return found
        inspection = self._keeper.find(key)
        frame = None if inspection is None else inspection.part_frame
        if inspection is None or frame is None:
            raise ChoiceError("the picture of this part is no longer kept; choose a newer part")
        self.store.keep(inspection.verdict, frame)
        found = self.store.find(key)
        assert found is not None
        return found

    def _record_quietly(self, kind: str, facts: Mapping[str, Any]) -> None:
        try:
            self._tell(self.store.record(kind, "", facts))
        except OnspectError as error:
            _LOG.warning("the change is not in the audit log: %s", error)

    def _describe_done(self, change: Change) -> dict[str, Any]:
        self._tell(change)
        return change.to_dict() | self.describe()

    def _tell(self, change: Change) -> None:
        _LOG.info("%s by %r at %s: %s", change.kind, change.who, change.time, dict(change.facts))
        if self._commands is not None:
            self._commands.announce(change.to_dict())


def _describe_change(change: ChangedVerdict) -> dict[str, Any]:
    return {
        "picture": f"/labels/pictures/{change.picture.id}",
        **asdict(change.picture.key),
        "part": change.picture.part,
        "label": change.picture.label,
        "before": change.before,
        "after": change.after,
        "score": change.score,
    }
