"""Each kind of connection against a PLC: pymodbus and asyncua as servers, mosquitto as broker."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onspect.runtime.errors import ChoiceError, OutputError
from onspect.runtime.signals import open_signal
from onspect.runtime.signals.base import Inputs, Outputs, SignalSource
from onspect.runtime.signals.controller import SignalController
from onspect.runtime.signals.handshake import HandshakeTimes
from onspect.runtime.signals.mqtt import merge
from onspect.runtime.signals.opcua import INPUTS, OUTPUTS
from onspect.runtime.signals.registry import SIGNALS

from ..services import Broker, Plc, free_port
from ..verdicts import inspection, wait_until
from .plc import Program

RESULT = Outputs(valid=True, alive=True, reject=True, error=1, sequence=70_000, verdict=2, score=0.5, part="P-7")


@dataclass
class Site:
    """A PLC with the address that the line gets, its program, and how to take it away and bring it back."""

    address: str
    program: Program
    stop: Callable[[], None]
    start: Callable[[], None]


@contextmanager
def modbus_site(folder: Path) -> Iterator[Site]:
    """A pymodbus server."""
    with Plc(coils=48, registers=64) as plc:

        def look() -> Outputs:
            bits, words = plc.read(coil=16, coils=5, register=16, registers=14)
            head = struct.unpack(">IHHf", struct.pack(">6H", *words[:6]))
            part = struct.pack(">8H", *words[6:]).rstrip(b"\0").decode()
            sequence, verdict, error, score = head
            ready, busy, valid, alive, reject = bits
            return Outputs(ready, busy, valid, alive, reject, error, sequence, verdict, score, part)

        def tell(inputs: Inputs) -> None:
            part = struct.unpack(">8H", (inputs.part or "").encode().ljust(16, b"\0"))
            registers = [int(inputs.recipe or 0), int(inputs.shift or 0), *part]
            plc.set_inputs([inputs.trigger, inputs.ack, inputs.reset], registers)

        yield Site(f"modbus://127.0.0.1:{plc.port}?unit=7&poll=2", Program(look, tell), plc.stop, plc.start)


class OpcUaPlc:
    """An asyncua server with the variables of a line, which the line may write."""

    def __init__(self) -> None:
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._nodes: dict[str, Any] = {}
        self._types: dict[str, Any] = {}
        self._server: Any = None
        self._told = Inputs()

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()
        self.do(self._open())

    def stop(self) -> None:
        self.do(self._server.stop())

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _open(self) -> None:
        from asyncua import ua
        from asyncua.server.server import Server

        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}/plc")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        kinds = dict.fromkeys(("Trigger", "Ack", "Reset", "Ready", "Busy", "Valid"), ua.VariantType.Boolean)
        kinds |= dict.fromkeys(("Alive", "Reject"), ua.VariantType.Boolean)
        kinds |= dict.fromkeys(("Recipe", "Shift", "Error", "Verdict"), ua.VariantType.UInt16)
        kinds |= {"Sequence": ua.VariantType.UInt32, "Score": ua.VariantType.Float}
        kinds |= dict.fromkeys(("Part", "ResultPart"), ua.VariantType.String)
        zeros = {ua.VariantType.Boolean: False, ua.VariantType.String: "", ua.VariantType.Float: 0.0}
        for name in (*INPUTS, *OUTPUTS):
            self._types[name] = kinds[name]
            node = await server.nodes.objects.add_variable(
                ua.NodeId(f"Line1.{name}", 2), ua.QualifiedName(name, 2), zeros.get(kinds[name], 0), kinds[name]
            )
            await node.set_writable()
            self._nodes[name] = node
        await server.start()
        self._server = server

    def look(self) -> Outputs:
        async def read() -> dict[str, Any]:
            return {name: await self._nodes[name].read_value() for name in OUTPUTS}

        values = {name.lower(): value for name, value in self.do(read()).items()}
        return Outputs(**({"part": values.pop("resultpart") or ""} | values))

    def tell(self, inputs: Inputs) -> None:
        values = {"Part": inputs.part or "", "Recipe": int(inputs.recipe or 0), "Shift": int(inputs.shift or 0)}
        values |= {"Ack": inputs.ack, "Reset": inputs.reset, "Trigger": inputs.trigger}

        async def write() -> None:
            for name, value in values.items():
                await self._nodes[name].write_value(value, self._types[name])

        self.do(write())


@contextmanager
def opcua_site(folder: Path) -> Iterator[Site]:
    """An asyncua server."""
    plc = OpcUaPlc()
    plc.start()
    try:
        address = f"opcua://127.0.0.1:{plc.port}/plc?node=ns=2;s=Line1&poll=10"
        program = Program(plc.look, plc.tell, pause=0.01)  # one look takes milliseconds of the processor
        yield Site(address, program, plc.stop, plc.start)
    finally:
        plc.stop()
        plc.end()


@contextmanager
def mqtt_site(folder: Path) -> Iterator[Site]:
    """A gateway that speaks MQTT."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    with Broker(folder) as broker:
        seen = [Outputs()]
        client = Client(CallbackAPIVersion.VERSION2)

        def note(_client: Any, _data: object, message: Any) -> None:
            content = json.loads(message.payload)
            content.pop("online")
            seen.append(Outputs(**content))

        client.on_message = note
        client.on_connect = lambda *_: client.subscribe("line/1/out", qos=1)
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()

        def tell(inputs: Inputs) -> None:
            client.publish("line/1/in", json.dumps(dataclasses.asdict(inputs)), qos=1, retain=True)

        tell(Inputs())
        try:
            program = Program(lambda: seen[-1], tell)
            yield Site(f"mqtt://127.0.0.1:{broker.port}/line/1", program, broker.stop, broker.start)
        finally:
            client.disconnect()
            client.loop_stop()


