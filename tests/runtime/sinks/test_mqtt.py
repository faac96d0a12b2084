from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.sinks import mqtt
from onspect.runtime.sinks.delivery import queued_sink
from onspect.runtime.sinks.delivery.queued_sink import QueuedSink
from onspect.runtime.sinks.mqtt import MqttSink, open_mqtt
from onspect.runtime.sinks.registry import open_sink

from ..services import Broker, find_program, free_port, write_certificates
from ..verdicts import inspection, line_status, wait_until

TOPIC = "factory/line 1"
ONLINE = {"format": 1, "online": True}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Return a broker that takes anybody."""
    with Broker(tmp_path) as broker:
        yield broker


class Listener:
    """A client that keeps all messages below the topic, also those sent while the broker was away."""

    def __init__(self, broker: Broker, name: str = "listener") -> None:
        self.messages: list[tuple[str, Any, bool]] = []
        self._subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        self.client.reconnect_delay_set(0.05, 0.1)  # type: ignore[arg-type]
        self.client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/#", qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _client, _data, message: self._keep(message)
        self.client.connect("127.0.0.1", broker.port)

    def __enter__(self) -> Self:
        self.client.loop_start()
        assert self._subscribed.wait(60)
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _keep(self, message: MQTTMessage) -> None:
        topic = message.topic.removeprefix(f"{TOPIC}/")
        if topic != "command":
            self.messages.append((topic, json.loads(message.payload), message.retain))

    def of(self, topic: str) -> list[Any]:
        """Return the messages of one topic."""
        return [message for found, message, _ in self.messages if found == topic]

    def send(self, message: object, *, retain: bool = False) -> None:
        """Publish a command."""
        payload = message if isinstance(message, bytes) else json.dumps(message)
        self.client.publish(f"{TOPIC}/command", payload, qos=1, retain=retain).wait_for_publish(5)


class FakeLine:
    """Takes commands and writes them down."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Any]] = []

    def swap(self, path: Path | str) -> None:
        """Take a model."""
        if path == "bad.onnx":
            raise OutputError("'bad.onnx' is no model")
        self.taken.append(("swap", path))

    def recipe(self, name: str) -> None:
        """Take a recipe."""
        self.taken.append(("recipe", name))

    def set_threshold(self, score: float) -> float:
        """Take a threshold."""
        self.taken.append(("threshold", score))
        return 0.25

    def undo_threshold(self) -> tuple[float, float]:
        """Take an undo."""
        self.taken.append(("undo", None))
        return 0.25, 0.25

    def stop(self) -> None:
        """Take the end."""
        self.taken.append(("stop", None))


def open_queued(broker: Broker, spool: Path | None = None, options: str = "", acknowledge: float = 1.0) -> QueuedSink:
    """Return a queued sink of the broker."""
    sink = open_quick(f"mqtt://127.0.0.1:{broker.port}/factory/line%201{options}", acknowledge)
    return QueuedSink(sink, "mqtt", spool, deadline=15.0, timing=queued_sink.Timing(longest_pause=0.1))


def open_quick(url: str, acknowledge: float = 1.0) -> MqttSink:
    """Return a sink that connects again at once."""
    return open_mqtt(url, timing=mqtt.Timing(acknowledge=acknowledge, first_pause=0.05, longest_pause=0.1))


def test_changes_of_people_arrive(broker: Broker) -> None:
    """A row of the audit log is published as it is, through the queue too."""
    change = {"id": 1, "kind": "label", "who": "Jürgen", "facts": {"label": "good"}, "hash": "0" * 64}
    with Listener(broker) as listener, open_queued(broker) as queued:
        queued.note(change)
        wait_until(lambda: listener.of("audit") == [change])


def test_verdicts_and_status_arrive(broker: Broker) -> None:
    """Each verdict arrives once, in order, as its JSON; the status is retained, and at the end says offline."""
    with Listener(broker) as listener:
        with open_queued(broker) as queued:
            for index in range(250):
                queued.write(inspection(index=index, source="Prüfling"))
            queued.report(line_status(ng=3))
            wait_until(lambda: any(status.get("ng") == 3 for status in listener.of("status")))
        wait_until(lambda: len(listener.of("verdict")) >= 250)
        verdicts = listener.of("verdict")
        wait_until(lambda: not listener.of("status")[-1]["online"])
    assert [verdict["index"] for verdict in verdicts] == list(range(250))
    assert verdicts[7] == json.loads(inspection(index=7, source="Prüfling").verdict.to_json())
    assert next(status for status in listener.of("status") if status.get("ng"))["online"] is True
    with Listener(broker, "late") as late:  # the broker may repeat messages that the first one did not acknowledge
        wait_until(lambda: len(late.messages) == 2)
        (farewell,), (last,) = late.of("status"), late.of("last")
    facts = json.loads(json.dumps(line_status(ng=3).to_dict()))
    assert farewell == {"format": 1, "online": False, "lost": False} | facts
    assert last == {"format": 1, "online": True} | facts


