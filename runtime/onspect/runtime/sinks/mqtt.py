"""Verdicts, status and commands over MQTT 3.1.1, as plain JSON.

Topics below the URL's path: ``verdict`` (QoS 1, one message for each part), ``status`` (QoS 1, retained, about once a
second; ``{"online": false, "lost": true}`` is the last will), ``last`` (QoS 1, retained: a status that the last will
does not replace), ``audit`` (QoS 1: each change that a person made on the dashboard), and if commands are allowed
``command`` (in) and ``result`` (out).
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from onspect.runtime.address import parse_url
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import OnspectError, OutputError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.sinks.broker import (
    KEEPALIVE_S,
    OPTIONS,
    Broker,
    make_client,
    parse_message,
    read_broker,
    read_topic,
)
from onspect.runtime.sinks.columns import encode_verdict
from onspect.runtime.status import Commands, LineStatus, obey

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo

_LOG = logging.getLogger("onspect")

_OPTIONS = OPTIONS | {"commands": "yes"}
_LEAVE_S = 2.0
_INFLIGHT = 100
_LARGEST_SHOWN = 200
_LAST_EVERY_S = 5.0

FORMAT = 1
"""Version of the status messages; a change that a reader could misunderstand increases it."""


@dataclass(frozen=True)
class Timing:
    """Waits for the broker, in seconds."""

    acknowledge: float = 5.0
    """Longest wait for the acknowledgement of published messages."""

    first_pause: float = 1.0
    """Pause before the first new connection; each further pause is twice as long."""

    longest_pause: float = 30.0
    """Longest pause between two tries."""


class MqttSink(Sink):
    """Publish verdicts with QoS 1; `write` returns when the broker has acknowledged them.

    It connects again after every loss; the new connection sends unacknowledged messages again, in order. Commands are
    accepted only if they are allowed and a line is attached.

    Parameters
    ----------
    broker
        The broker.
    topic
        Prefix of all topics.
    commands
        Whether commands are allowed.
    timing
        Waits for the broker.
    """

    delivery: Delivery = "event"
    pictures = False
    batch = 100
    wants_status = True

    def __init__(self, broker: Broker, *, topic: str, commands: bool, timing: Timing = Timing()) -> None:
        self._timing = timing
        self._address = broker.address
        self._port = broker.port
        self._topic = topic
        self._allowed = commands
        self._commands: Commands | None = None
        self._trouble = "it does not answer"
        self._status = _encode_status({"online": True})
        self._latest: LineStatus | None = None
        self._last_due = 0.0
        self._on_their_way: list[tuple[bytes, MQTTMessageInfo]] = []
        self._tried = threading.Event()
        self._probing = False
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._client = make_client(broker)
        will = _encode_status({"online": False, "lost": True})
        self._client.will_set(f"{topic}/status", will, qos=1, retain=True)
        pauses: Any = (timing.first_pause, timing.longest_pause)  # paho declares whole seconds but accepts fractions
        self._client.reconnect_delay_set(*pauses)
        self._client.max_inflight_messages_set(_INFLIGHT)
        self._client.on_connect = self._greet
        self._client.on_connect_fail = self._note_failure
        self._client.on_disconnect = self._note_loss
        self._client.on_message = self._receive

    def __enter__(self) -> Self:
        self._client.connect_async(self._address.host, self._port, KEEPALIVE_S)
        self._start("mqtt", lambda: self._client.loop_forever(retry_first_connection=True))
        self._start("mqtt commands", self._obey_all)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._client.is_connected() and not self._probing:
            facts = {} if self._latest is None else self._latest.to_dict()
            farewell = _encode_status({"online": False, "lost": False} | facts)
            _await([self._client.publish(f"{self._topic}/status", farewell, qos=1, retain=True)], _LEAVE_S)
        self._client.disconnect()
        self._inbox.put(None)
        for thread in self._threads:
            thread.join(_LEAVE_S)  # do not wait for a silent broker

    def write(self, inspection: Inspection) -> None:
        """Publish one verdict.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If the broker does not acknowledge it in time.
        """
        self.write_many([inspection])

    def write_many(self, inspections: Sequence[Inspection]) -> None:
        """Publish verdicts in order, and wait until all are acknowledged.

        Parameters
        ----------
        inspections
            The inspections.

        Raises
        ------
        OutputError
            If the broker does not acknowledge them in time.
        """
        self.write_lines([encode_verdict(inspection.verdict) for inspection in inspections])

    def write_lines(self, lines: Sequence[bytes]) -> None:
        """Publish encoded verdicts, as `write_many` does.

        Parameters
        ----------
        lines
            One verdict each, as `encode_verdict` returns it.

        Raises
        ------
        OutputError
            If the broker does not acknowledge them in time.
        """
        payloads = list(lines)
        known = [payload for payload, _ in self._on_their_way]
        if known != payloads[: len(known)]:  # another batch: earlier messages may arrive twice, but are never lost
            self._on_their_way = []
        for payload in payloads[len(self._on_their_way) :]:
            self._require_connection()
            info = self._client.publish(f"{self._topic}/verdict", payload, qos=1)
            if info.rc != 0:
                raise OutputError(f"cannot publish to {self._address.shown}: the connection broke")
            self._on_their_way.append((payload, info))
        late = _await([info for _, info in self._on_their_way], self._timing.acknowledge)
        if late:
            why = f"{late} verdicts are not acknowledged" if self._client.is_connected() else self._trouble
            raise OutputError(f"cannot publish to {self._address.shown}: {why}")
        self._on_their_way = []

    def check(self) -> str:
        """Wait for the connection to the broker.

        Returns
        -------
        str
            One sentence about the broker.

        Raises
        ------
        OutputError
            If there is no connection in time.
        """
        self._require_connection()
        return "the broker has accepted the connection"

    def probe(self) -> str:
        """Connect and disconnect; the retained status of a running line stays as it is.

        Returns
        -------
        str
            One sentence about the broker.

        Raises
        ------
        OutputError
            If there is no connection in time.
        """
        self._probing = True
        self._client.will_clear()
        return super().probe()

    def report(self, status: LineStatus) -> None:
        """Publish the status of the line, retained.

        Parameters
        ----------
        status
            The status.

        Raises
        ------
        OutputError
            If there is no connection.
        """
        self._status = _encode_status({"online": True} | status.to_dict())
        before, self._latest = self._latest, status
        self._require_connection()
        self._client.publish(f"{self._topic}/status", self._status, qos=1, retain=True)
        if time.monotonic() >= self._last_due or _has_turned(before, status):
            self._last_due = time.monotonic() + _LAST_EVERY_S
            self._client.publish(f"{self._topic}/last", self._status, qos=1, retain=True)

    def note(self, change: Mapping[str, Any]) -> None:
        """Publish a person's change on the topic ``audit`` with QoS 1; without a connection it waits.

        Parameters
        ----------
        change
            JSON object (`labels.audit.Change`).
        """
        self._client.publish(f"{self._topic}/audit", json.dumps(dict(change), ensure_ascii=False).encode(), qos=1)

    def attach(self, commands: Commands) -> None:
        """Carry out commands from the topic ``command``, if the URL allows it.

        Parameters
        ----------
        commands
            The commands of the line.
        """
        self._commands = commands
        if self._client.is_connected():
            self._subscribe()

    def _require_connection(self) -> None:
        if self._client.is_connected():
            return
        self._tried.wait(self._timing.acknowledge)  # the first attempt may still be running
        if not self._client.is_connected():
            raise OutputError(f"cannot publish to {self._address.shown}: {self._trouble}")

    def _start(self, name: str, work: Any) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _subscribe(self) -> None:
        if self._allowed and self._commands is not None:
            self._client.subscribe(f"{self._topic}/command", qos=1)

    def _greet(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._trouble = f"the broker refuses: {reason}"
            self._tried.set()
            return
        self._trouble = "the connection broke"
        if not self._probing:
            client.publish(f"{self._topic}/status", self._status, qos=1, retain=True)
        self._subscribe()
        self._tried.set()

    def _note_failure(self, _client: Client, _data: object) -> None:
        error = sys.exc_info()[1]  # paho calls this in its except clause and does not pass the error
        if isinstance(error, OSError):
            self._trouble = f"no connection: {describe_os_error(error)}"
        self._tried.set()

    def _note_loss(self, *_facts: object) -> None:
        if not self._trouble.startswith("the broker refuses"):
            self._trouble = "the connection broke"

    def _receive(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if message.retain:
            _LOG.warning("%s: a retained command is left out: it may be of any age", self._address.shown)
        else:
            self._inbox.put(bytes(message.payload))

    def _obey_all(self) -> None:
        """Carry out commands outside the network thread: loading a model takes longer than a broker waits."""
        while (payload := self._inbox.get()) is not None:
            error = self._obey(payload)
            words = payload[:_LARGEST_SHOWN].decode(errors="replace")
            _LOG.warning("%s: the command %s %s", self._address.shown, words, error or "is carried out")
            result = {"command": words, "done": error is None, "error": error}
            self._client.publish(f"{self._topic}/result", json.dumps(result).encode(), qos=1)

    def _obey(self, payload: bytes) -> str | None:
        """Carry out one command; return the reason if it failed, else None."""
        assert self._commands is not None
        try:
            obey(self._commands, parse_message(payload, "command"))
        except Exception as error:  # noqa: BLE001 - no message may end this thread
            return str(error) if isinstance(error, OnspectError) else f"{type(error).__name__}: {error}"
        return None


def open_mqtt(text: str, *, timing: Timing = Timing()) -> MqttSink:
    """Return the sink of an MQTT broker.

    Parameters
    ----------
    text
        The address, ``mqtt://HOST[:PORT]/TOPIC`` or ``mqtts://...``.
    timing
        Waits for the broker.

    Returns
    -------
    MqttSink
        The sink.

    Raises
    ------
    ChoiceError
        If the address or an option is not valid.
    """
    address = parse_url(text, _OPTIONS)
    topic = read_topic(address)
    commands = address.options.choice("commands", ["yes"]) is not None
    return MqttSink(read_broker(address), topic=topic, commands=commands, timing=timing)


def _has_turned(before: LineStatus | None, after: LineStatus) -> bool:
    """Return whether anything changed except the counts."""
    facts = ("started", "running", "model", "threshold", "alarm", "drift", "moved")
    return before is None or any(getattr(before, name) != getattr(after, name) for name in facts)


def _await(messages: Sequence[MQTTMessageInfo], seconds: float) -> int:
    """Wait until messages are acknowledged; return the number of those that are not."""
    end = time.monotonic() + seconds
    for count, message in enumerate(messages):
        message.wait_for_publish(max(0.0, end - time.monotonic()))
        if not message.is_published():
            return len(messages) - count
    return 0


def _encode_status(facts: dict[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT} | facts).encode()
