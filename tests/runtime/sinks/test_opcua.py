from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from asyncua.sync import Client
from asyncua.ua import UaStatusCodeError

from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.sinks.base import Sink
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.opcua import LAST_PART, LINE, OpcUaSink
from onspect.runtime.sinks.registry import open_sink

from ..services import free_port, listens
from ..verdicts import inspection, line_status, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port() -> int:
    """Return the port that the module's server listens on."""
    return free_port()


@pytest.fixture(scope="module")
def sink(port: int) -> Iterator[OpcUaSink]:
    """Return a running server: it takes seconds to start."""
    sink = open_sink(f"opcua://127.0.0.1:{port}/line", append=True)
    assert isinstance(sink, OpcUaSink)
    with sink:
        yield sink
    assert not listens(port)


@pytest.fixture(scope="module")
def client(sink: OpcUaSink, port: int) -> Iterator[Any]:
    """Return a connected client, as a control room has it."""
    with Client(f"opc.tcp://127.0.0.1:{port}/line", timeout=20) as client:
        yield client


def read(client: Any, path: str) -> Any:
    """Return a variable's value, by the node id that the documentation gives."""
    assert client.get_namespace_index("urn:onspect:line") == 1
    return client.get_node(f"ns=1;s={path}").read_value()


def test_last_part_can_be_read(sink: OpcUaSink, client: Any) -> None:
    """A client finds each part under its documented nodes, with their types."""
    sink.write(inspection(index=41, source="Prüfling", part="P-7"))
    found = {name: read(client, f"LastPart.{name}") for name in LAST_PART}
    assert found["Json"] == inspection(index=41, source="Prüfling", part="P-7").verdict.to_json()
    del found["Json"]
    assert found == {
        "Source": "Prüfling",
        "Part": "P-7",
        "Time": datetime(2026, 1, 1, tzinfo=UTC),
        "Verdict": "ng",
        "Reject": True,
        "Score": 0.5,
        "Threshold": 0.25,
        "Regions": 1,
        "Reason": "",
        "Code": "",
        "LatencyMs": 1.5,
        "Count": 42,
    }


def test_fault_is_rejected_without_a_score(sink: OpcUaSink, client: Any) -> None:
    """A fault is to be rejected, has no score (NaN) and says why."""
    facts = {"reason": "the frame is black", "code": "black"}
    sink.write(inspection(verdict="fault", score=None, source="Pr\udce4fling", **facts))
    assert read(client, "LastPart.Code") == "black"
    assert read(client, "LastPart.Reject") is True
    assert math.isnan(read(client, "LastPart.Score"))
    assert read(client, "LastPart.Reason") == "the frame is black"
    assert read(client, "LastPart.Source") == r"Pr\udce4fling"


def test_line_can_be_read(sink: OpcUaSink, client: Any) -> None:
    """A client reads the last status of the line, and the present state of a display."""
    sink.report(line_status())
    assert math.isnan(read(client, "Line.NowAge"))
    sink.report(
        line_status(captured=2**40, ng=3, alarm="five ng in a row", now="lost", now_source="cam 2", now_age=1.5)
    )
    found = {name: read(client, f"Line.{name}") for name in LINE}
    assert (found["Captured"], found["Ng"], found["Alarm"]) == (2**40, 3, "five ng in a row")
    assert (found["Now"], found["NowSource"], found["NowAge"]) == ("lost", "cam 2", 1.5)
    assert (found["Running"], found["Model"], found["Threshold"]) == (True, "tiny@0123456789ab", 0.25)


def test_subscriber_finds_the_part_complete(sink: OpcUaSink, client: Any) -> None:
    """A subscriber of LastPart.Count is notified of a new part after its other variables are set."""
    seen: list[int] = []

    class Handler:
        def datachange_notification(self, node: object, value: int, data: object) -> None:
            seen.append(value)

    index = client.get_namespace_index("urn:onspect:line")
    subscription = client.create_subscription(10, Handler())
    subscription.subscribe_data_change(client.get_node(f"ns={index};s=LastPart.Count"))
    sink.write(inspection(index=99, score=7.0))
    wait_until(lambda: seen[-1:] == [100])
    assert read(client, "LastPart.Score") == 7.0
    subscription.delete()


@pytest.mark.parametrize("user", [None, "admin", "Admin"])
def test_nothing_can_be_changed(sink: OpcUaSink, port: int, user: str | None) -> None:
    """A client that tries to change a verdict, its access or the tree is refused, with any user name."""
    sink.write(inspection(verdict="ng"))
    client = Client(f"opc.tcp://127.0.0.1:{port}/line", timeout=20)
    if user is not None:
        client.set_user(user)
        client.set_password("any")
    with client:
        index = client.get_namespace_index("urn:onspect:line")
        node = client.get_node(f"ns={index};s=LastPart.Verdict")
        attempts: list[Callable[[], Any]] = [
            lambda: node.write_value("ok"),
            node.set_writable,
            lambda: client.delete_nodes([node]),
            lambda: client.nodes.objects.add_variable(index, "more", 1),
        ]
        for attempt in attempts:
            with pytest.raises(UaStatusCodeError):
                attempt()
        assert node.read_value() == "ng"


def test_queued_sink_delivers(sink: OpcUaSink, client: Any) -> None:
    """Behind a queue parts arrive as they do without."""

    class Open(Sink):
        delivery = sink.delivery

        def write(self, inspection: Inspection) -> None:
            sink.write(inspection)

    with QueuedSink(Open(), "opcua") as queued:
        for index in range(50):
            queued.write(inspection(index=index))
    assert queued.state().delivered == 50
    assert read(client, "LastPart.Count") == 50


def test_port_in_use_is_an_output_error(sink: OpcUaSink, port: int) -> None:
    """A port that another program has is reported when the line starts."""
    with pytest.raises(OutputError, match="another port"), open_sink(f"opcua://127.0.0.1:{port}", append=True):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("opcua:///line", "names no host"),
        ("opcua://127.0.0.1/a%20b", "with spaces"),
        ("opcua://me:geheim@127.0.0.1", "has a user or password"),
        ("opcua://127.0.0.1?cert=a", "has the option 'cert'"),
    ],
)
def test_wrong_url_is_refused(text: str, message: str) -> None:
    """An address that cannot work is refused when it is opened."""
    with pytest.raises(ChoiceError) as caught:
        open_sink(text, append=True)
    assert message in str(caught.value)
    assert "geheim" not in str(caught.value)
