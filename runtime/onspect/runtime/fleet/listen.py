"""A connection to the broker that receives the status of the lines of a fleet."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from onspect.runtime.address import parse_url
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.credentials import resolve_secret, show_address
from onspect.runtime.errors import ChoiceError, FleetError
from onspect.runtime.fleet.state import FleetBoard
from onspect.runtime.sinks.broker import KEEPALIVE_S, OPTIONS, Broker, make_client, read_broker

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

_WHAT = "broker"  # name of the address in messages
_CONNECT_S = 10.0
_LISTEN_S = 3.0
_POLL_S = 0.05
_RECONNECT_S = (1, 10)
_LEAVE_S = 2.0
_DEEPEST = 8  # deepest level of a line's topic below the prefix


class FleetListener:
    """A connection to a broker, as a context manager. `board` follows the messages of the lines below the prefix.

    It reconnects by itself. `trouble` describes the present problem and is empty without one.
    """

    def __init__(self, broker: Broker, prefix: str) -> None:
        self.shown = broker.address.shown
        self.board = FleetBoard(prefix)
        self.trouble = "it does not answer"
        self.changed = threading.Event()
        """Set whenever a message was received, or the connection changed."""
        self._refused = False
        self._prefix = prefix
        self._broker = broker
        self._client = make_client(broker, _WHAT)
        self._client.reconnect_delay_set(*_RECONNECT_S)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = self._note_subscription
        self._client.on_connect_fail = self._note_failure
        self._client.on_disconnect = self._note_loss
        self._client.on_message = self._receive
        self._thread = threading.Thread(
            target=lambda: self._client.loop_forever(retry_first_connection=True), name="fleet", daemon=True
        )

    def __enter__(self) -> Self:
        self._client.connect_async(self._broker.address.host, self._broker.port, KEEPALIVE_S)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.disconnect()
        self._thread.join(_LEAVE_S)

    def await_welcome(self) -> None:
        """Wait until the broker accepts the connection.

        Raises
        ------
        FleetError
            If the broker does not answer or refuses.
        """
        end = time.monotonic() + _CONNECT_S
        while self.trouble and not self._refused and time.monotonic() < end:
            self.changed.wait(_POLL_S)
            self.changed.clear()
        if self.trouble:
            raise FleetError(f"cannot receive the lines' status from {self.shown}: {self.trouble}")

    def await_lines(self) -> None:
        """Wait until every line that is online has reported, or the time is over. It takes about a second."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < _LISTEN_S:
            if passed > _LISTEN_S / 3 and not self.board.is_waiting:
                return
            time.sleep(_POLL_S)

    def _subscribe(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._refused = True
            self._tell(f"the broker refuses: {reason}")
            return
        start = [self._prefix] if self._prefix else []
        names = ["/".join([*start, *["+"] * depth, kind]) for depth in range(_DEEPEST) for kind in ("status", "last")]
        client.subscribe([(name, 0) for name in names])

    def _note_subscription(self, _client: Client, _data: object, _number: int, reasons: Any, _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refused = True
            self._tell("the broker does not allow reading this topic")
        else:
            self._tell("")

    def _note_failure(self, _client: Client, _data: object) -> None:
        error = sys.exc_info()[1]  # paho calls this inside its except clause and does not pass the reason
        self._refused = True
        self._tell(f"no connection: {describe_os_error(error)}" if isinstance(error, OSError) else "no connection")

    def _note_loss(self, *_facts: object) -> None:
        if not self.trouble:
            self._tell("the connection broke")

    def _tell(self, trouble: str) -> None:
        self.trouble = trouble
        self.changed.set()

    def _receive(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        self.board.receive(topic, bytes(message.payload), retained=message.retain)
        self.changed.set()


def open_fleet(text: str) -> FleetListener:
    """Return a listener for a broker.

    Parameters
    ----------
    text
        ``mqtt://HOST[:PORT][/PREFIX]`` or ``mqtts://...``, with the options of the MQTT sink.

    Returns
    -------
    FleetListener
        The listener, not connected yet.

    Raises
    ------
    ChoiceError
        If the address is not valid.
    ImportError
        If paho-mqtt is not installed.
    """
    text = resolve_secret(text)
    if text.partition(":")[0] not in ("mqtt", "mqtts"):
        raise ChoiceError(
            f"the broker {show_address(text)!r} is not known; give mqtt://HOST[:PORT][/PREFIX], or mqtts:// for TLS"
        )
    address = parse_url(text, OPTIONS, _WHAT)
    prefix = address.path.strip("/")
    if any(sign in prefix for sign in "#+\0"):
        raise ChoiceError(f"the broker {address.shown!r} needs a prefix without + and #: mqtt://HOST/factory")
    return FleetListener(read_broker(address, _WHAT), prefix)
