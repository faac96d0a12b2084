"""Connection to an MQTT broker: address, login and certificates, for sinks and signals."""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onspect.runtime.address import Address
from onspect.runtime.errors import ChoiceError
from onspect.runtime.explain import explaining

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_LOG = logging.getLogger("onspect")

OPTIONS = {
    "username": "env:NAME",
    "password": "env:NAME or file:PATH",
    "ca": "FILE",
    "cert": "FILE",
    "key": "FILE",
}
"""Options that every address of a broker may have after its ``?``."""

KEEPALIVE_S = 30
_LARGEST_MESSAGE = 10_000  # bytes


@dataclass(frozen=True)
class Broker:
    """How a broker is reached."""

    address: Address
    """The parsed address, with the login."""
    port: int
    """TCP port."""
    secure: bool
    """Whether the connection uses TLS."""
    ca: Path | None = None
    """File of the certificate authority; None for those of the system."""
    cert: Path | None = None
    """File of the client's certificate; None for none."""
    key: Path | None = None
    """File of the client's private key; None for none."""


def read_broker(address: Address, what: str = "sink") -> Broker:
    """Read ``mqtt://HOST[:1883]`` or ``mqtts://HOST[:8883]``.

    Parameters
    ----------
    address
        The parsed address.
    what
        Name of the address in messages, such as ``sink``.

    Returns
    -------
    Broker
        The broker.

    Raises
    ------
    ChoiceError
        If the certificates do not fit the address.
    """
    secure = address.scheme == "mqtts"
    files = {name: path for name in ("ca", "cert", "key") if (path := address.options.path(name)) is not None}
    if files and not secure:
        raise ChoiceError(f"the {what} {address.shown!r} names certificates; they need mqtts://")
    if ("cert" in files) != ("key" in files):
        raise ChoiceError(f"the {what} {address.shown!r} needs both cert= and key=, or neither")
    return Broker(address, address.port or (8883 if secure else 1883), secure, **files)


def read_topic(address: Address, what: str = "sink") -> str:
    """Return the topic of an address.

    Parameters
    ----------
    address
        The parsed address.
    what
        Name of the address in messages, such as ``sink``.

    Returns
    -------
    str
        The topic, without a slash at its end.

    Raises
    ------
    ChoiceError
        If there is no topic, or it has the wildcards of a subscription.
    """
    topic = address.path.rstrip("/")
    if not topic or any(sign in "#+\0" or "\ud800" <= sign <= "\udfff" for sign in topic):  # the latter: not UTF-8
        raise ChoiceError(f"the {what} {address.shown!r} needs a topic without + and #: mqtt://HOST/factory/line-1")
    return topic


def parse_message(payload: bytes, what: str = "message") -> dict[str, Any]:
    """Return the JSON object of a message.

    Parameters
    ----------
    payload
        The message.
    what
        Its name in errors.

    Returns
    -------
    dict[str, Any]
        The object.

    Raises
    ------
    ChoiceError
        If the message is too long, or not a JSON object.
    """
    if len(payload) > _LARGEST_MESSAGE:
        raise ChoiceError(f"the {what} has {len(payload)} bytes; at most {_LARGEST_MESSAGE} are allowed")
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ChoiceError(f"the {what} is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ChoiceError(f"the {what} is not a JSON object")
    return message


def make_client(broker: Broker, what: str = "sink") -> Client:
    """Return an MQTT client that is ready to connect.

    Parameters
    ----------
    broker
        The broker.
    what
        Name of the address in messages, such as ``sink``.

    Returns
    -------
    Client
        The client.

    Raises
    ------
    ChoiceError
        If a certificate cannot be used.
    """
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    address = broker.address
    client = Client(CallbackAPIVersion.VERSION2, client_id=f"onspect-{secrets.token_hex(4)}")
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if not broker.secure:
        if address.password is not None:
            _LOG.warning("%s sends its password unencrypted; use mqtts://", address.shown)
        return client
    ca, cert, key = (str(path) if path else None for path in (broker.ca, broker.cert, broker.key))
    problem = f"the {what} {address.shown!r} names a certificate that cannot be used"
    with explaining(ChoiceError, problem, "check the file", of=(OSError, ValueError)):
        client.tls_set(ca, cert, key)
    return client
