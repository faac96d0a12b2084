"""Signals over OPC UA: the PLC is the server, and the line reads and writes variables below one node.

With ``node=ns=2;s=Line1`` the inputs are ``ns=2;s=Line1.Trigger``, ``.Ack``, ``.Reset`` (Boolean), ``.Part``,
``.Recipe`` and ``.Shift`` (String or a whole number), and the outputs ``.Ready``, ``.Busy``, ``.Valid``, ``.Alive``,
``.Reject`` (Boolean), ``.Sequence``, ``.Verdict``, ``.Error`` (any whole number), ``.Score`` (Float or Double) and
``.ResultPart`` (String).
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from onspect.runtime.address import Address, parse_url
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.signals.base import Inputs, Outputs, SignalSource

PORT = 4840
INPUTS = ("Trigger", "Ack", "Reset", "Part", "Recipe", "Shift")
OUTPUTS = ("Ready", "Busy", "Alive", "Reject", "Error", "Sequence", "Verdict", "Score", "ResultPart", "Valid")

_OPTIONS = {
    "node": "ns=2;s=NAME",
    "poll": "MILLISECONDS",
    "username": "env:NAME",
    "password": "env:NAME or file:PATH",
}
_TIMEOUT_S = 2.0


class OpcUaSignal(SignalSource):
    """Read all inputs with one request at each poll; write a result before ``Valid`` is set."""

    def __init__(self, address: Address, *, node: str, poll: float) -> None:
        import asyncua  # noqa: F401 - report a missing package when the address is opened

        super().__init__(address.shown, poll=poll)
        for name in ("asyncua", "asyncua.client"):
            # its errors also come as exceptions, which are reported once
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._address = address
        self._node = node
        self._endpoint = f"opc.tcp://{address.bracketed_host}:{address.port or PORT}/{address.path}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._inputs: list[Any] = []
        self._outputs: dict[str, tuple[Any, Any]] = {}
        self._written: dict[str, Any] = {}

    def read(self) -> Inputs:
        """Return the signals of the PLC.

        Returns
        -------
        Inputs
            The signals.

        Raises
        ------
        OutputError
            If the PLC does not answer or does not have these nodes.
        """
        if self._client is None:
            self._do(self._connect())
        trigger, ack, reset, part, recipe, shift = self._do(self._client.read_values(self._inputs))
        return Inputs(bool(trigger), bool(ack), bool(reset), _word(part), _word(recipe), _word(shift))

    def write(self, outputs: Outputs) -> None:
        """Write the changed signals: the result before ``Valid`` is set and after it is cleared.

        Parameters
        ----------
        outputs
            The signals.

        Raises
        ------
        OutputError
            If the PLC does not answer or does not have these nodes.
        """
        values = {name: getattr(outputs, name.lower()) for name in OUTPUTS if name != "ResultPart"}
        values["ResultPart"] = outputs.part
        changed = [name for name in OUTPUTS if self._written.get(name) != values[name]]
        result, valid = [name for name in changed if name != "Valid"], [name for name in changed if name == "Valid"]
        for group in (result, valid) if outputs.valid else (valid, result):
            if group:
                self._do(self._write(group, values))
                self._written |= {name: values[name] for name in group}

    def close(self) -> None:
        """Close the connection and its event loop."""
        client, self._client, self._written = self._client, None, {}
        loop, self._loop = self._loop, None
        if loop is None:
            return
        loop.run_until_complete(_say_goodbye(client))
        loop.close()

    def _do(self, work: Any) -> Any:
        from asyncua.ua.uaerrors import UaError

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            return self._loop.run_until_complete(asyncio.wait_for(work, _TIMEOUT_S))
        except TimeoutError as error:
            raise OutputError(f"cannot reach {self.name}: it does not answer within {_TIMEOUT_S:g} s") from error
        except (UaError, CancelledError, asyncio.CancelledError) as error:
            why = str(error).rstrip(".") or type(error).__name__
            raise OutputError(f"cannot reach {self.name}: {why}; check address, node and access") from error
        except OSError as error:
            raise OutputError(f"cannot reach {self.name}: {describe_os_error(error)}") from error

    async def _connect(self) -> None:
        from asyncua.client.client import Client

        client = Client(self._endpoint, timeout=_TIMEOUT_S)
        if self._address.username is not None:
            client.set_user(self._address.username)
            client.set_password(self._address.password or "")
        await client.connect()
        self._client = client
        self._inputs = [client.get_node(f"{self._node}.{name}") for name in INPUTS]
        await client.read_values(self._inputs)
        for name in OUTPUTS:
            node = client.get_node(f"{self._node}.{name}")
            self._outputs[name] = (node, await node.read_data_type_as_variant_type())

    async def _write(self, names: list[str], values: dict[str, Any]) -> None:
        from asyncua import ua

        nodes = [self._outputs[name][0] for name in names]
        content = [ua.DataValue(ua.Variant(values[name], self._outputs[name][1])) for name in names]
        await self._client.write_values(nodes, content)


async def _say_goodbye(client: Any) -> None:
    """Close the session, and end its remaining tasks."""
    if client is not None:
        with suppress(Exception, asyncio.CancelledError):  # a connection that is broken cannot be closed in order
            await asyncio.wait_for(client.disconnect(), _TIMEOUT_S)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def open_opcua(text: str) -> OpcUaSignal:
    """Return the connection to a PLC over OPC UA.

    Parameters
    ----------
    text
        The address, ``opcua://HOST[:4840]/PATH?node=ns=2;s=NAME&poll=5``.

    Returns
    -------
    OpcUaSignal
        The connection.

    Raises
    ------
    ChoiceError
        If the address or an option is not valid.
    """
    address = parse_url(text, _OPTIONS, "signal")
    node = address.options.text("node")
    if node is None or ";s=" not in node or not node.startswith("ns="):
        raise ChoiceError(f"the signal {address.shown!r} needs the option node=ns=NUMBER;s=NAME, such as ns=2;s=Line1")
    return OpcUaSignal(address, node=node, poll=(address.options.number("poll") or 5.0) / 1000.0)


def _word(value: Any) -> str | None:
    """Return a text or a number as text; an empty text and 0 give None."""
    return str(value) if value else None
