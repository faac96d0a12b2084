"""Reaching an MQTT broker: its address, the login and the certificates; for the line that publishes and who listens."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onspect.runtime.address import Address
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError

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
"""What every address of a broker may have behind its ``?``."""

KEEPALIVE_S = 30


@dataclass(frozen=True)
class Broker:
    """Where a broker is and how it is reached; ca None: the system's authorities. cert, key: the client's own."""

    address: Address
    port: int
    secure: bool
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def read_broker(address: Address, what: str = "sink") -> Broker:
    """Return what ``mqtt://HOST[:1883]`` or ``mqtts://HOST[:8883]`` stands for; raises ChoiceError.

    what: how messages call the address.
    """
    secure = address.scheme == "mqtts"
    files = {name: path for name in ("ca", "cert", "key") if (path := address.options.path(name)) is not None}
    if files and not secure:
        raise ChoiceError(f"the {what} {address.shown!r} names certificates; they need mqtts://")
    if ("cert" in files) != ("key" in files):
        raise ChoiceError(f"the {what} {address.shown!r} needs both cert= and key=, or neither")
    return Broker(address, address.port or (8883 if secure else 1883), secure, **files)


def make_client(broker: Broker, what: str = "sink") -> Client:
    """Return a client that is ready to connect; raises ChoiceError where a certificate cannot be used."""
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
    try:
        ca, cert, key = (str(path) if path else None for path in (broker.ca, broker.cert, broker.key))
        client.tls_set(ca, cert, key)
    except (OSError, ValueError) as error:
        why = describe_os_error(error) if isinstance(error, OSError) else str(error)
        raise ChoiceError(f"the {what} {address.shown!r} names a certificate that cannot be used: {why}") from error
    return client