def test_a_probe_tells_nobody_anything(broker: Broker) -> None:
    """A look at the broker before a run leaves the retained status of a running line as it is."""
    with Listener(broker) as listener:
        assert "accepted the connection" in open_quick(f"mqtt://127.0.0.1:{broker.port}/factory/line%201").probe()
        with open_queued(broker) as queued:
            queued.write(inspection(index=0))
            wait_until(lambda: listener.of("verdict"))
        wait_until(lambda: listener.of("status") and not listener.of("status")[-1]["online"])
    assert [status["online"] for status in listener.of("status")] == [True, False], "those of the run alone"


def test_broker_restarted_midway(broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the broker goes away and comes back, every verdict arrives, the first time each in order."""
    with (
        caplog.at_level(logging.WARNING),
        Listener(broker) as listener,
        open_queued(broker, tmp_path / "s") as queued,
    ):
        for index in range(600):
            if index == 200:
                wait_until(lambda: queued.state().delivered > 20)
                broker.stop()
            if index == 400:
                wait_until(lambda: queued.state().message)
                broker.start()
            queued.write(inspection(index=index))
        wait_until(lambda: queued.state().delivered == 600, 20)
        wait_until(lambda: 599 in [verdict["index"] for verdict in listener.of("verdict")], 20)
    assert list(dict.fromkeys(verdict["index"] for verdict in listener.of("verdict"))) == list(range(600))
    assert queued.state().spooled == queued.state().failed == 0
    assert "works again" in caplog.text


def test_broker_that_is_not_there_stops_nobody(broker: Broker, tmp_path: Path) -> None:
    """A line starts without its broker, and what happened in the meantime arrives once it is there."""
    broker.stop()
    with open_queued(broker, tmp_path / "s") as queued:
        queued.write(inspection(index=0))
        wait_until(lambda: "refused" in queued.state().message)
        queued.write(inspection(index=1))
        broker.start()
        with Listener(broker) as listener:
            wait_until(lambda: queued.state().delivered == 2)
            queued.write(inspection(index=2))
            wait_until(lambda: [verdict["index"] for verdict in listener.of("verdict")][-1:] == [2])


def test_last_will_tells_a_killed_line(broker: Broker) -> None:
    """When the process is killed, the retained status says that it is lost, and its last status stays beside it."""
    script = (
        "import sys, time\n"
        "from onspect.runtime.sinks import open_sink\n"
        "with open_sink(sys.argv[1], append=True) as sink:\n"
        "    time.sleep(60)\n"
    )
    url = f"mqtt://127.0.0.1:{broker.port}/factory/line%201"
    with Listener(broker) as listener:
        process = subprocess.Popen([sys.executable, "-c", script, url])
        wait_until(lambda: listener.of("status") == [ONLINE])
        process.kill()
        process.wait()
        wait_until(lambda: listener.of("status") == [ONLINE, {"format": 1, "online": False, "lost": True}])


@pytest.mark.parametrize(
    ("message", "taken"),
    [
        ({"command": "swap", "model": "b.onnx"}, ("swap", "b.onnx")),
        ({"command": "recipe", "name": "left"}, ("recipe", "left")),
        ({"command": "threshold", "score": 3.5}, ("threshold", 3.5)),
        ({"command": "stop"}, ("stop", None)),
    ],
)
def test_commands_are_carried_out(broker: Broker, message: dict[str, Any], taken: tuple[str, Any]) -> None:
    """If commands are allowed, each is carried out, and its result is published."""
    line = FakeLine()
    with Listener(broker) as listener, open_queued(broker, options="?commands=yes") as queued:
        queued.attach(line)
        wait_until(lambda: listener.of("status"))
        listener.send(message)
        wait_until(lambda: listener.of("result"))
    assert line.taken == [taken]
    assert listener.of("result") == [{"command": json.dumps(message), "done": True, "error": None}]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"\xff\xfe{", "is not JSON"),
        (b"[1]", "not a JSON object"),
        (b"{" * 9000, "is not JSON"),
        (b"[" * 9999, "is not JSON"),
        (b" " * 20_000, "20000 bytes"),
        ({"command": "boil"}, "swap, recipe, threshold, undo, stop"),
        ({"command": "swap", "model": "bad.onnx"}, "is no model"),
        ({"command": "threshold", "score": "3"}, "needs 'score'"),
    ],
)
def test_bad_command_changes_nothing(broker: Broker, message: object, error: str) -> None:
    """An invalid or impossible command is answered with the reason, and the next one is carried out."""
    line = FakeLine()
    with Listener(broker) as listener, open_queued(broker, options="?commands=yes") as queued:
        queued.attach(line)
        wait_until(lambda: listener.of("status"))
        listener.send(message)
        listener.send({"command": "stop"})
        wait_until(lambda: len(listener.of("result")) == 2)
    assert line.taken == [("stop", None)]
    assert listener.of("result")[0]["done"] is False
    assert error in listener.of("result")[0]["error"]


def test_commands_are_taken_only_where_allowed(broker: Broker) -> None:
    """Without commands=yes nothing that is published moves the line; nor does a retained command with it."""
    line = FakeLine()
    with Listener(broker) as listener:
        listener.send({"command": "stop"}, retain=True)
        for options in ("", "?commands=yes"):
            with open_queued(broker, options=options) as queued:
                queued.attach(line)
                wait_until(lambda: listener.of("status") and listener.of("status")[-1] == ONLINE)
                if not options:
                    listener.send({"command": "stop"})
                queued.write(inspection())
                wait_until(lambda: queued.state().delivered == 1)
            wait_until(lambda: not listener.of("status")[-1]["online"])
    assert line.taken == []
    assert listener.of("result") == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a refused socket open
def test_password_and_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS, a user and a password from the environment verdicts arrive; a wrong password and an unknown
    authority are reported as such, and no secret is in message, spool or log."""
    ca, cert, key = write_certificates(tmp_path)
    passwords = tmp_path / "passwords"
    subprocess.run([find_program("mosquitto_passwd"), "-c", "-b", str(passwords), "line", "geheim"], check=True)
    settings = [f"certfile {cert}", f"keyfile {key}", "allow_anonymous false", f"password_file {passwords}"]
    monkeypatch.setenv("LINE_USER", "line")
    (tmp_path / "secret").write_text("geheim\n")
    (tmp_path / "wrong").write_text("falsch-geheim\n")
    with Broker(tmp_path, *settings) as broker:
        for file, trusted, expected in (
            ("secret", f"&ca={ca}", ""),
            ("wrong", f"&ca={ca}", "refuses"),
            ("secret", "", "certificate verify failed"),
        ):
            login = f"?username=env:LINE_USER&password=file:{tmp_path / file}"
            url = f"mqtts://localhost:{broker.port}/line{login}{trusted}"
            spool, timing = tmp_path / f"{file}-{len(trusted)}", queued_sink.Timing(longest_pause=0.1)
            with QueuedSink(open_quick(url), url, spool, timing=timing) as given:
                given.write(inspection())
                wait_until(lambda: given.state().delivered or given.state().message)
                assert expected in given.state().message
                assert "geheim" not in str(given.state())
            assert bool(given.state().delivered) == (not expected)
            spooled = b"".join(path.read_bytes() for path in spool.iterdir())
            assert b"geheim" not in spooled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mqtt://host", "needs a topic"),
        ("mqtt:///topic", "names no host"),
        ("mqtt://host:x/topic", "is not a URL"),
        ("mqtt://host/a/%23", "without + and #"),
        ("mqtt://me:geheim@host/topic", "has a user or password in it"),
        ("mqtt://host/topic?password=geheim", "must be env:NAME or file:PATH"),
        ("mqtt://host/topic?password=env:ONSPECT_NOT_SET", "'ONSPECT_NOT_SET' is not set"),
        ("mqtt://host/topic?commands=no", "commands is 'no'"),
        ("mqtt://host/topic?ca=ca.pem", "they need mqtts://"),
        ("mqtts://host/topic?cert=a.pem", "needs both cert= and key="),
        ("mqtts://host/topic?ca=/nowhere/ca.pem", "cannot be used"),
        ("mqtt://host/topic?qos=2", "has the option 'qos'"),
    ],
)
def test_wrong_url_is_refused(text: str, message: str) -> None:
    """A URL that cannot work is refused when it is opened, with the reason and without its secrets."""
    with pytest.raises(ChoiceError) as caught:
        open_sink(text, append=True)
    assert message in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_check_waits_for_the_broker(broker: Broker) -> None:
    """Checking says whether the broker lets the line in."""
    with open_quick(f"mqtt://127.0.0.1:{broker.port}/line") as sink:
        assert sink.check() == "the broker has accepted the connection"  # type: ignore[attr-defined]
    with (
        open_quick(f"mqtt://127.0.0.1:{free_port()}/line") as sink,
        pytest.raises(OutputError, match="refused"),
    ):
        sink.check()  # type: ignore[attr-defined]


def test_unreachable_broker_is_an_output_error() -> None:
    """Used without a queued_sink, a sink whose broker is not there raises OutputError, and closes at once."""
    with open_quick(f"mqtt://127.0.0.1:{free_port()}/line") as sink, pytest.raises(OutputError):
        sink.write(inspection())


def test_silent_broker_is_not_waited_for_for_ever(broker: Broker, tmp_path: Path) -> None:
    """A broker that accepts and then does not answer makes delivery fail within seconds, and nothing is lost."""
    with Listener(broker) as listener, open_queued(broker, tmp_path / "s", acknowledge=0.2) as queued:
        wait_until(lambda: listener.of("status"))
        assert broker._process is not None
        os.kill(broker._process.pid, signal.SIGSTOP)
        queued.write(inspection(index=0))
        wait_until(lambda: "not acknowledged" in queued.state().message)
        os.kill(broker._process.pid, signal.SIGCONT)
        wait_until(lambda: queued.state().delivered == 1)
        wait_until(lambda: listener.of("verdict"))
    assert [verdict["index"] for verdict in listener.of("verdict")] == [0]
