"""Pictures as the camera took them, the labels that people gave them, and the audit log, in one SQLite database."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np

from onspect.runtime.atomic import identify, make_folder
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.images.decode import Frame
from onspect.runtime.inspection.verdict import Verdict, now
from onspect.runtime.labels.audit import SCHEMA, Change, append, read_changes, verify_audit

_LOG = logging.getLogger("onspect")

APPLICATION_ID = 0x4F4E534C  # "ONSL"
SCHEMA_VERSION = 1

Label = Literal["good", "bad"]

QUOTA_BYTES = 1_000_000_000
"""What pictures without a label may take; those with one are always kept."""

LONGEST_NAME = 80
"""Characters of a person's name at most."""

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
    """What names a part in every record: its verdict's time, position in the run, and source."""

    time: str
    index: int
    source: str

    @classmethod
    def of(cls, verdict: Verdict) -> PartKey:
        """Return the key of a verdict's part."""
        return cls(verdict.time, verdict.index, to_utf8(verdict.source))


@dataclass(frozen=True)
class StoredPicture:
    """A picture in the database, without its pixels."""

    id: int
    """Row in the table ``pictures``."""

    key: PartKey
    """The part that it shows."""

    part: str | None
    """The part's id, None if the source does not know it."""

    verdict: str
    """What the line decided then."""

    score: float | None
    """The score then, None for a fault."""

    threshold: float
    """The threshold then."""

    model: str
    """The model's name and checksum then."""

    sha256: str
    """Of the PNG file."""

    label: Label | None
    """The newest label, None without one."""

    who: str | None
    """Who gave the newest label."""


class LabelStore:
    """The database of one line; safe to share between threads. The file is made when the first picture is kept.

    quota: bytes of the pictures without a label; the oldest go first. Methods raise OutputError if the database cannot
    be read or written.
    """

    def __init__(self, path: Path, *, quota: int = QUOTA_BYTES) -> None:
        self.path = path
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
        """Keep a part's picture as PNG, which loses nothing; return its row. A part that is there already is kept once.

        frame: HxW, HxWx1 or HxWx3 (BGR), uint8 or uint16.
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
        """Return a part's picture, None if it was not kept. The key of a long source may have its beginning only."""
        with self._reading() as connection:
            return None if connection is None else self._find(connection, key)

    def find_all(self, keys: Sequence[PartKey]) -> list[StoredPicture | None]:
        """Return the picture of each part, as `find`."""
        with self._reading() as connection:
            return [None if connection is None else self._find(connection, key) for key in keys]

    def read(self, picture: int) -> bytes:
        """Return a picture's PNG file; raises ChoiceError if it is not kept any more."""
        with self._reading() as connection:
            row = connection and connection.execute("SELECT png FROM pictures WHERE id = ?", (picture,)).fetchone()
        if not row:
            raise ChoiceError(f"the picture {picture} is not kept any more; choose a newer part")
        return bytes(row[0])

    def list_pictures(self, *, since: str = "", labelled: bool | None = None, limit: int = -1) -> list[StoredPicture]:
        """Return pictures, newest first: from a time (ISO 8601) on, and with or without a label, or both."""
        chosen = {None: "", True: " AND label IS NOT NULL", False: " AND label IS NULL"}[labelled]
        with self._reading() as connection:
            if connection is None:
                return []
            question = f"{_PICTURES} WHERE pictures.time >= ?{chosen} ORDER BY pictures.id DESC LIMIT ?"
            return [_to_picture(row) for row in connection.execute(question, (since, limit))]

    def label(self, picture: StoredPicture, label: str, who: str) -> Change:
        """Give a picture a label, which replaces an earlier one; returns the row of the audit log.

        Raises ChoiceError if the label is not ``good`` or ``bad``, or the name is empty or too long.
        """
        if label not in get_args(Label):
            raise ChoiceError(f"the label is {label!r}; give good or bad")
        who = check_name(who)
        with self._writing() as connection:
            time = now()
            cursor = connection.execute(
                "INSERT INTO labels (picture, label, who, time) VALUES (?, ?, ?, ?)", (picture.id, label, who, time)
            )
            facts = {
                "id": cursor.lastrowid,
                "label": label,
                "before": picture.label,
                "picture": picture.sha256,
                "part": {"time": picture.key.time, "index": picture.key.index, "source": picture.key.source},
                "verdict": picture.verdict,
                "score": picture.score,
            }
            return append(connection, time, "label", who, facts)

    def record(self, kind: str, who: str, facts: Mapping[str, Any]) -> Change:
        """Add a change to the audit log."""
        with self._writing() as connection:
            return append(connection, now(), kind, who, facts)

    def changes(self, limit: int = -1, kinds: tuple[str, ...] = ()) -> list[Change]:
        """Return the newest changes (of some kinds), oldest first; limit -1 for all."""
        with self._reading() as connection:
            return [] if connection is None else read_changes(connection, limit, kinds)

    def verify(self) -> list[str]:
        """Return a sentence for each place where log, labels or pictures were changed; raises OutputError."""
        with self._reading() as connection:
            return [] if connection is None else list(verify_audit(connection))

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
        for number, size in oldest[:-1]:  # the newest stays in any case
            if used <= self._quota:
                break
            connection.execute("DELETE FROM pictures WHERE id = ?", (number,))
            used -= size

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Yield the connection, None while there is no file."""
        with self._lock, self._errors():
            self._leave_removed_file()
            if self._connection is None and not self.path.exists():
                yield None
            else:
                yield self._open()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._leave_removed_file()
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _leave_removed_file(self) -> None:
        """Close a file that was removed or renamed: nobody would see what is written into it."""
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

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(
                f"cannot use the labels in {str(self.path)!r}: {error}; free some space, or check the file"
            ) from error


SHOWN_SOURCE = 300
"""Characters of a source's name that the page is told; a longer name is found by these."""

_PICTURES = (
    "SELECT pictures.id, pictures.time, number, source, part, verdict, score, threshold, model, sha256, label, who "
    "FROM pictures LEFT JOIN labels ON labels.id = (SELECT max(id) FROM labels WHERE picture = pictures.id)"
)


def labels_path(database: Path) -> Path:
    """Return where the labels of a history are: beside it, ``history.db`` has ``history.labels.db``."""
    return database if database.name.endswith(".labels.db") else database.with_suffix(".labels.db")


def open_existing(database: Path) -> LabelStore:
    """Return the labels of a history, or of a database of labels; raises OutputError if there are none."""
    path = labels_path(database)
    if not path.is_file():
        raise OutputError(
            f"there are no labels at {str(path)!r}; give the history of a line with a dashboard, such as history.db"
        )
    return LabelStore(path)


def check_name(who: object) -> str:
    """Return a person's name without spaces around it; raises ChoiceError if it is empty or too long."""
    if not isinstance(who, str) or not 0 < len(who.strip()) <= LONGEST_NAME:
        raise ChoiceError(f"give your name, up to {LONGEST_NAME} letters")
    return to_utf8(who.strip())


def encode(frame: Frame) -> bytes:
    """Return a frame as a PNG file; raises ChoiceError if it is no picture."""
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
    """Return how many characters of a stored source are compared with this one: all, unless it may be cut off."""
    return len(source) if len(source) >= SHOWN_SOURCE else 1 << 30


def to_utf8(text: str) -> str:
    """Return text that UTF-8 can hold; bytes of a file name that are no UTF-8 become escapes."""
    return text.encode(errors="backslashreplace").decode()
