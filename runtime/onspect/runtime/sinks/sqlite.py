"""Verdicts in an SQLite database: the history of the line, which can be read while it is written.

When `write` returns, the verdict survives the process. WAL with ``synchronous=NORMAL`` hands each commit to the
operating system without a wait for the disk. That wait takes an industrial flash card 10 to 100 ms for each part. About
once a second a checkpoint forces everything to the disk, so a power cut loses at most the last second and never the
database.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Self

from onspect.runtime.address import parse_file
from onspect.runtime.atomic import check_place, identify, make_folder
from onspect.runtime.errors import OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.sinks.columns import COLUMNS, to_row
from onspect.runtime.sinks.evidence import evidence_name

APPLICATION_ID = 0x4F4E5350  # "ONSP": identifies our databases
SCHEMA_VERSION = 1
"""Value of ``PRAGMA user_version``; within a version, columns may be added and nothing else changes."""

_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT", tuple: "TEXT"}
_COLUMNS = {name: _TYPES[kind] for name, kind in COLUMNS.items()} | {"evidence": "TEXT"}
_FORGET_AT_ONCE = 2000
_LOST_AT_ONCE = 500
_LOST_AT_MOST = 10_000  # pictures that were not written and whose rows are not found yet
_DAY = 86_400.0  # seconds
_MARK_EVERY = 3600.0  # seconds


_LOG = logging.getLogger("onspect")


class SqliteSink(Sink):
    """Add verdicts to the table ``verdicts``, and count them by hour in the table ``hours``.

    The age of a row follows from the rows after it and from the running time of the line (`RowAges`), never from the
    clock alone.

    Parameters
    ----------
    path
        The database.
    evidence
        Whether an `EvidenceSink` runs beside it, so that each row has the path of its picture.
    days
        Days after which rows are removed, 1 or more; None for never. The counts by hour are always kept.
    """

    delivery: Delivery = "record"
    pictures = False
    batch = 100

    def __init__(self, path: Path, *, evidence: bool = False, days: int | None = None) -> None:
        self._path = self.history = path
        self._evidence = evidence
        self._days = days
        self._connection: sqlite3.Connection | None = None
        self._keeper: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._age: RowAges | None = None
        self._lost_evidence: deque[str] = deque(maxlen=_LOST_AT_MOST)

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        with self._errors():
            connection = _connect(self._path)
            try:
                _check_owner(connection, self._path)
                _make_tables(connection, self._path)
                self._keeper = _connect(self._path)
            except BaseException:
                connection.close()
                raise
        self._connection = connection
        self._identity = identify(self._path)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._mark_lost(self._connection)
        for connection in (self._keeper, self._connection):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._connection = self._keeper = self._age = None

    def write(self, inspection: Inspection) -> None:
        """Add one verdict.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If the disk is full or another program has locked the database.
        """
        self.write_many([inspection])

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Add verdicts in one transaction, all or none.

        Parameters
        ----------
        inspections
            The inspections.

        Raises
        ------
        OutputError
            If the disk is full or another program has locked the database.
        """
        if identify(self._path) != self._identity:
            self._begin_anew()
        assert self._connection is not None
        verdicts = [inspection.verdict for inspection in inspections]
        rows = [[*to_row(one).values(), evidence_name(one) if self._evidence else None] for one in verdicts]
        hours = Counter((one.time[:13], one.verdict) for one in verdicts)
        with self._errors(), transaction(self._connection) as connection:
            connection.executemany(_INSERT, rows)
            self._mark_lost(connection)
            connection.executemany(_COUNT, [(hour, verdict, count) for (hour, verdict), count in hours.items()])

    def read_recent(self, count: int) -> list[Verdict]:
        """Return the last verdicts.

        Parameters
        ----------
        count
            Largest number of verdicts, 1 or more.

        Returns
        -------
        list[Verdict]
            The verdicts, oldest first.

        Raises
        ------
        OutputError
            If the database cannot be read.
        """
        from onspect.runtime.sinks.history import read_recent

        return [record.verdict for record in reversed(read_recent(self._path, limit=count))]

    def probe(self) -> str:
        """Check whether the database is ours or can be created.

        Returns
        -------
        str
            One sentence about the file.

        Raises
        ------
        OutputError
            If it cannot be written or belongs to another program.
        """
        found = check_place(self._path)
        if self._path.exists() and self._path.stat().st_size:
            with (
                self._errors(),
                closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as database,
            ):
                _check_owner(database, self._path)
        return found

    def flush(self) -> None:
        """Force committed rows to the disk, and remove rows older than `days`; raises OutputError.

        It has its own connection, so another thread can write at the same time.
        """
        keeper = self._keeper
        if keeper is None:  # the other thread is beginning a new file
            return
        with self._errors():
            if self._days is not None:
                self._age = self._age or RowAges(keeper)
                self._age.forget(self._days)
            self._mark_lost(keeper)
            keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _begin_anew(self) -> None:
        """Leave a file that was removed or renamed, and begin a new one."""
        if self._connection is not None:
            words = "%r was removed or renamed while verdicts were written to it; a new file is begun"
            _LOG.warning(words, str(self._path))
        self.__exit__()
        self.__enter__()

    def forget_evidence(self, names: Sequence[str]) -> None:
        """Remove pictures that were not written from their rows; called from any thread.

        Parameters
        ----------
        names
            Names of the pictures, as of `evidence_name`.
        """
        self._lost_evidence.extend(names)

    def _mark_lost(self, connection: sqlite3.Connection) -> None:
        """Remove the pictures that were not written from their rows; a missing row may come later."""
        names = [self._lost_evidence.popleft() for _ in range(len(self._lost_evidence))]
        for start in range(0, len(names), _LOST_AT_ONCE):
            some = names[start : start + _LOST_AT_ONCE]
            try:
                found = {name for (name,) in connection.execute(_FIND_LOST.format(marks(some)), some)}
                if found:
                    connection.execute(_MARK_LOST.format(marks(found)), list(found))
            except sqlite3.Error:
                self._lost_evidence.extend(names[start:])
                raise
            self._lost_evidence.extend(name for name in some if name not in found)

    def _errors(self) -> AbstractContextManager[None]:
        cure = "free some space, or choose another place on a disk of this machine"
        return explaining(OutputError, f"cannot write the database {str(self._path)!r}", cure, of=sqlite3.Error)


