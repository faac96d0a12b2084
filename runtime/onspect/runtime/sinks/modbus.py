"""The verdict for a PLC over Modbus TCP: coils and holding registers for each part.

Offsets from the URL's ``coil`` and ``register``; 32-bit values take two registers, the high word first.

======== ======================================================================================================
coil     +0 reject (ng or fault), +1 review, +2 fault, +3 heartbeat (changes about once a second while the line judges
         its frames), +4 alarm
register +0 parts (uint32), +2 verdict (1 ok, 2 ng, 3 review, 4 fault), +3 regions, +4 score (float32, -1 for a fault),
         +6 threshold (float32), +8 ok, +10 ng, +12 review, +14 fault (uint32 counts of this run)
======== ======================================================================================================

With ``state=REGISTER`` two more registers: +0 the current state (0 waiting, 1 to 4 as the verdict, 5 a camera is lost),
+1 the number of the last part's fault code (`errors.FAULT_NUMBERS`, 0 for none). They are outside the other block,
because a PLC refuses the whole write if one register is missing.

For each part the coils are written first, and then all registers at once. So the coils are valid when ``parts``
changes.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

from onspect.runtime.address import Address, parse_url
from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import FAULT_NUMBERS, ChoiceError, OutputError
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.verdict import Verdict
from onspect.runtime.judgement import JUDGEMENTS, Judgement
from onspect.runtime.sinks.base import Delivery, Sink
from onspect.runtime.status import LineStatus, Now

REGISTERS = 16
COILS = 5
CODES: dict[Judgement, int] = {"ok": 1, "ng": 2, "review": 3, "fault": 4}
"""Values of the verdict register; 0 means no verdict yet."""

STATE_REGISTERS = 2
STATES: dict[Now, int] = {"waiting": 0, "ok": 1, "ng": 2, "review": 3, "fault": 4, "lost": 5}
"""Values of the state register."""

_OPTIONS = {"unit": "0 to 255", "coil": "ADDRESS", "register": "ADDRESS", "state": "ADDRESS"}
_TIMEOUT_S = 0.5
_HEARTBEAT = 3


class ModbusClient:
    """One unit of a Modbus TCP server, for one thread; a request opens the connection.

    Parameters
    ----------
    address
        The parsed address.
    unit
        Number of the unit, 0 to 255.
    """

    def __init__(self, address: Address, *, unit: int) -> None:
        from pymodbus.client import ModbusTcpClient

        # its errors also come as exceptions, which are reported once
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        self._client: Any = ModbusTcpClient(address.host, port=address.port or 502, timeout=_TIMEOUT_S, retries=0)
        self._shown = address.shown
        self.unit = unit

    def ask(self, function: str, address: int, **content: Any) -> Any:
        """Send one request.

        Parameters
        ----------
        function
            Name of the method of pymodbus, such as ``read_coils``.
        address
            First coil or register, 0 to 65535.
        content
            Further arguments of the method.

        Returns
        -------
        Any
            The answer.

        Raises
        ------
        OutputError
            If there is no answer, or the server refuses the request.
        """
        from pymodbus.exceptions import ModbusException

        why = "no connection"
        try:
            if self._client.connect():
                answer = getattr(self._client, function)(address, device_id=self.unit, **content)
                if not answer.isError():
                    return answer
                why = f"it refuses {function} at {address} ({answer}); check unit, coil and register"
        except ModbusException:
            why = "it does not answer"
        except OSError as error:
            why = describe_os_error(error)
        self._client.close()
        doing = "read from" if function.startswith("read") else "write to"
        raise OutputError(f"cannot {doing} {self._shown}: {why}")

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._client.close()


class ModbusSink(Sink):
    """Write each verdict to a PLC, which is the Modbus server.

    `write` returns when the PLC has acknowledged coils and registers. A `QueuedSink` does not write a verdict that is
    older than `stale_after` seconds, because its part has passed.

    Parameters
    ----------
    address
        The parsed address.
    unit
        Number of the unit, 0 to 255.
    coil
        First coil.
    register
        First register.
    state
        First of the two state registers; None for none.
    """

    delivery: Delivery = "live"
    pictures = False
    wants_status = True
    stale_after = 1.0

    def __init__(self, address: Address, *, unit: int, coil: int, register: int, state: int | None = None) -> None:
        self._client = ModbusClient(address, unit=unit)
        self._state = state
        self._coil = coil
        self._register = register
        self._counts: Counter[str] = Counter()
        self._heartbeat = False
        self._judged = -1

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def write(self, inspection: Inspection) -> None:
        """Write one verdict.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If the PLC cannot be reached or does not have these addresses.
        """
        verdict = inspection.verdict
        self._counts[verdict.verdict] += 1
        reject = JUDGEMENTS[verdict.verdict].rejected
        coils = [reject, verdict.verdict == "review", verdict.verdict == "fault"]
        registers = pack(verdict, self._counts)
        state = [CODES[verdict.verdict], FAULT_NUMBERS.get(verdict.code or "", 0)]
        try:
            self._write_all(coils, state, registers)
        except OutputError:
            self._write_all(coils, state, registers)  # a PLC closes idle connections and accepts new ones

    def check(self) -> str:
        """Read the coils and registers that will be written.

        Returns
        -------
        str
            One sentence about the PLC.

        Raises
        ------
        OutputError
            If the PLC cannot be reached or does not have these addresses.
        """
        self._client.ask("read_coils", self._coil, count=COILS)
        self._client.ask("read_holding_registers", self._register, count=REGISTERS)
        if self._state is not None:
            self._client.ask("read_holding_registers", self._state, count=STATE_REGISTERS)
        return f"unit {self._client.unit} answers, and has the coils and registers"

    def report(self, status: LineStatus) -> None:
        """Write heartbeat, alarm and state. The heartbeat changes unless waiting frames are not judged.

        Parameters
        ----------
        status
            The status of the line.

        Raises
        ------
        OutputError
            If the PLC cannot be reached.
        """
        judged = status.judged + status.faulted + status.empty
        if status.running and (status.waiting == 0 or judged != self._judged):
            self._heartbeat = not self._heartbeat
        self._judged = judged
        self._client.ask("write_coils", self._coil + _HEARTBEAT, values=[self._heartbeat, status.alarm is not None])
        if self._state is not None:
            self._client.ask("write_registers", self._state, values=[STATES[status.now]])

    def _write_all(self, coils: Sequence[bool], state: Sequence[int], registers: Sequence[int]) -> None:
        self._client.ask("write_coils", self._coil, values=coils)
        if self._state is not None:
            self._client.ask("write_registers", self._state, values=state)
        self._client.ask("write_registers", self._register, values=registers)


def pack(verdict: Verdict, counts: Counter[str]) -> list[int]:
    """Return the registers of one verdict.

    Parameters
    ----------
    verdict
        The verdict.
    counts
        Number of parts by verdict.

    Returns
    -------
    list[int]
        16 values from 0 to 65535.
    """
    score = -1.0 if verdict.score is None else verdict.score
    data = struct.pack(
        ">IHHff4I",
        sum(counts.values()) & 0xFFFFFFFF,
        CODES[verdict.verdict],
        min(len(verdict.regions), 0xFFFF),
        score,
        verdict.threshold,
        *(counts[name] & 0xFFFFFFFF for name in CODES),
    )
    return list(struct.unpack(f">{REGISTERS}H", data))


def open_modbus(text: str) -> ModbusSink:
    """Return the sink of a PLC.

    Parameters
    ----------
    text
        The address, ``modbus://HOST[:PORT]?unit=1&coil=0&register=0&state=16``.

    Returns
    -------
    ModbusSink
        The sink.

    Raises
    ------
    ChoiceError
        If the address or an option is not valid.
    """
    address = parse_url(text, _OPTIONS)
    if address.path:
        raise ChoiceError(f"the sink {address.shown!r} has a path; Modbus has none: modbus://HOST?register=100")
    options = address.options
    unit = options.count("unit", smallest=0, largest=255)
    register = options.count("register", smallest=0, largest=65536 - REGISTERS) or 0
    state = options.count("state", smallest=0, largest=65536 - STATE_REGISTERS)
    if state is not None and register - STATE_REGISTERS < state < register + REGISTERS:
        last = register + REGISTERS - 1
        raise ChoiceError(
            f"the sink {address.shown!r}: state={state} is among the registers {register} to {last} of the verdict; "
            f"give another, such as state={last + 1}"
        )
    return ModbusSink(
        address,
        unit=1 if unit is None else unit,
        coil=options.count("coil", smallest=0, largest=65536 - COILS) or 0,
        register=register,
        state=state,
    )
