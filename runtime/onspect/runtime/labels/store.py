"""Original pictures, their labels and the audit log, in one SQLite database."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from onspect.runtime.atomic import identify, make_folder
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.images.decode import Frame
from onspect.runtime.inspection.verdict import Verdict, now
from onspect.runtime.labels.audit import SCHEMA, Change, append, read_changes, verify_audit
from onspect.runtime.sinks.sqlite import transaction

_LOG = logging.getLogger("onspect")

APPLICATION_ID = 0x4F4E534C  # "ONSL"
SCHEMA_VERSION = 1

Label = Literal["good", "bad"]

QUOTA_BYTES = 1_000_000_000
"""Default quota of pictures without a label, in bytes; labelled ones are always kept."""

LONGEST_NAME = 80
"""Largest number of characters of a person's name."""

_TABLES = (
    (
        "CREATE TABLE IF NOT EXISTS pictures (id INTEGER PRIMARY KEY, time TEXT NOT NULL, source TEXT NOT NULL, "
        "number INTEGER NOT NULL, part TEXT, verdict TEXT NOT NULL, score REAL, threshold REAL NOT NULL, "
        "model TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, png BLOB NOT NULL, "
        "UNIQUE (time, number, source))"
    ),
    (
        "CREATE TABLE IF NOT EXISTS labels (id INTEGER PRIMARY KEY, picture INTEGER NOT NULL REFERENCES pictures, "
        "label TEXT NOT NULL, who TEXT NOT NULL, time TEXT NOT NULL)"
    ),
    "CREATE INDEX IF NOT EXISTS labels_of_picture ON labels (picture, id)",
)


@dataclass(frozen=True)
class PartKey:
    """Identity of a part in every record."""

    time: str
    """Time of the verdict, ISO 8601 in UTC."""
    index: int
    """Position in the run, 0 or more."""
    source: str
    """Name of the source."""

    @classmethod
    def of(cls, verdict: Verdict) -> PartKey:
        """Return the key of a verdict's part.

        Parameters
        ----------
        verdict
            The verdict.

        Returns
        -------
        PartKey
            The key.
        """
        return cls(verdict.time, verdict.index, to_utf8(verdict.source))


@dataclass(frozen=True)
class StoredPicture:
    """A picture in the database, without its pixels."""

    id: int
    """Row in the table ``pictures``."""

    key: PartKey
    """The part that it shows."""

    part: str | None
    """The part id; None if the source does not know it."""

    verdict: str
    """The verdict of the line at that time."""

    score: float | None
    """The score at that time; None for a fault."""

    threshold: float
    """The threshold at that time."""

    model: str
    """Name and checksum of the model at that time."""

    sha256: str
    """SHA-256 of the PNG file."""

    label: Label | None
    """The newest label; None for none."""

    who: str | None
    """Name of the person who gave it; None for no label."""


