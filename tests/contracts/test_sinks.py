"""The contract of every sink; a new kind of sink is one row of `sinks.CASES`."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.sinks import Sink, open_sink
from onspect.runtime.sinks.columns import encode_verdict
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.overlays import OverlaySink
from onspect.runtime.sinks.registry import SINKS, show_sink
from onspect.runtime.sinks.targets import refuse_conflict

from ..runtime.verdicts import inspection, line_status, wait_until
from .sinks import CASES, SinkCase


@pytest.fixture(
    params=[
        pytest.param(case, id=case.prefix, marks=[pytest.mark.slow] if case.prefix == "opcua:" else [])  # slow to start
        for case in CASES
    ]
)
def case(request: pytest.FixtureRequest) -> SinkCase:
    """Return each kind of sink; one whose package is not installed is skipped."""
    found: SinkCase = request.param
    if found.extra is not None:
        pytest.importorskip(found.extra)
    return found


def parts(first: int, end: int) -> list[Inspection]:
    """Return numbered parts with a picture: good ones, bad ones, and faults of a source whose name is not UTF-8."""
    picture = np.full((32, 32), 128, np.uint8)
    kinds: list[dict[str, Any]] = [
        {"verdict": "ok", "regions": ()},
        {"verdict": "ng", "part": "P-7"},
        {"verdict": "fault", "score": None, "regions": (), "reason": "black", "source": "Pr\udce4fling.png"},
    ]
    return [inspection(index=index, frame=picture, **kinds[index % 3]) for index in range(first, end)]


def test_every_sink_of_the_registry_is_here() -> None:
    """Each row of the registry has a contract."""
    tested = {case.prefix for case in CASES}
    assert [row.forms for row in SINKS if not tested.intersection(row.prefixes)] == []


def give(sink: Sink) -> None:
    """Give an open sink what a line gives: commands, verdicts one by one and several at once, and a status."""
    sink.attach(None)
    for part in parts(0, 3):
        sink.write(part)
    sink.report(line_status())
    sink.write_many(parts(3, 6))
    sink.flush()
    assert sink.state().name


@pytest.mark.slow
def test_verdicts_arrive(case: SinkCase, tmp_path: Path) -> None:
    """Verdicts written one by one, several at once or as lines arrive, each once; status and commands are accepted."""
    with case.start(tmp_path) as (address, count):
        sink = open_sink(address, append=False)
        assert isinstance(sink, Sink)
        with sink:
            assert sink.check()
            give(sink)
            wait_until(lambda: count() == 6)
            if not sink.pictures:
                sink.write_lines([encode_verdict(part.verdict) for part in parts(6, 9)])
                wait_until(lambda: count() == 9)
            recent = sink.read_recent(2)
            assert recent is None or len(recent) in (0, 2)  # CSV cannot be read back


def test_a_dashboard_takes_what_a_line_gives() -> None:
    """The dashboard shows all parts and the status, as the other sinks deliver them."""
    pytest.importorskip("starlette")
    from onspect.runtime.dashboard import Dashboard

    with Dashboard("127.0.0.1:0") as dashboard:
        give(dashboard)
        with urlopen(f"{dashboard.url.rstrip('/')}/events", timeout=10) as events:
            event = json.loads(events.readline().removeprefix(b"data: "))
    assert event["number"] == 6
    assert event["status"]["model"] == line_status().model


def test_pictures_of_overlays_take_what_a_line_gives(tmp_path: Path) -> None:
    """The folder of `--overlays` gets two pictures of each source: a second one has another name, which is replaced."""
    with OverlaySink(tmp_path / "overlays", root=tmp_path) as sink:
        give(sink)
    assert len(list((tmp_path / "overlays").iterdir())) == 4


def test_queued_sink_delivers_everything(case: SinkCase, tmp_path: Path) -> None:
    """Behind a queue every verdict is delivered, by the end at the latest, and counted."""
    with case.start(tmp_path) as (address, count):
        queued = QueuedSink(open_sink(address, append=False), address, tmp_path / "spool", patience=10.0)
        with queued:
            for part in parts(0, 30):
                queued.write(part)
            queued.report(line_status())
            wait_until(lambda: queued.state().delivered == 30)
            wait_until(lambda: count() == 30)
    assert (queued.state().failed, queued.state().spooled, queued.state().message) == (0, 0, "")


def test_nothing_happens_before_it_is_entered(case: SinkCase, tmp_path: Path) -> None:
    """An opened sink has no file, no thread and no connection before it is entered."""
    threads = set(threading.enumerate())
    open_sink(case.away(tmp_path / "x"), append=False)
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) <= threads  # a thread of an earlier test may end meanwhile


def test_two_sinks_of_one_place_are_refused(case: SinkCase, tmp_path: Path) -> None:
    """The same address twice is a conflict; so is the same file or folder in another spelling."""
    first = case.away(tmp_path)
    scheme, _, place = first.partition(":")
    second = first if place.startswith("//") else f"{scheme}:{Path(place).parent}/./../file/{Path(place).name}"
    with pytest.raises(ChoiceError, match="same as sink 1"):
        refuse_conflict([first, second], [None, None], 1, [])


@pytest.mark.slow
def test_trouble_is_an_output_error(case: SinkCase, tmp_path: Path) -> None:
    """If nothing can be delivered, entering or writing raises OutputError, with a sentence and no secret."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot|not"), open_sink(case.away(tmp_path), append=False) as sink:
        sink.write(parts(0, 1)[0])


@pytest.mark.parametrize("option", ["nonsense=1", "password=x9Qgeheim", "nonsense="])
def test_wrong_option_is_refused(case: SinkCase, option: str, tmp_path: Path) -> None:
    """An option that the sink does not know, or a secret in its address, is refused without showing the secret."""
    address = f"{case.away(tmp_path)}{'#' if case.prefix == 'http:' else '?'}{option}"
    with pytest.raises(ChoiceError, match=option.partition("=")[0]) as refusal:
        open_sink(address, append=False)
    assert "x9Q" not in str(refusal.value)
    assert "x9Q" not in show_sink(address)
