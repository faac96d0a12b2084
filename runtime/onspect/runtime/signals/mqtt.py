"""Signals over MQTT 3.1.1: the PLC or its gateway publishes ``TOPIC/in``, and the line publishes ``TOPIC/out``.

``in`` is a JSON object with any of ``trigger``, ``ack``, ``reset`` (true or false), ``part``, ``recipe`` and ``shift``
(a text, a number or null); missing fields stay as they are. Publish it retained with QoS 1, so that the line knows the
signals after a lost connection. ``out`` has every field of `Outputs` and ``online``; it is not retained, and
``{"online": false, "ready": false, "busy": false, "valid": false}`` is the last will.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from onspect.runtime.address import Address, parse_url
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.explain import explaining
from onspect.runtime.signals.base import Inputs, Outputs, SignalSource
from onspect.runtime.sinks.broker import (
    KEEPALIVE_S,
    OPTIONS,
    Broker,
    make_client,
    parse_message,
    read_broker,
    read_topic,
)

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

_LOG = logging.getLogger("onspect")

_POLL_S = 0.25  # seconds between two checks of deadlines; messages are processed at once
_CONNECT_S = 5.0
_LEVELS = ("trigger", "ack", "reset")
_WORDS = ("part", "recipe", "shift")


class MqttSignal(SignalSource):
    """Process the messages one by one and in order, so that no edge is lost between two reads."""

    def __init__(self, broker: Broker, *, topic: str) -> None:
        super().__init__(broker.address.shown, poll=_POLL_S)
        self._broker = broker
        self._topic = topic
        self._client: Client | None = None
        self._inbox: SimpleQueue[bytes] = SimpleQueue()
        self._inputs = Inputs()
        self._greeted = threading.Event()
        self._trouble = ""
        make_client(broker, "signal")  # report a bad certificate when the address is opened

    def read(self) -> Inputs:
        """Return the signals after the next message.

        Returns
        -------
        Inputs
            The signals.

        Raises
        ------
        OutputError
            If there is no connection.
        """
        if self._client is None:
            self._connect()
        assert self._client is not None
        if not self._client.is_connected():
            raise OutputError(f"cannot reach {self.name}: the connection broke")
        try:
            payload = self._inbox.get_nowait()
        except Empty:
            return self._inputs
        try:
            self._inputs = merge(self._inputs, payload)
        except ChoiceError as error:
            _LOG.warning("%s/%s: %s", self.name, "in", error)
        if not self._inbox.empty():
            self.changed.set()
        return self._inputs

    def write(self, outputs: Outputs) -> None:
        """Publish the signals of the line with QoS 1.

        Parameters
        ----------
        outputs
            The signals.

        Raises
        ------
        OutputError
            If the connection is broken.
        """
        assert self._client is not None
        payload = json.dumps({"online": True} | dataclasses.asdict(outputs)).encode()
        if self._client.publish(f"{self._topic}/out", payload, qos=1).rc != 0:
            raise OutputError(f"cannot publish to {self.name}: the connection broke")

    def close(self) -> None:
        """Close the connection; unread signals come again if they are retained."""
        client, self._client = self._client, None
        self._inbox = SimpleQueue()
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connect(self) -> None:
        address: Address = self._broker.address
        client = make_client(self._broker, "signal")
        will: dict[str, Any] = {"online": False, "ready": False, "busy": False, "valid": False}
        client.will_set(f"{self._topic}/out", json.dumps(will).encode(), qos=1)
        client.on_connect = self._greet
        client.on_subscribe = lambda *_: self._greeted.set()
        client.on_message = self._receive
        self._greeted.clear()
        self._trouble = "it does not answer"
        with explaining(OutputError, f"cannot reach {self.name}: no connection"):
            client.connect(address.host, self._broker.port, KEEPALIVE_S)
        client.loop_start()
        if not self._greeted.wait(_CONNECT_S) or not client.is_connected():
            client.disconnect()
            client.loop_stop()
            raise OutputError(f"cannot reach {self.name}: {self._trouble}")
        self._client = client

    def _greet(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._trouble = f"the broker refuses: {reason}"
            self._greeted.set()
            client.disconnect()
        elif self._client is None:
            client.subscribe(f"{self._topic}/in", qos=1)
        else:
            client.disconnect()  # an automatic new connection may miss messages, so connect again in order

    def _receive(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._inbox.put(bytes(message.payload))
        self.changed.set()


def merge(inputs: Inputs, payload: bytes) -> Inputs:
    """Return the signals with the changes of one message.

    Parameters
    ----------
    inputs
        The signals before.
    payload
        The message, a JSON object.

    Returns
    -------
    Inputs
        The signals.

    Raises
    ------
    ChoiceError
        If the message is not valid.
    """
    changes: dict[str, Any] = {}
    for name, value in parse_message(payload).items():
        if name in _LEVELS and isinstance(value, bool):
            changes[name] = value
        elif name in _WORDS and (value is None or (isinstance(value, str | int) and not isinstance(value, bool))):
            changes[name] = None if value in (None, "") else str(value)
        else:
            raise ChoiceError(
                f"the message has {name!r}: {value!r}; give {', '.join(_LEVELS)} as true or false, "
                f"and {', '.join(_WORDS)} as text, number or null"
            )
    return dataclasses.replace(inputs, **changes)


def open_mqtt(text: str) -> MqttSignal:
    """Return the connection to a PLC over MQTT.

    Parameters
    ----------
    text
        The address, ``mqtt://HOST[:1883]/TOPIC`` or ``mqtts://...``.

    Returns
    -------
    MqttSignal
        The connection.

    Raises
    ------
    ChoiceError
        If the address or an option is not valid.
    """
    address = parse_url(text, OPTIONS, "signal")
    return MqttSignal(read_broker(address, "signal"), topic=read_topic(address, "signal"))