class LabelStore:
    """The database of one line; may be used from several threads. The first picture creates the file.

    Methods raise OutputError if the database cannot be read or written.

    Parameters
    ----------
    path
        The file.
    quota
        Largest size of the pictures without a label, in bytes; the oldest are removed first.
    """

    def __init__(self, path: Path | str, *, quota: int = QUOTA_BYTES) -> None:
        self.path = Path(path)
        self._quota = quota
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def keep(self, verdict: Verdict, frame: Frame) -> int:
        """Store the picture of a part as PNG, without loss; a part that is stored already is not stored again.

        Parameters
        ----------
        verdict
            The verdict.
        frame
            HxW, HxWx1 or HxWx3 (BGR), uint8 or uint16.

        Returns
        -------
        int
            Row of the picture.

        Raises
        ------
        ChoiceError
            If the frame is not a picture.
        """
        png = encode(frame)
        key = PartKey.of(verdict)
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO pictures (time, source, number, part, verdict, score, threshold, model, sha256, "
                "size, png) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(key.time, key.source, key.index, verdict.part and to_utf8(verdict.part), verdict.verdict),
                    *(verdict.score, verdict.threshold, verdict.model, hashlib.sha256(png).hexdigest(), len(png), png),
                ),
            )
            self._make_room(connection)
            found = self._find(connection, key)
        assert found is not None
        return found.id

    def find(self, key: PartKey) -> StoredPicture | None:
        """Return the picture of a part.

        Parameters
        ----------
        key
            The part; a long name of the source may be cut off.

        Returns
        -------
        StoredPicture | None
            The picture; None if it was not kept.
        """
        return self.find_all([key])[0]

    def find_all(self, keys: Sequence[PartKey]) -> list[StoredPicture | None]:
        """Return the pictures of several parts.

        Parameters
        ----------
        keys
            The parts.

        Returns
        -------
        list[StoredPicture | None]
            The result of `find` for each part.
        """
        with self._reading() as connection:
            return [self._find(connection, key) for key in keys]

    def read(self, picture: int) -> bytes:
        """Return the PNG file of a picture.

        Parameters
        ----------
        picture
            Row of the picture.

        Returns
        -------
        bytes
            The file.

        Raises
        ------
        ChoiceError
            If the picture is no longer kept.
        """
        with self._reading() as connection:
            row = connection.execute("SELECT png FROM pictures WHERE id = ?", (picture,)).fetchone()
        if not row:
            raise ChoiceError(f"the picture {picture} is no longer kept; choose a newer part")
        return bytes(row[0])

    def list_pictures(self, *, since: str = "", labelled: bool | None = None, limit: int = -1) -> list[StoredPicture]:
        """Return the stored pictures.

        Parameters
        ----------
        since
            First time, ISO 8601 in UTC; empty for all.
        labelled
            True for pictures with a label, False for those without, None for both.
        limit
            Largest number of pictures; -1 for all.

        Returns
        -------
        list[StoredPicture]
            The pictures, newest first.
        """
        chosen = {None: "", True: " AND label IS NOT NULL", False: " AND label IS NULL"}[labelled]
        with self._reading() as connection:
            question = f"{_PICTURES} WHERE pictures.time >= ?{chosen} ORDER BY pictures.id DESC LIMIT ?"
            return [_to_picture(row) for row in connection.execute(question, (since, limit))]

    def label(self, picture: StoredPicture, label: object, who: object) -> Change:
        """Label a picture; the new label replaces the earlier one.

        Parameters
        ----------
        picture
            The picture.
        label
            ``good`` or ``bad``.
        who
            Name of the person.

        Returns
        -------
        Change
            The row of the audit log.

        Raises
        ------
        ChoiceError
            If the label is not valid, or the name is empty or too long.
        """
        if label not in get_args(Label):
            raise ChoiceError(f"the label is {label!r}; give good or bad")
        name = check_name(who)
        with self._writing() as connection:
            time = now()
            cursor = connection.execute(
                "INSERT INTO labels (picture, label, who, time) VALUES (?, ?, ?, ?)", (picture.id, label, name, time)
            )
            facts = {
                "id": cursor.lastrowid,
                "label": label,
                "before": picture.label,
                "picture": picture.sha256,
                "part": asdict(picture.key),
                "verdict": picture.verdict,
                "score": picture.score,
            }
            return append(connection, time, "label", name, facts)

    def record(self, kind: str, who: str, facts: Mapping[str, Any]) -> Change:
        """Add a change to the audit log.

        Parameters
        ----------
        kind
            One of the kinds of `Change`.
        who
            Name of the person; empty for none.
        facts
            The change, as a JSON object.

        Returns
        -------
        Change
            The row of the audit log.
        """
        with self._writing() as connection:
            return append(connection, now(), kind, who, facts)

    def changes(self, limit: int = -1, kinds: tuple[str, ...] = ()) -> list[Change]:
        """Return the newest changes.

        Parameters
        ----------
        limit
            Largest number of changes; -1 for all.
        kinds
            Only changes of these kinds; empty for all.

        Returns
        -------
        list[Change]
            The changes, oldest first.
        """
        with self._reading() as connection:
            return read_changes(connection, limit, kinds)

    def verify(self) -> list[str]:
        """Check log, labels and pictures.

        Returns
        -------
        list[str]
            One sentence for each damaged place; empty if there is none.
        """
        with self._reading() as connection:
            return list(verify_audit(connection))

    def _find(self, connection: sqlite3.Connection, key: PartKey) -> StoredPicture | None:
        row = connection.execute(
            f"{_PICTURES} WHERE pictures.time = ? AND number = ? AND substr(source, 1, ?) = ?",
            (key.time, key.index, _compared(key.source), key.source),
        ).fetchone()
        return None if row is None else _to_picture(row)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        unlabelled = "id NOT IN (SELECT picture FROM labels)"
        (used,) = connection.execute(
            f"SELECT coalesce(sum(size), 0) FROM pictures WHERE {unlabelled}"  # noqa: S608 - our own words
        ).fetchone()
        if used <= self._quota:
            return
        oldest = connection.execute(f"SELECT id, size FROM pictures WHERE {unlabelled} ORDER BY id").fetchall()  # noqa: S608
        for number, size in oldest[:-1]:  # the newest is always kept
            if used <= self._quota:
                break
            connection.execute("DELETE FROM pictures WHERE id = ?", (number,))
            used -= size

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection; while there is no file, one to an empty database in memory."""
        with self._lock, self._errors():
            self._leave_removed_file()
            if self._connection is None and not self.path.exists():
                with closing(sqlite3.connect(":memory:")) as empty:
                    _prepare(empty, self.path)
                    yield empty
            else:
                yield self._open()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._leave_removed_file()
            with transaction(self._open()) as connection:
                yield connection

    def _leave_removed_file(self) -> None:
        """Close a file that was removed or renamed: new rows in it would be lost."""
        if self._connection is not None and identify(self.path) != self._identity:
            _LOG.warning("%r was removed or renamed; a new file is begun", str(self.path))
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            make_folder(self.path.parent)
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5.0)
            try:
                _prepare(connection, self.path)
            except BaseException:
                connection.close()
                raise
            self._connection, self._identity = connection, identify(self.path)
        return self._connection

    def _errors(self) -> AbstractContextManager[None]:
        what = f"cannot use the labels in {str(self.path)!r}"
        return explaining(OutputError, what, "free some space, or check the file", of=sqlite3.Error)


SHOWN_SOURCE = 300
"""Number of characters of a source's name on the page; a longer name is found by its beginning."""