SITES = {"modbus:": modbus_site, "opcua:": opcua_site, "mqtt:": mqtt_site}
KINDS = ["modbus:", pytest.param("opcua:", marks=pytest.mark.slow), "mqtt:"]  # its server takes seconds to start


@pytest.fixture(scope="module", params=KINDS)
def plant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a PLC of each kind."""
    with SITES[request.param](tmp_path_factory.mktemp("plc")) as found:
        yield found


@pytest.fixture
def site(plant: Site) -> Site:
    """Return the PLC with all of its signals cleared."""
    plant.program.inputs = Inputs()
    plant.program.set()
    return plant


@pytest.fixture(params=KINDS)
def own_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Return a PLC of each kind with its own address."""
    with SITES[request.param](tmp_path) as found:
        yield found


@contextmanager
def judging(address: str, times: HandshakeTimes = HandshakeTimes(10.0, 10.0)) -> Iterator[SignalController]:
    """Run a controller whose parts are ok, but for those that are called bad, and those that are called slow."""
    ended = threading.Event()
    signals = SignalController(open_signal(address), times=times, recipes=["left", "right"])

    def judge() -> None:
        while not ended.is_set():
            ticket = signals.next_ticket(0, 0.01)
            if ticket is not None and ticket.part != "slow":
                verdict = "ng" if ticket.part == "bad" else "ok"
                one = inspection(verdict=verdict, part=ticket.part, score=0.5 if ticket.recipe is None else 0.25)
                signals.settle(dataclasses.replace(one, ticket=ticket.number))

    thread = threading.Thread(target=judge)
    with signals:
        thread.start()
        try:
            yield signals
        finally:
            ended.set()
            thread.join(5)


def test_every_connection_of_the_registry_is_here() -> None:
    """Each row of the registry is tested."""
    assert [row.forms for row in SIGNALS if not set(SITES).intersection(row.prefixes)] == []


def test_parts_go_through_the_handshake(site: Site) -> None:
    """Trigger, part id, recipe and shift come in; sequence, verdict, score and part go out, each part once."""
    with judging(site.address) as signals:
        names = ["a", "bad", "Teil-3", "bad", "e"]
        results = [site.program.run_part(name, "2" if name == "e" else None) for name in names]
        site.program.set(shift="3")
        wait_until(lambda: signals.shift == "3")
        wait_until(lambda: signals.state().acknowledged == 5)
    assert [(one.sequence, one.verdict, one.part) for one in results] == [
        (1, 1, "a"),
        (2, 2, "bad"),
        (3, 1, "Teil-3"),
        (4, 2, "bad"),
        (5, 1, "e"),
    ]
    assert [one.score for one in results] == [0.5] * 4 + [0.25]
    state = signals.state()
    assert (state.parts, state.unacknowledged, state.failed) == (5, 0, 0)


@pytest.mark.slow
def test_without_a_verdict_the_plc_reads_a_fault(site: Site) -> None:
    """No ok, and not nothing: a fault with its error code, and then the next part."""
    with judging(site.address, HandshakeTimes(1.5, 10.0)):
        result = site.program.run_part("slow")
        assert (result.verdict, result.error, result.score, result.part) == (4, 1, -1.0, "slow")
        assert site.program.run_part("next").verdict == 1


@pytest.mark.slow
def test_without_an_ack_valid_is_cleared(site: Site) -> None:
    """A PLC that does not acknowledge finds no valid result, and a fault in its place; then the line continues."""
    with judging(site.address, HandshakeTimes(10.0, 1.5)) as signals:
        site.program.wait(lambda outputs: outputs.ready)
        site.program.set(trigger=True, part="a")
        site.program.wait(lambda outputs: outputs.valid)
        outputs = site.program.wait(lambda outputs: not outputs.valid and outputs.error == 2)
        assert outputs.verdict == 4
        site.program.set(trigger=False)
        assert site.program.run_part("b").verdict == 1
        wait_until(lambda: signals.state().acknowledged == 1)
        assert signals.state().unacknowledged == 1


