"""Connections to a PLC by their address: one row for each kind."""

from __future__ import annotations

from functools import partial

from onspect.runtime.address import Kind, find_kind
from onspect.runtime.credentials import resolve_secret, show_address
from onspect.runtime.errors import ChoiceError
from onspect.runtime.signals.base import SignalSource

_row = partial(Kind, "onspect.runtime.signals")

SIGNALS = (
    _row(("modbus:",), "modbus", "open_modbus", ("modbus://HOST",)),
    _row(("opcua:",), "opcua", "open_opcua", ("opcua://HOST?node=NODE",)),
    _row(("mqtt:", "mqtts:"), "mqtt", "open_mqtt", ("mqtt[s]://HOST/TOPIC",)),
)


def open_signal(text: str) -> SignalSource:
    """Return the connection to a PLC; it connects when it is read.

    Parameters
    ----------
    text
        An address such as ``modbus://10.0.0.7?unit=1``. ``env:NAME`` and ``file:PATH`` name a variable or a file that
        contains it.

    Returns
    -------
    SignalSource
        The connection.

    Raises
    ------
    ChoiceError
        If the address is unknown or an option is not valid.
    ImportError
        If the package of the connection is not installed.
    """
    address = resolve_secret(text)
    kind = find_kind(SIGNALS, address)
    if kind is None:
        forms = ", ".join(form for one in SIGNALS for form in one.forms)
        raise ChoiceError(f"the signal {show_address(text)!r} is not known; give one of {forms}")
    signal = kind.open(address)
    assert isinstance(signal, SignalSource)
    return signal
