"""Signals over Modbus TCP: the PLC is the server, and the line reads and writes its coils and holding registers.

Offsets count from the options of the address; text takes two characters for each register, the high byte first.

=================== ============================================================================================
``in`` coils        +0 trigger, +1 ack, +2 reset
``inreg`` registers +0 recipe (its number, 0 for the active one), +1 shift (0 for none), +2 to +9 part id (16
                    characters, ends at the first 0)
``out`` coils       +0 ready, +1 busy, +2 valid, +3 alive, +4 reject
``outreg``          +0 sequence (uint32, high word first), +2 verdict, +3 error, +4 score (float32), +6 to +13 part
=================== ============================================================================================
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from onspect.runtime.address import Address, parse_url
from onspect.runtime.errors import ChoiceError
from onspect.runtime.signals.base import PART_LENGTH, Inputs, Outputs, SignalSource
from onspect.runtime.sinks.modbus import ModbusClient

IN_COILS, IN_REGISTERS = 3, 2 + PART_LENGTH // 2
OUT_COILS, OUT_REGISTERS = 5, 6 + PART_LENGTH // 2

_OPTIONS = {
    "unit": "0 to 255",
    "in": "COIL",
    "inreg": "REGISTER",
    "out": "COIL",
    "outreg": "REGISTER",
    "poll": "MILLISECONDS",
}
_SHIFT_S = 0.5  # seconds between two reads of the registers while no trigger comes


class ModbusSignal(SignalSource):
    """Read the coils at each poll, and the registers when the trigger rises; write a result before ``valid``."""

    def __init__(
        self, address: Address, *, unit: int, inputs: tuple[int, int], outputs: tuple[int, int], poll: float
    ) -> None:
        super().__init__(address.shown, poll=poll)
        self._client = ModbusClient(address, unit=unit)
        self._in_coil, self._in_register = inputs
        self._out_coil, self._out_register = outputs
        self._trigger = False
        self._words: tuple[str | None, str | None, str | None] = (None, None, None)
        self._due = 0.0
        self._written: dict[str, Sequence[int]] = {}

    def read(self) -> Inputs:
        """Return the signals of the PLC.

        Returns
        -------
        Inputs
            The signals.

        Raises
        ------
        OutputError
            If the PLC does not answer or does not have these addresses.
        """
        bits = self._client.ask("read_coils", self._in_coil, count=IN_COILS).bits
        trigger, ack, reset = (bool(bit) for bit in bits[:IN_COILS])
        if (trigger and not self._trigger) or time.monotonic() >= self._due:
            answer = self._client.ask("read_holding_registers", self._in_register, count=IN_REGISTERS)
            recipe, shift, *part = answer.registers
            self._words = (_decode(part), str(recipe) if recipe else None, str(shift) if shift else None)
            self._due = time.monotonic() + _SHIFT_S
        self._trigger = trigger
        part_id, recipe_number, shift_number = self._words
        return Inputs(trigger, ack, reset, part_id, recipe_number, shift_number)

    def write(self, outputs: Outputs) -> None:
        """Write the changed signals; a result is complete before ``valid`` is set, and stays until it is cleared.

        Parameters
        ----------
        outputs
            The signals.

        Raises
        ------
        OutputError
            If the PLC does not answer or does not have these addresses.
        """
        coils = [outputs.ready, outputs.busy, outputs.valid, outputs.alive, outputs.reject]
        writes: list[tuple[str, int, Sequence[int]]] = [
            ("write_coils", self._out_coil, coils),
            ("write_registers", self._out_register, pack(outputs)),
        ]
        for function, place, values in reversed(writes) if outputs.valid else writes:
            if values != self._written.get(function):
                self._client.ask(function, place, values=values)
                self._written[function] = values

    def close(self) -> None:
        """Close the connection; the next write writes everything."""
        self._client.close()
        self._written.clear()
        self._trigger = False


def pack(outputs: Outputs) -> list[int]:
    """Return the registers of a result.

    Parameters
    ----------
    outputs
        The signals.

    Returns
    -------
    list[int]
        14 values from 0 to 65535.
    """
    part = outputs.part.encode("ascii", "replace")[:PART_LENGTH].ljust(PART_LENGTH, b"\0")
    data = struct.pack(">IHHf", outputs.sequence & 0xFFFFFFFF, outputs.verdict, outputs.error, outputs.score) + part
    return list(struct.unpack(f">{OUT_REGISTERS}H", data))


def open_modbus(text: str) -> ModbusSignal:
    """Return the connection to a PLC over Modbus TCP.

    Parameters
    ----------
    text
        The address, ``modbus://HOST[:502]?unit=1&in=0&inreg=0&out=16&outreg=16&poll=5``.

    Returns
    -------
    ModbusSignal
        The connection.

    Raises
    ------
    ChoiceError
        If the address or an option is not valid.
    """
    address = parse_url(text, _OPTIONS, "signal")
    if address.path:
        raise ChoiceError(f"the signal {address.shown!r} has a path; Modbus has none: modbus://HOST?in=100")
    options = address.options

    def place(name: str, default: int, size: int) -> int:
        value = options.count(name, smallest=0, largest=65536 - size)
        return default if value is None else value

    unit = options.count("unit", smallest=0, largest=255)
    coils, registers = place("in", 0, IN_COILS), place("inreg", 0, IN_REGISTERS)
    out, outreg = place("out", 16, OUT_COILS), place("outreg", 16, OUT_REGISTERS)
    for name, one, length, other, other_length in (
        ("out", out, OUT_COILS, coils, IN_COILS),
        ("outreg", outreg, OUT_REGISTERS, registers, IN_REGISTERS),
    ):
        if one < other + other_length and other < one + length:
            raise ChoiceError(
                f"the signal {address.shown!r}: {name}={one} overlaps the inputs at {other}; give another number"
            )
    return ModbusSignal(
        address,
        unit=1 if unit is None else unit,
        inputs=(coils, registers),
        outputs=(out, outreg),
        poll=(options.number("poll") or 5.0) / 1000.0,
    )


def _decode(registers: list[int]) -> str | None:
    """Return the text of registers; bytes that are not printable ASCII are shown as escapes."""
    data = struct.pack(f">{len(registers)}H", *registers).partition(b"\0")[0]
    text = data.decode("ascii", "backslashreplace").strip()
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text) or None