@pytest.mark.slow
def test_a_plc_that_was_away_is_served_again(own_site: Site) -> None:
    """The loss is reported, the line does not hang, and parts are judged once the PLC is back."""
    site = own_site
    with judging(site.address) as signals:
        assert site.program.run_part("a").verdict == 1
        site.program.set(trigger=False, part=None)
        site.stop()
        wait_until(lambda: not signals.state().connected)
        assert signals.state().message
        site.start()
        site.program.inputs = Inputs()
        end = time.monotonic() + 20
        while not signals.state().connected:
            assert time.monotonic() < end
            time.sleep(0.02)
        site.program.set(trigger=False)
        assert site.program.run_part("b").verdict == 1
        assert signals.state().reconnects >= 1


@pytest.mark.slow
def test_the_alive_signal_changes(site: Site) -> None:
    """A PLC can see that the line is there."""
    with judging(site.address):
        before = site.program.wait(lambda outputs: outputs.ready).alive
        site.program.wait(lambda outputs: outputs.alive is not before, 3.0)


def test_a_line_that_has_ended_leaves_nothing_set(site: Site) -> None:
    """Ready, busy, valid and reject are cleared at the end."""
    with judging(site.address):
        site.program.run_part("a")
    site.program.wait(lambda outputs: not (outputs.ready or outputs.busy or outputs.valid or outputs.reject))


@pytest.mark.parametrize(
    "kind", ["modbus://127.0.0.1:{}", "opcua://127.0.0.1:{}/?node=ns=2;s=L", "mqtt://127.0.0.1:{}/a"]
)
def test_a_plc_that_is_not_there_is_told_in_words(kind: str) -> None:
    """The first read says that nothing answers there."""
    signal = open_signal(kind.format(free_port()))
    try:
        with pytest.raises(OutputError, match=r"cannot (reach|read from) .*127\.0\.0\.1"):
            signal.read()
    finally:
        signal.close()


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("modbus://plc/path", "has a path"),
        ("modbus://plc?out=2", "overlaps the inputs at 0"),
        ("modbus://plc?in=70000", "whole number from 0 to 65533"),
        ("modbus://plc?speed=1", "the options are: unit"),
        ("modbus://plc?poll=0", "a number above 0"),
        ("modbus://plc?unit=7", None),
        ("opcua://plc", "needs the option node"),
        ("opcua://plc?node=Line1", "needs the option node"),
        ("mqtt://broker", "needs a topic"),
        ("mqtt://broker/a/+", "needs a topic"),
        ("ethercat://plc", "is not known; give one of modbus"),
        ("modbus://user:secret@plc", "has a user or password in it"),
    ],
)
def test_addresses_are_refused_in_words(address: str, words: str | None) -> None:
    """A wrong address is refused when it is opened; the message has no secret."""
    if words is None:
        assert isinstance(open_signal(address), SignalSource)
        return
    with pytest.raises(ChoiceError, match=words) as failure:
        open_signal(address)
    assert "secret" not in str(failure.value)


def test_the_address_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address from env: is used."""
    monkeypatch.setenv("PLC_ADDRESS", "modbus://10.0.0.7?unit=3")
    assert open_signal("env:PLC_ADDRESS").poll == 0.005


def test_a_plc_without_these_registers_is_named(tmp_path: Path) -> None:
    """The message names the refused request, and the options to check."""
    with Plc(coils=8, registers=8) as plc:
        signal = open_signal(f"modbus://127.0.0.1:{plc.port}?unit=7&in=100&out=200")
        with pytest.raises(OutputError, match="refuses read_coils at 100"):
            signal.read()
        signal.close()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"no", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"trigger": 1}', "'trigger': 1"),
        (b'{"part": true}', "'part': True"),
        (b'{"speed": 3}', "'speed': 3"),
        (b" " * 20_000, "20000 bytes"),
    ],
)
def test_messages_that_are_none_change_nothing(payload: bytes, words: str) -> None:
    """A bad message is refused as a whole."""
    with pytest.raises(ChoiceError, match=words):
        merge(Inputs(), payload)


def test_a_message_changes_what_it_names() -> None:
    """Keys that are left out stay unchanged; an empty text and null mean none."""
    before = Inputs(trigger=True, part="a", shift="1")
    assert merge(before, b'{"ack": true, "part": "", "recipe": 3}') == Inputs(True, True, False, None, "3", "1")
