from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from onspect.runtime.inspection.verdict import Verdict, parse_verdict
from onspect.runtime.ray.partitions import encode
from onspect.runtime.sinks.columns import COLUMNS, encode_verdict, to_row
from onspect.runtime.sinks.lines import CsvSink
from onspect.runtime.sinks.sqlite import SqliteSink

from ..verdicts import inspection

FIELDS = [field.name for field in fields(Verdict)]


def test_every_field_of_a_verdict_is_a_column_of_every_table(tmp_path: Path) -> None:
    """CSV, SQLite and Parquet have one column for each field of `Verdict`, in its order."""
    pytest.importorskip("pyarrow", reason="the extra 'ray' is not installed")
    from pyarrow import parquet

    with CsvSink(tmp_path / "a.csv") as lines, SqliteSink(tmp_path / "a.db") as database:
        lines.write(inspection())
        database.write(inspection())
    (tmp_path / "a.parquet").write_bytes(encode("parquet", [inspection().verdict]))
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(verdicts)")]
    assert (tmp_path / "a.csv").read_text().split()[0].split(",") == FIELDS
    assert columns == ["id", *FIELDS, "evidence"]
    assert parquet.read_schema(tmp_path / "a.parquet").names == FIELDS


def test_columns_have_the_types_of_the_fields() -> None:
    """Numbers are numbers, lists are lists, and all else is text; an optional field has the type of its value."""
    assert [COLUMNS[name] for name in ("index", "score", "threshold", "verdict", "reason", "regions")] == [
        int,
        float,
        float,
        str,
        str,
        tuple,
    ]
    row = to_row(inspection(reason="dark").verdict)
    assert all(type(row[name]) is COLUMNS[name] for name in ("index", "score", "threshold", "verdict", "reason"))
    assert row["regions"].startswith('[{"x": 1')


def test_line_of_a_verdict_can_be_read_back() -> None:
    """The bytes of a verdict are its JSON in UTF-8 and can be read back, for any name of the source."""
    for source in ("Prüfling.png", "a\nb.png"):
        verdict = inspection(source=source).verdict
        assert parse_verdict(encode_verdict(verdict)) == verdict
    assert rb"Pr\udce4fling" in encode_verdict(inspection(source="Pr\udce4fling").verdict)
