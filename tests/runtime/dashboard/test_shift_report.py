from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.inspection.regions import Region
from onspect.runtime.sinks.evidence import EvidenceSink
from onspect.runtime.sinks.history_search import Filter, count_scores, list_sources, rank_places, search, summarize
from onspect.runtime.sinks.sqlite import SqliteSink

from ..verdicts import inspection

pytest.importorskip("uvicorn", reason="the extra 'web' is not installed")
from onspect.runtime.dashboard import Dashboard

from .test_dashboard import TOKEN, Client

FRAME = np.full((40, 80), 90, np.uint8)


def region(x: int, y: int) -> tuple[Region, ...]:
    return (Region(x, y, 10, 10, 1.0, 100),)


PARTS: list[dict[str, Any]] = [
    {
        "time": "2026-01-01T06:00:00.000Z",
        "verdict": "ok",
        "score": 0.1,
        "regions": (),
        "source": "cam 1",
        "part": "A-1",
    },
    {"time": "2026-01-01T06:10:00.000Z", "regions": region(5, 5), "source": "cam 1", "part": "A-2"},
    {"time": "2026-01-01T06:20:00.000Z", "regions": region(6, 5), "source": "cam 2", "part": "B-1"},
    {
        "time": "2026-01-01T07:00:00.000Z",
        "verdict": "review",
        "score": 0.23,
        "review_threshold": 0.2,
        "regions": region(70, 30),
        "part": "%_",
    },
    {
        "time": "2026-01-01T08:00:00.000Z",
        "verdict": "fault",
        "score": None,
        "regions": (),
        "reason": "took 31.5 ms",
        "code": "late",
    },
    {"time": "2026-01-01T09:00:00.000Z", "verdict": "fault", "score": None, "regions": (), "reason": "took 40 ms"},
    {"time": "2026-01-01T10:00:00.000Z", "score": 9.0, "regions": region(70, 30), "source": "=1+1"},
]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Return a history of seven parts, with pictures of evidence."""
    items = [inspection(index=index, frame=FRAME, **facts) for index, facts in enumerate(PARTS)]
    with SqliteSink(tmp_path / "history.db", evidence=True) as sink, EvidenceSink(tmp_path / "evidence") as evidence:
        sink.write_many(items)
        evidence.write_many(items)
    return tmp_path / "history.db"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(), [6, 5, 4, 3, 2, 1, 0]),
        (Filter(verdict="ng"), [6, 2, 1]),
        (Filter(verdict="ok"), [0]),
        (Filter(verdict="reject"), [6, 5, 4, 3, 2, 1]),
        (Filter(since="2026-01-01T06:20:00.000Z", until="2026-01-01T08:00:00.000Z"), [3, 2]),
        (Filter(source="cam 1"), [1, 0]),
        (Filter(part="A"), [1, 0]),
        (Filter(part="%"), [3]),
        (Filter(part="a-1' OR 1 --"), []),
        (Filter(region=(0, 0, 6, 6)), [1]),
        (Filter(region=(0, 0, 7, 6)), [2, 1]),
        (Filter(region=(15, 0, 1, 50)), [2]),
        (Filter(region=(60, 20, 50, 50), verdict="review"), [3]),
    ],
)
def test_parts_are_found(history: Path, wanted: Filter, found: list[int]) -> None:
    """Each condition narrows the search, alone and with others; regions match where they overlap."""
    assert [record.verdict.index for record in search(history, wanted)] == found
    assert summarize(history, wanted).total == len(found)


def test_older_parts_follow(history: Path) -> None:
    """A second page begins where the first one ended."""
    first = search(history, Filter(), limit=3)
    second = search(history, Filter(), limit=3, before=first[-1].id)
    assert [record.verdict.index for record in (*first, *second)] == [6, 5, 4, 3, 2, 1]


def test_parts_are_counted(history: Path) -> None:
    """Counts by verdict and camera, faults by reason without numbers, places and scores, the most frequent first."""
    summary = summarize(history, Filter())
    assert summary.counts == {"ok": 1, "ng": 3, "review": 1, "fault": 2}
    assert summary.good_share == pytest.approx(1 / 7)
    assert summary.sources["cam 1"] == {"ok": 1, "ng": 1, "review": 0, "fault": 0}
    assert summary.faults == {"late": 1, "took # ms": 1}
    assert list_sources(history) == ["=1+1", "a.png", "cam 1", "cam 2"]
    places = rank_places(history, Filter(verdict="reject"))
    assert [place.parts for place in places] == [2, 2]
    assert {(place.x, place.y) for place in places} == {(10, 7), (70, 33)}
    bands = {(band.lowest, band.highest): band.parts for band in count_scores(history, Filter()) if band.parts}
    assert bands == {(0.0, 0.5): 1, (0.9, 1.0): 1, (2.0, 3.0): 2, (3.0, None): 1}


def test_nothing_is_counted_where_nothing_is(history: Path, tmp_path: Path) -> None:
    """A filter that nothing meets gives zeros; a missing history is an error, and so is an unknown verdict."""
    nothing = Filter(source="none")
    assert summarize(history, nothing).good_share is None
    assert rank_places(history, nothing) == []
    with pytest.raises(OutputError, match="cannot read the history"):
        summarize(tmp_path / "none.db", nothing)
    with pytest.raises(ChoiceError, match="verdict is 'bad'"):
        Filter(verdict="bad")


@pytest.fixture
def ask(history: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that asks a dashboard of this history."""
    dashboard = Dashboard("127.0.0.1:0", token=TOKEN, history=history, evidence=history.with_name("evidence"))
    with dashboard:
        yield Client(dashboard).ask


