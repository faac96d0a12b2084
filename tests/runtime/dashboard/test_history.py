from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from onspect.runtime.errors import OutputError
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.sinks.history import Hour, read_recent, yield_per_hour
from onspect.runtime.sinks.sqlite import SqliteSink

from ..verdicts import inspection


def ask(path: Path, question: str) -> list[tuple[object, ...]]:
    """Return the rows of a query."""
    with closing(sqlite3.connect(path)) as connection:
        answer = connection.execute(question).fetchall()
        connection.commit()
        return answer


def test_verdicts_come_back_equal(tmp_path: Path) -> None:
    """The history returns the written verdicts, newest first, in this run and after it."""
    path = tmp_path / "new" / "history.db"
    items = [inspection(index=index, part=f"P-{index}") for index in range(4)]
    items.append(inspection(index=4, verdict="fault", score=None, regions=(), reason="schwarz, ü"))
    with SqliteSink(path) as sink:
        for item in items:
            sink.write(item)
        assert [record.verdict for record in read_recent(path)] == [item.verdict for item in reversed(items)]
    assert [record.id for record in read_recent(path, limit=2)] == [5, 4]
    assert [record.verdict.index for record in read_recent(path, "fault")] == [4]
    assert read_recent(path, "ok") == []


def test_history_is_added_to(tmp_path: Path) -> None:
    """A second run adds to the first one's history."""
    for index in range(2):
        with SqliteSink(tmp_path / "h.db") as sink:
            sink.write_many([inspection(index=index)])
    assert [record.verdict.index for record in read_recent(tmp_path / "h.db")] == [1, 0]


def test_yield_by_the_hour(tmp_path: Path) -> None:
    """Counts by hour add up over batches and runs; an hour without parts has zeros and no share."""
    path = tmp_path / "h.db"
    for clock, verdict, count in (("09:59:59.999", "ok", 3), ("10:00:00.000", "ng", 1), ("10:30:00.000", "ok", 3)):
        with SqliteSink(path) as sink:
            sink.write_many([inspection(time=f"2026-01-01T{clock}Z", verdict=verdict)] * count)
    hours = yield_per_hour(path, 3, now=datetime(2026, 1, 1, 11, 15, tzinfo=UTC))
    assert hours == [
        Hour("2026-01-01T09:00:00Z", ok=3),
        Hour("2026-01-01T10:00:00Z", ok=3, ng=1),
        Hour("2026-01-01T11:00:00Z"),
    ]
    assert [hour.good_share for hour in hours] == [1.0, 0.75, None]


def test_failed_batch_leaves_nothing(tmp_path: Path) -> None:
    """If a transaction fails, none of its rows and counts stay, and the next one works."""
    path = tmp_path / "h.db"
    with SqliteSink(path) as sink:
        ask(path, "ALTER TABLE hours RENAME TO away")
        with pytest.raises(OutputError, match="no such table: hours"):
            sink.write_many([inspection()] * 3)
        ask(path, "ALTER TABLE away RENAME TO hours")
        assert read_recent(path) == []
        sink.write(inspection(index=1))
    assert len(read_recent(path)) == 1


def test_limited_disk_leaves_a_whole_database(tmp_path: Path) -> None:
    """If no more may be written, OutputError is raised, and the database keeps the earlier rows."""
    path = tmp_path / "h.db"
    with SqliteSink(path) as sink:
        sink.write(inspection(index=0))
        assert sink._connection is not None
        pages = sink._connection.execute("PRAGMA page_count").fetchone()[0]
        sink._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutputError, match=r"database or disk is full; free some space"):
            sink.write_many([inspection(index=index) for index in range(1, 500)])
    assert [record.verdict.index for record in read_recent(path)] == [0]


def test_history_of_an_older_version_gains_columns(tmp_path: Path) -> None:
    """A database that lacks a column of today's verdicts gets it, and its rows are read."""
    path = tmp_path / "h.db"
    with SqliteSink(path) as sink:
        sink.write(inspection(index=0))
    ask(path, "ALTER TABLE verdicts DROP COLUMN part")
    with SqliteSink(path) as sink:
        sink.write(inspection(index=1, part="P"))
    assert [record.verdict.part for record in read_recent(path)] == ["P", None]


def test_foreign_and_newer_databases_are_refused(tmp_path: Path) -> None:
    """Another program's database, one of a newer onspect, and a file of another kind are refused unchanged."""
    foreign, newer, text = tmp_path / "foreign.db", tmp_path / "newer.db", tmp_path / "notes.txt"
    ask(foreign, "CREATE TABLE verdicts (a)")
    with SqliteSink(newer):
        pass
    ask(newer, "PRAGMA user_version = 2")
    text.write_text("no database, and long enough to be looked at" * 10)
    for path, message in ((foreign, "another program's"), (newer, "newer onspect"), (text, "not a database")):
        before = path.read_bytes()
        with pytest.raises(OutputError, match=message), SqliteSink(path):
            pass
        assert path.read_bytes() == before


