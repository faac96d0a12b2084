from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from onspect.runtime.errors import OutputError
from onspect.runtime.inspection.regions import Region
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.ray.partitions import (
    LARGEST,
    SMALLEST,
    Job,
    check_same,
    choose_partition,
    count_verdicts,
    encode,
    find_job,
    fingerprint_list,
    open_folder,
    read_written,
    write_job,
)

JOB = Job("tiny@0", "0" * 64, "f" * 32, images=250, partition=100, kind="jsonl")


def verdicts(count: int, first: int = 0, source: str = "ü.png") -> list[Verdict]:
    """Return verdicts, every second one ng with a region."""
    common = {"time": "2026-01-01T00:00:00.000Z", "threshold": 0.5, "latency_ms": 1.5, "model": "tiny@0"}
    regions = (Region(1, 2, 3, 4, 0.1, 12),)
    return [
        Verdict(source, number, verdict="ng", score=0.1 + number, regions=regions, **common)  # type: ignore[arg-type]
        if number % 2
        else Verdict(source, number, verdict="fault", score=None, regions=(), reason="cut", **common)  # type: ignore[arg-type]
        for number in range(first, first + count)
    ]


def test_partitions_cover_every_image_once() -> None:
    """The partitions of a job part its images in order, and the last may be shorter."""
    places = [place for number in range(JOB.partitions) for place in JOB.span(number)]
    assert places == list(range(250))
    assert (JOB.partitions, JOB.name(2)) == (3, "part-000002.jsonl")


def test_partition_suits_the_job() -> None:
    """A partition is small for few images, and never so large that a lost worker would lose much."""
    assert choose_partition(10, workers=2) == SMALLEST
    assert choose_partition(32_000, workers=2) == 1000
    assert choose_partition(10**9, workers=2) == LARGEST


def test_fingerprint_knows_the_order() -> None:
    """Lists of the same images have the same fingerprint only in the same order; names may be any bytes."""
    assert fingerprint_list(["a", "b"]) == fingerprint_list(["a", "b"])
    assert len({fingerprint_list(names) for names in (["a", "b"], ["b", "a"], ["ab"], ["a\udce4", "b"])}) == 4


def test_job_is_found_again(tmp_path: Path) -> None:
    """The description of a job can be read back, beside its counts."""
    folder = open_folder(str(tmp_path / "new"))
    assert find_job(folder, "new") is None
    write_job(folder, JOB)
    assert find_job(folder, "new") == JOB
    write_job(folder, JOB, Counter(ok=3))
    assert find_job(folder, "new") == JOB
    assert json.loads((tmp_path / "new" / "_job.json").read_text())["complete"] == {"ok": 3}


def test_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    """A folder that is not empty and has no job, a damaged or newer job, and a file, are refused."""
    folder = open_folder(str(tmp_path))
    for content in ("{", "[]", "{}", '{"format_version": 9}', '{"format_version": 1}'):
        (tmp_path / "_job.json").write_text(content)
        with pytest.raises(OutputError, match=r"_job\.json.*give a new folder"):
            find_job(folder, str(tmp_path))
    (tmp_path / "_job.json").rename(tmp_path / "photo.png")
    with pytest.raises(OutputError, match=r"not the output of a job \(photo\.png\)"):
        find_job(folder, str(tmp_path))
    with pytest.raises(OutputError, match="is a file"):
        open_folder(str(tmp_path / "photo.png"))


def test_only_stores_that_write_whole_files_are_taken() -> None:
    """A URL at which half a file could be seen is refused."""
    with pytest.raises(OutputError, match="sftp://; give a folder"):
        open_folder("sftp://host/out")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "1" * 64, "model": "other@1"}, "the model was tiny@0, and is other@1 now"),
        ({"sources": "e" * 32, "images": 3}, "250 images is not the list of 3"),
        ({"kind": "parquet"}, "jsonl, not parquet"),
    ],
)
def test_other_job_is_not_gone_on_with(change: dict[str, object], words: str) -> None:
    """A job does not continue with another model, other images or another kind of partition."""
    check_same(JOB, dataclasses.replace(JOB, partition=7), "out")
    with pytest.raises(OutputError, match=words):
        check_same(JOB, dataclasses.replace(JOB, **change), "out")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_damaged_partitions_are_judged_again(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """Only complete partitions count as written; a cut, short or foreign one gives a warning."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    job = dataclasses.replace(JOB, images=500, kind=kind)  # type: ignore[arg-type]
    folder = open_folder(str(tmp_path))
    whole = encode(job.kind, verdicts(100))
    for number, content in enumerate([whole, whole[:-9], encode(job.kind, verdicts(99)), b"no verdicts\n"]):
        folder.write(job.name(number), content)
    assert read_written(folder, job) == {0: {"fault": 50, "ng": 50}}
    assert [record.message.split()[0] for record in caplog.records] == [job.name(number) for number in (1, 2, 3)]


def test_parquet_has_the_fields_of_a_line() -> None:
    """A row of Parquet has what the verdict's line has, with the time as a time, for any file name."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    some = verdicts(3, source="Pr\udce4fling.png")
    rows = parquet.read_table(pyarrow.BufferReader(encode("parquet", some))).to_pylist()
    lines = [json.loads(line) for line in encode("jsonl", some).splitlines()]
    assert [row.pop("time").isoformat() for row in rows] == ["2026-01-01T00:00:00+00:00"] * 3
    for line in lines:
        del line["time"]
        line["source"] = line["source"].encode(errors="backslashreplace").decode()
    assert rows == lines
    assert count_verdicts("parquet", encode("parquet", [])) == {}