class RowAges:
    """Ages of rows, by the order of the rows and the monotonic clock: a wrong clock makes no row old.

    While a line runs, its monotonic clock counts. Between two runs, and between two rows of a database without ages,
    the wall clock counts, at most one day and never backwards. So a clock that is ten years ahead for a while ages the
    rows by a day, and rows live a little longer if a line pauses for days.

    The table ``ages`` has rows of ``id`` and ``elapsed``: verdicts up to this id existed after this number of seconds.
    Its row 0 has the current number of seconds and, in ``clock``, the wall clock of that time.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE IF NOT EXISTS ages (id INTEGER PRIMARY KEY, elapsed REAL, clock REAL)")
        state = connection.execute("SELECT elapsed, clock FROM ages WHERE id = 0").fetchone()
        elapsed, clock = self._read_rows() if state is None else state
        self._before = elapsed + _limit_step(time.time() - clock)
        self._started = time.monotonic()
        self._marked = -math.inf

    def forget(self, days: int) -> None:
        """Remove some of the rows that are too old.

        Parameters
        ----------
        days
            Largest age in days, 1 or more.
        """
        elapsed = self._before + time.monotonic() - self._started
        if elapsed - self._marked >= _MARK_EVERY:
            self._mark(elapsed)
        limit = elapsed - days * _DAY
        (last,) = self._connection.execute(
            "SELECT max(id) FROM ages WHERE id > 0 AND elapsed <= ?", (limit,)
        ).fetchone()
        if last is not None:
            self._connection.execute(_FORGET, (last, _FORGET_AT_ONCE))
            self._connection.execute("DELETE FROM ages WHERE id > 0 AND id < ?", (last,))

    def _mark(self, elapsed: float) -> None:
        self._connection.execute("INSERT OR REPLACE INTO ages VALUES (0, ?, ?)", (elapsed, time.time()))
        (last,) = self._connection.execute("SELECT max(id) FROM verdicts").fetchone()
        if last is not None:  # an older mark of the same row stays: the row exists since then
            self._connection.execute("INSERT OR IGNORE INTO ages VALUES (?, ?, NULL)", (last, elapsed))
        self._marked = elapsed

    def _read_rows(self) -> tuple[float, float]:
        """Mark a database without ages by the times of its rows; return the seconds and the clock at its end."""
        elapsed, marked, before = 0.0, 0.0, None
        marks: list[tuple[int, float]] = []
        for number, text in self._connection.execute("SELECT id, time FROM verdicts ORDER BY id"):
            try:
                now = datetime.fromisoformat(text).timestamp()
            except (TypeError, ValueError):
                continue
            elapsed += _limit_step(now - (now if before is None else before))
            before = now
            if not marks or elapsed - marked >= _MARK_EVERY:
                marks.append((number, elapsed))
                marked = elapsed
        self._connection.executemany("INSERT OR IGNORE INTO ages VALUES (?, ?, NULL)", marks)
        return elapsed, time.time() if before is None else before


def _limit_step(seconds: float) -> float:
    return min(_DAY, max(0.0, seconds))


def open_sqlite(text: str, *, evidence: bool) -> SqliteSink:
    """Return the sink of a database.

    Parameters
    ----------
    text
        The address, ``sqlite:FILE?days=COUNT``.
    evidence
        Whether an `EvidenceSink` runs beside it.

    Returns
    -------
    SqliteSink
        The sink.

    Raises
    ------
    ChoiceError
        If an option is not valid.
    """
    target, options = parse_file(text, {"days": "COUNT"})
    return SqliteSink(Path(target), evidence=evidence, days=options.count("days", smallest=1, largest=100_000))


_QUOTED = ", ".join(f'"{name}"' for name in _COLUMNS)
_INSERT = f"INSERT INTO verdicts ({_QUOTED}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - our own names
_COUNT = (
    "INSERT INTO hours (hour, verdict, count) VALUES (?, ?, ?) "
    "ON CONFLICT (hour, verdict) DO UPDATE SET count = count + excluded.count"
)
_RECENT = "id > (SELECT max(id) FROM verdicts) - 20000 AND evidence IN ({})"
_FIND_LOST = f"SELECT evidence FROM verdicts WHERE {_RECENT}"  # noqa: S608 - as above
_MARK_LOST = f"UPDATE verdicts SET evidence = NULL WHERE {_RECENT}"  # noqa: S608 - as above
_FORGET = "DELETE FROM verdicts WHERE id IN (SELECT id FROM verdicts WHERE id <= ? ORDER BY id LIMIT ?)"


def marks(values: Collection[object]) -> str:
    """Return the question marks of an SQL statement.

    Parameters
    ----------
    values
        The values.

    Returns
    -------
    str
        One question mark for each value, separated by commas.
    """
    return ", ".join("?" * len(values))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cache_size = -512")  # KiB: rows are added at the end, and a line runs for months
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Write completely or not at all.

    Parameters
    ----------
    connection
        A connection without transactions of its own (``isolation_level=None``).

    Yields
    ------
    sqlite3.Connection
        The connection.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back already
            connection.execute("ROLLBACK")
        raise


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Raise OutputError for a database that is not ours or is newer."""
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if owner != APPLICATION_ID and (owner != 0 or tables):
        raise OutputError(f"{str(path)!r} is another program's database; give a file of its own, such as history.db")
    if version > SCHEMA_VERSION:
        raise OutputError(
            f"{str(path)!r} was written by a newer onspect (schema {version}, this one knows {SCHEMA_VERSION}); "
            "update onspect, or give a new file"
        )


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise OutputError(
            f"{str(path)!r} is on a file system where SQLite cannot use WAL; choose a disk of this machine"
        )
    with transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (id INTEGER PRIMARY KEY, "
            + ", ".join(f'"{name}" {kind}' for name, kind in _COLUMNS.items())
            + ")"
        )
        there = {row[1] for row in connection.execute("PRAGMA table_info(verdicts)")}
        for name, kind in _COLUMNS.items():
            if name not in there:
                connection.execute(f'ALTER TABLE verdicts ADD COLUMN "{name}" {kind}')
        connection.execute(
            "CREATE INDEX IF NOT EXISTS verdicts_of_interest ON verdicts (verdict, id) WHERE verdict <> 'ok'"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS hours "
            "(hour TEXT, verdict TEXT, count INTEGER NOT NULL, PRIMARY KEY (hour, verdict)) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