def test_page_finds_parts_with_their_picture(ask: Callable[..., Any]) -> None:
    """A found part has the address of its picture, which is one request away."""
    found = ask("/history/parts?verdict=ng&region=0,0,7,6&until=2026-01-01T06:15Z").json()
    assert [part["index"] for part in found["parts"]] == [1]
    assert not found["more"]
    assert ask(found["parts"][0]["picture"]).body[:2] == b"\xff\xd8"
    assert ask("/history/summary?part=A").json()["total"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("query", ["verdict=bad", "region=1,2", "region=a,b,c,d", "since=yesterday"])
def test_bad_filters_are_refused(ask: Callable[..., Any], query: str) -> None:
    """A filter that makes no sense is answered with a sentence."""
    answer = ask(f"/history/parts?{query}")
    assert (answer.status, bool(answer.json()["error"])) == (422, True)


def test_shift_report_as_page_and_as_csv(ask: Callable[..., Any]) -> None:
    """Both have yield, cameras, faults and changes; a cell of CSV is never a formula, and the page escapes names."""
    span = "since=2026-01-01T06:00Z&until=2026-01-01T11:00Z"
    answer = ask(f"/report?{span}&format=csv")
    assert answer.headers["content-disposition"].endswith('.csv"')
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert ["parts", "ok", "ng", "review", "fault", "yield"] in rows
    assert ["7", "1", "3", "1", "2", "14.29 %"] in rows
    assert ["late", "1"] in rows
    assert ["'=1+1", "0", "1", "0", "0"] in rows
    page = ask(f"/report?{span}").body.decode()
    assert "<td>14.29 %</td>" in page
    assert "<script" not in page
    morning = ask("/report?since=2026-01-01T06:00Z&until=2026-01-01T07:00Z").body.decode()
    assert "<td>33.33 %</td>" in morning


def test_report_has_the_changes_of_the_shift(history: Path) -> None:
    """What people changed within the shift is in its report, with their names escaped."""
    dashboard = Dashboard("127.0.0.1:0", token=TOKEN, history=history)
    with dashboard:
        desk = dashboard._app_state.desk
        assert desk is not None
        desk.store.record("threshold", "<b>Anna", {"before": 1.0, "score": 2.0})
        page = Client(dashboard).ask("/report").body.decode()
    assert "&lt;b&gt;Anna" in page
    assert "1.0 to 2.0" in page


def test_without_a_history_the_page_says_so() -> None:
    """A line that keeps no history cannot be asked; the answer says what to start it with."""
    with Dashboard("127.0.0.1:0") as dashboard:
        answer = Client(dashboard).ask("/history/summary")
        assert (answer.status, "--sink sqlite:FILE" in answer.json()["error"]) == (409, True)


def test_others_see_no_history_without_the_token(history: Path) -> None:
    """If other computers reach the page, history and report need the token as everything else."""
    with Dashboard("0.0.0.0:0", token=TOKEN, history=history) as dashboard:
        client = Client(dashboard)
        for path in ("/history/parts", "/history/summary", "/report"):
            assert client.ask(path).status == 401
