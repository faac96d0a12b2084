from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from onspect.runtime.errors import FAULT_CODES, ChoiceError, OutputError
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.prometheus import PrometheusSink
from onspect.runtime.sinks.registry import open_sink
from onspect.runtime.status import SignalState, SinkState, SourceState

from ..services import listens
from ..verdicts import inspection, line_status, wait_until


@pytest.fixture
def sink() -> Iterator[PrometheusSink]:
    """Return a sink that serves on its own port."""
    sink = open_sink("prometheus://127.0.0.1:0", append=True)
    assert isinstance(sink, PrometheusSink)
    with sink:
        yield sink


def scrape(port: int) -> dict[tuple[str, str], float]:
    """Return every figure by its name and its label's value, as Prometheus reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, next(iter(sample.labels.values()), "")): sample.value for sample in samples}


def test_parts_are_counted_by_verdict(sink: PrometheusSink) -> None:
    """Each part counts once under its verdict, verdicts that did not come are 0, and latencies are in seconds."""
    for verdict in ("ok", "ok", "ng"):
        sink.write(inspection(verdict=verdict, latency_ms=30.0))
    found = scrape(sink.port)
    assert [found["onspect_parts_total", verdict] for verdict in ("ok", "ng", "review", "fault")] == [2, 1, 0, 0]
    sink.write(inspection(verdict="fault", score=None, code="black"))
    faults = {code: scrape(sink.port)["onspect_faults_total", code] for code in FAULT_CODES}
    assert faults == dict.fromkeys(FAULT_CODES, 0) | {"black": 1}
    assert found["onspect_latency_seconds_count", ""] == 3
    assert found["onspect_latency_seconds_sum", ""] == pytest.approx(0.09)
    assert found["onspect_latency_seconds_bucket", "0.02"] == 0
    assert found["onspect_latency_seconds_bucket", "0.05"] == 3


def test_line_is_as_last_reported(sink: PrometheusSink) -> None:
    """Frames, sources, sinks, threshold and alarm are those of the last status; there are none before it."""
    assert ("onspect_running", "") not in scrape(sink.port)
    sources = (SourceState("left", connected=True, reconnects=2), SourceState("right", connected=False))
    sinks = (SinkState("mqtt://broker/line", delivered=5, spooled=7, failed=1),)
    counts = {"captured": 9, "judged": 6, "dropped": 2, "faulted": 1}
    signals = SignalState("modbus://plc", connected=True, parts=8, acknowledged=6, missed=1)
    now = {"now": "lost", "now_source": "right", "now_age": 2.5}
    sink.report(line_status(alarm="right is away", **now, sources=sources, sinks=sinks, signals=signals, **counts))
    found = scrape(sink.port)
    assert {state: found["onspect_frames_total", state] for state in counts} == counts
    assert (found["onspect_source_connected", "left"], found["onspect_source_connected", "right"]) == (1, 0)
    assert found["onspect_source_reconnects_total", "left"] == 2
    assert found["onspect_sink_delivered_total", "mqtt://broker/line"] == 5
    assert found["onspect_sink_spooled", "mqtt://broker/line"] == 7
    assert found["onspect_sink_failed_total", "mqtt://broker/line"] == 1
    assert (found["onspect_running", ""], found["onspect_alarm", ""], found["onspect_drift", ""]) == (1, 1, 0)
    assert (found["onspect_signal_connected", ""], found["onspect_signal_missed_total", ""]) == (1, 1)
    assert (found["onspect_signal_parts_total", ""], found["onspect_signal_acknowledged_total", ""]) == (8, 6)
    states = [found["onspect_now", state] for state in ("waiting", "ok", "ng", "review", "fault", "lost")]
    assert (states, found["onspect_now_age_seconds", ""]) == ([0, 0, 0, 0, 0, 1], 2.5)
    assert found["onspect_threshold", ""] == 0.25
    assert found["onspect_reported_timestamp_seconds", ""] == 1767225601
    assert found["onspect_line_info", "tiny@0123456789ab"] == 1


def test_slow_client_holds_up_nobody(sink: PrometheusSink) -> None:
    """While a client is connected and silent, others are answered, and the sink closes at once."""
    with closing(socket.create_connection(("127.0.0.1", sink.port))) as silent:
        silent.sendall(b"GET /met")
        assert scrape(sink.port)["onspect_parts_total", "ok"] == 0
        sink.__exit__()


@pytest.mark.slow
def test_port_is_free_after_the_run() -> None:
    """After closing the port is free for the next run."""
    ports = []
    for _ in range(2):
        url = f"prometheus://127.0.0.1:{ports[0] if ports else 0}"
        sink = open_sink(url, append=True)
        assert isinstance(sink, PrometheusSink)
        with QueuedSink(sink, url) as queued:
            queued.write(inspection())
            wait_until(lambda: queued.state().delivered == 1)
            ports.append(sink.port)
        assert not listens(ports[-1])
    assert ports[0] == ports[1]


def test_port_in_use_is_an_output_error(sink: PrometheusSink) -> None:
    """A port that another program has is reported when the line starts."""
    with (
        pytest.raises(OutputError, match="Address already in use"),
        open_sink(f"prometheus://127.0.0.1:{sink.port}", append=True),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prometheus://127.0.0.1/figures", "always at /metrics"),
        ("prometheus://:9464", "names no host"),
        ("prometheus://127.0.0.1?token=geheim", "has the option 'token'"),
    ],
)
def test_wrong_url_is_refused(text: str, message: str) -> None:
    """An address that cannot work is refused when it is opened."""
    with pytest.raises(ChoiceError) as caught:
        open_sink(text, append=True)
    assert message in str(caught.value)
    assert "geheim" not in str(caught.value)