def test_old_rows_are_forgotten(tmp_path: Path) -> None:
    """With days, older rows go and newer ones stay; the counts by hour stay."""
    path = tmp_path / "h.db"
    start = datetime.now(UTC) - timedelta(days=39)
    with SqliteSink(path, days=30) as sink:
        for day in range(40):
            sink.write(inspection(index=day, time=(start + timedelta(days=day)).isoformat()))
        sink.flush()
    kept = sorted(record.verdict.index for record in read_recent(path))
    assert kept == list(range(10, 40)) or kept == list(range(9, 40))
    assert ask(path, "SELECT sum(count) FROM hours") == [(40,)]


def test_rows_age_while_the_line_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock ages rows, over restarts too."""
    path, passed = tmp_path / "h.db", 0.0
    monotonic, wall = time.monotonic, time.time
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed)
    monkeypatch.setattr(time, "time", lambda: wall() + passed)
    for index in range(4):
        with SqliteSink(path, days=30) as sink:
            sink.write(inspection(index=index))
            sink.flush()
            passed += 20 * 86_400
            sink.flush()
    assert sorted(record.verdict.index for record in read_recent(path)) == [3]


@pytest.mark.parametrize("years", [-50, 10])
def test_a_clock_that_jumps_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, years: int) -> None:
    """A clock far ahead or behind, while the line runs, at its start and for rows of that time, ages nothing much."""
    path = tmp_path / "h.db"
    wall, jump = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: wall() + jump)
    with SqliteSink(path, days=30) as sink:
        sink.write_many([inspection(index=0, time=datetime.now(UTC).isoformat())] * 100)
        sink.flush()
    for _ in range(3):
        jump = years * 365.0 * 86_400
        with SqliteSink(path, days=30) as sink:
            wrong = datetime.fromtimestamp(time.time(), UTC)
            sink.write(inspection(index=1, time=wrong.isoformat()))
            sink.flush()
            jump = 0.0
            sink.write(inspection(index=2, time=datetime.now(UTC).isoformat()))
            sink.flush()
    assert ask(path, "SELECT count(*) FROM verdicts") == [(106,)]


def test_missing_history_is_an_output_error(tmp_path: Path) -> None:
    """Reading where there is no history says so, and creates none."""
    with pytest.raises(OutputError, match="cannot read the history"):
        read_recent(tmp_path / "h.db")
    assert list(tmp_path.iterdir()) == []


def test_name_that_is_no_utf8_is_kept(tmp_path: Path) -> None:
    r"""A file name with bytes that are not UTF-8 is kept as its JSON escape."""
    with SqliteSink(tmp_path / "h.db") as sink:
        sink.write(inspection(source="Pr\udce4fling.png"))
    assert read_recent(tmp_path / "h.db")[0].verdict.source == r"Pr\udce4fling.png"


def test_reader_does_not_hold_up_the_writer(tmp_path: Path) -> None:
    """While a reader is in the middle of a long question, verdicts are written."""
    path = tmp_path / "h.db"
    with SqliteSink(path) as sink, closing(sqlite3.connect(path)) as reader:
        sink.write_many([inspection()] * 10)
        question = reader.execute("SELECT * FROM verdicts")
        question.fetchone()
        sink.write(inspection())
        sink.flush()
        assert len(question.fetchall()) == 9


def test_killed_process_keeps_what_it_wrote(tmp_path: Path) -> None:
    """After a process has died without closing, every verdict whose write returned is in the history."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from onspect.runtime.sinks.sqlite import SqliteSink\n"
        "from onspect.runtime.inspection.inspector import Inspection\n"
        "from onspect.runtime.inspection.verdict import Verdict\n"
        "with SqliteSink(Path(sys.argv[1])) as sink:\n"
        "    for i in range(99):\n"
        "        sink.write(Inspection.without_picture(Verdict('a', i, '2026', 'ok', 0.1, 0.2, (), 1.0, 'm')))\n"
        "    os.abort() if sys.platform == 'win32' else os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "h.db"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, check=False)
    assert done.returncode != 0
    assert len(read_recent(path, limit=1000)) == 99
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_every_field_of_a_verdict_has_a_column(tmp_path: Path) -> None:
    """The table has the fields of a verdict under their names, and its picture's place."""
    with SqliteSink(tmp_path / "h.db"):
        pass
    columns = [row[1] for row in ask(tmp_path / "h.db", "PRAGMA table_info(verdicts)")]
    assert columns == ["id", *Verdict.__dataclass_fields__, "evidence"]


@pytest.mark.parametrize(("faults", "others", "listed"), [(300, 3, (8, 3)), (300, 300, (8, 16)), (2, 300, (2, 22))])
def test_few_faults_stand_among_the_last_rejects(faults: int, others: int, listed: tuple[int, int]) -> None:
    """Faults take eight places at most, whatever their number; the newest come first."""
    pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
    from onspect.runtime.dashboard.history import pick_rejects

    parts = [(number, "ng") for number in range(others)] + [(1000 + number, "fault") for number in range(faults)]
    picked = pick_rejects(parts, lambda part: part)
    assert (sum(kind == "fault" for _, kind in picked), sum(kind == "ng" for _, kind in picked)) == listed
    assert [number for number, _ in picked] == sorted((number for number, _ in picked), reverse=True)