_PICTURES = (
    "SELECT pictures.id, pictures.time, number, source, part, verdict, score, threshold, model, sha256, label, who "
    "FROM pictures LEFT JOIN labels ON labels.id = (SELECT max(id) FROM labels WHERE picture = pictures.id)"
)


def labels_path(database: Path) -> Path:
    """Return the path of the labels of a history: ``history.labels.db`` beside ``history.db``.

    Parameters
    ----------
    database
        The history, or the database of labels itself.

    Returns
    -------
    Path
        Path of the database of labels.
    """
    return database if database.name.endswith(".labels.db") else database.with_suffix(".labels.db")


def open_existing(database: Path | str) -> LabelStore:
    """Open the labels of a history.

    Parameters
    ----------
    database
        The history, or the database of labels itself.

    Returns
    -------
    LabelStore
        The labels.

    Raises
    ------
    OutputError
        If there are no labels.
    """
    path = labels_path(Path(database))
    if not path.is_file():
        raise OutputError(
            f"there are no labels at {str(path)!r}; give the history of a line with a dashboard, such as history.db"
        )
    return LabelStore(path)


def check_name(who: object) -> str:
    """Check a person's name.

    Parameters
    ----------
    who
        The name.

    Returns
    -------
    str
        The name without spaces around it.

    Raises
    ------
    ChoiceError
        If it is empty or too long.
    """
    if not isinstance(who, str) or not 0 < len(who.strip()) <= LONGEST_NAME:
        raise ChoiceError(f"give your name, up to {LONGEST_NAME} letters")
    return to_utf8(who.strip())


def encode(frame: Frame) -> bytes:
    """Encode a frame as a PNG file.

    Parameters
    ----------
    frame
        HxW, HxWx1 or HxWx3 (BGR), uint8 or uint16.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    ChoiceError
        If the frame is not a picture.
    """
    if frame.size == 0 or frame.dtype not in (np.uint8, np.uint16):
        raise ChoiceError("the frame is not a picture of 8 or 16 bits")
    return cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    with closing(connection.execute("SELECT count(*) FROM sqlite_master")) as cursor:
        (tables,) = cursor.fetchone()
    if owner != APPLICATION_ID and (owner != 0 or tables):
        raise OutputError(f"{str(path)!r} is not a database of labels; move it away")
    if version > SCHEMA_VERSION:
        raise OutputError(f"{str(path)!r} was written by a newer onspect (schema {version}); update onspect")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    for statement in (*_TABLES, *SCHEMA):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _to_picture(row: tuple[Any, ...]) -> StoredPicture:
    number, time, index, source, *facts = row
    return StoredPicture(number, PartKey(time, index, source), *facts)


def _compared(source: str) -> int:
    """Return the number of characters of a stored source to compare: all, unless this name may be cut off."""
    return len(source) if len(source) >= SHOWN_SOURCE else 1 << 30


def to_utf8(text: str) -> str:
    """Return text that UTF-8 can encode; bytes of a file name that are not UTF-8 become escapes.

    Parameters
    ----------
    text
        The text.

    Returns
    -------
    str
        The text.
    """
    return text.encode(errors="backslashreplace").decode()
