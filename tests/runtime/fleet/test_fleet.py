"""The table of a fleet: the status of each line, and lines that are gone, silent or unreadable."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from onspect.runtime.cli import main
from onspect.runtime.fleet.state import FleetBoard, LineReport
from onspect.runtime.fleet.table import draw_table, summarize, to_dict

from ..services import Broker, find_program, free_port, write_certificates
from ..verdicts import line_status, wait_until

LINE = """
import sys, time
from onspect.runtime.sinks.registry import open_sink
from onspect.runtime.status import LineStatus
from onspect.runtime.inspection.verdict import now
started = now()
with open_sink(sys.argv[1], append=True) as sink:
    for count in range(int(sys.argv[2])):
        sink.report(LineStatus(started, now(), True, sys.argv[3], None, 2.5, None, ok=90, ng=8, review=0, fault=2))
        time.sleep(0.2)
"""
"""A line that runs for a number of fifths of a second."""


class Hands:
    """A clock and a time of day that a test turns."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> float:
        """Return seconds."""
        return self.seconds

    def now(self) -> datetime:
        """Return the time of day."""
        return datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


def open_board(hands: Hands | None = None) -> FleetBoard:
    """Return a board of the lines below ``factory``."""
    hands = hands or Hands()
    return FleetBoard("factory", hands.clock, hands.now)


def message(*, online: bool = True, **facts: Any) -> bytes:
    """Return a line's status message; other fields are kept beside it."""
    status = line_status().to_dict() | facts
    return json.dumps({"format": 1, "online": online} | status).encode()


def report_of(*messages: bytes | str, retained: bool = False, kind: str = "status") -> LineReport:
    """Return the entry of a line that has published these messages."""
    board = open_board()
    for payload in messages:
        data = payload.encode() if isinstance(payload, str) else payload
        board.receive(f"factory/a/{kind}", data, retained=retained)
    (report,) = board.reports()
    return report


WILL = '{"format": 1, "online": false, "lost": true}'


def test_a_running_line_is_told_with_its_figures() -> None:
    """Model, threshold, share of ok parts, counts, and since when it runs come from its status."""
    report = report_of(message(ok=90, ng=8, fault=2))
    assert report == LineReport(
        "factory/a",
        "a",
        "running",
        since="2026-01-01T00:00:00.000Z",
        model="tiny@0123456789ab",
        threshold=0.25,
        parts=100,
        ok_share=0.9,
        ok=90,
        ng=8,
        fault=2,
    )
    assert report.is_well


def test_a_lost_line_keeps_what_it_said_last() -> None:
    """After its last will a line is lost since its last word, with the figures of then."""
    board = open_board()
    board.receive("factory/a/status", message(ok=5), retained=False)
    board.receive("factory/a/last", message(ok=5), retained=False)
    board.receive("factory/a/status", WILL.encode(), retained=False)
    (report,) = board.reports()
    assert (report.state, report.ok, report.since) == ("lost", 5, "2026-01-01T00:00:01.000Z")
    assert not report.is_well


@pytest.mark.parametrize(
    ("payload", "state", "well"),
    [
        (message(), "running", True),
        (message(drift="scores rose"), "running", False),
        (message(alarm="3 of the last 10 parts are ng or fault"), "running", False),
        (message(online=False, lost=False, running=False), "stopped", True),
        (message(running=False), "stopped", True),
        ('{"format": 1, "online": true}', "running", True),
        ('{"online": false}', "lost", False),
        (WILL, "lost", False),
    ],
)
def test_states(payload: bytes | str, state: str, well: bool) -> None:
    """A line that runs or was stopped in order is well; one that is lost, drifts or raises its alarm is not."""
    report = report_of(payload)
    assert (report.state, report.is_well) == (state, well)


def test_a_silent_line_is_stale() -> None:
    """A line without a message for more than ten seconds is stale since its last one."""
    hands = Hands()
    board = open_board(hands)
    board.receive("factory/a/status", message(), retained=False)
    hands.seconds = 9.0
    assert board.reports()[0].state == "running"
    hands.seconds = 11.0
    (report,) = board.reports()
    assert (report.state, report.since) == ("stale", "2026-01-01T00:00:01.000Z")
    assert not report.is_well


def test_an_old_retained_status_is_stale_at_once() -> None:
    """A status that the broker kept is judged by its own time, until the line is heard itself."""
    hands = Hands()
    hands.seconds = 3600.0
    board = open_board(hands)
    board.receive("factory/a/status", message(), retained=True)
    assert board.is_waiting
    assert board.reports()[0].state == "stale"
    board.receive("factory/a/status", message(), retained=False)  # its clock is wrong, and it is there
    assert board.reports()[0].state == "running"
    assert not board.is_waiting


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\xff\xfe", "not JSON"),
        ("[" * 9999, "not JSON"),
        ("on", "not JSON"),
        ("[1]", "not the status of a line"),
        ('{"state": "on"}', "not the status of a line"),
        ('{"online": "yes"}', "cannot be read: online is 'yes'"),
        ('{"online": true, "format": 2}', "has the format 2; this release reads 1"),
        ('{"online": true, "format": "\\u001b[31m"}', "has the format"),
        ('{"online": true, "threshold": NaN}', "threshold is nan"),
        ('{"online": true, "ok": -1}', "out of its range"),
        (f'{{"online": true, "ok": {10**400}}}', "out of its range"),
        (f'{{"online": true, "ok": 1{"0" * 9000}}}', "not JSON"),
        ('{"online": true, "time": "yesterday"}', "cannot be read"),
        ('{"online": true, "time": "2026-01-01T00:00:00"}', "has no time zone"),
        ('{"online": true, "sinks": [1]}', "cannot be read"),
        (b'{"online": true, "model": "' + b"x" * 100_000 + b'"}', "bytes; at most 100000 are allowed"),
    ],
)
def test_a_strangers_message_is_unreadable(payload: bytes | str, words: str) -> None:
    """An invalid message on a status topic is shown as unreadable with the reason, and needs attention."""
    report = report_of(payload, retained=True)
    assert (report.state, report.is_well) == ("unreadable", False)
    assert words in str(report.trouble)
    assert all(line.isprintable() for line in draw_table([report]))


def test_no_text_of_a_stranger_reaches_the_terminal_as_it_is() -> None:
    """Control characters in topics, models and alarms are shown as question marks, and long texts are cut."""
    board = open_board()
    evil = message(
        model="\x1b]0;gotcha\x07", alarm="\u202e" + "x" * 5000, sinks=[{"name": "a\nb", "message": "\x9b2J"}]
    )
    board.receive("factory/\x1b[2J/status", evil, retained=False)
    lines = draw_table(board.reports())
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    assert any("?]0;gotcha?" in line for line in lines)


def test_odd_times_are_no_crash() -> None:
    """Times at the ends of the calendar are shown as published."""
    for moment in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        assert report_of(message(time=moment), retained=True).state in ("running", "stale")


def test_a_status_that_is_taken_back_takes_the_line_off() -> None:
    """An empty retained message, with which a line is removed from a broker, removes it from the table."""
    board = open_board()
    board.receive("factory/a/status", message(), retained=False)
    board.receive("factory/a/status", b"", retained=False)
    assert board.reports() == []


def test_a_flood_of_topics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of lines is limited, and the known ones stay up to date."""
    monkeypatch.setattr("onspect.runtime.fleet.state._MOST_LINES", 10)
    board = open_board()
    for number in range(20):
        board.receive(f"factory/{number}/status", message(), retained=True)
    board.receive("factory/3/status", WILL.encode(), retained=True)
    assert [report.state for report in board.reports()].count("running") == 9


def test_lines_that_need_a_person_stand_first() -> None:
    """The table marks them with ! and describes the problem; the others follow by name."""
    board = open_board()
    board.receive("factory/a/status", message(ok=199, ng=1), retained=False)
    board.receive("factory/b/status", message(drift="scores rose", alarm="camera is away"), retained=False)
    board.receive("factory/c/status", message(sinks=[{"name": "http://x", "message": "refused"}]), retained=False)
    table = draw_table(board.reports())
    assert table[0] == "3 lines: 3 running; 1 to look at (!)"
    assert [line[:4].rstrip() for line in table[2:]] == ["!  b", "", "", "   a", "   c", ""]
    assert "99.50%" in table[5]
    assert table[3:5] == ["     alarm: camera is away", "     drift: scores rose"]
    assert table[7] == "     trouble: http://x: refused"
    assert summarize([]) == "0 lines: no line has reported yet"


def test_json_says_what_the_exit_code_says() -> None:
    """The JSON object has every field of a line, and whether all is well."""
    content = to_dict([report_of(message()), report_of(WILL)])
    assert (content["format"], content["well"]) == (1, False)
    assert [line["well"] for line in content["lines"]] == [True, False]
    assert content["lines"][0]["model"] == "tiny@0123456789ab"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Return a broker that takes anybody."""
    with Broker(tmp_path) as broker:
        yield broker


def start_line(broker: Broker, name: str, fifths: int = 300) -> subprocess.Popen[bytes]:
    """Start a simulated line."""
    url = f"mqtt://127.0.0.1:{broker.port}/factory/hall-2/{name}"
    return subprocess.Popen([sys.executable, "-c", LINE, url, str(fifths), f"{name}@0123456789ab"])


def ask(*arguments: str) -> Result:
    """Run ``onspect fleet status``."""
    return CliRunner().invoke(main, ["fleet", "status", *arguments])


def states(result: Result) -> dict[str, str]:
    """Return each line's state in the command's JSON."""
    return {line["line"]: line["state"] for line in json.loads(result.stdout)["lines"]}


@pytest.mark.slow
def test_three_lines_of_which_one_is_killed(broker: Broker) -> None:
    """Lines appear with their figures; one killed is lost since then, one stopped in order is not an alarm."""
    address = f"mqtt://127.0.0.1:{broker.port}/factory"
    with ExitStack() as stack:
        lines = {name: stack.enter_context(start_line(broker, name)) for name in ("line-1", "line-2")}
        lines["line-3"] = stack.enter_context(start_line(broker, "line-3", fifths=2))
        for line in lines.values():
            stack.callback(line.kill)
        assert lines["line-3"].wait(30) == 0
        wait_until(lambda: ask(address, "--json").exit_code == 0 and len(states(ask(address, "--json"))) == 3, 30)
        healthy = ask(address)
        assert "3 lines: 2 running, 1 stopped" in healthy.stdout
        assert "90.00%" in healthy.stdout
        assert "line-1@0123456789ab" in healthy.stdout
        killed = datetime.now(UTC)
        lines["line-2"].send_signal(signal.SIGKILL)
        lines["line-2"].wait()
        after = ask(address, "--json")
    assert after.exit_code == 1
    assert states(after) == {"hall-2/line-1": "running", "hall-2/line-2": "lost", "hall-2/line-3": "stopped"}
    lost = next(line for line in json.loads(after.stdout)["lines"] if line["state"] == "lost")
    assert abs((datetime.fromisoformat(lost["since"]) - killed).total_seconds()) < 7
    assert (lost["model"], lost["ok_share"]) == ("line-2@0123456789ab", 0.9)


@pytest.mark.slow
def test_watching_prints_each_change_and_ends_cleanly(broker: Broker) -> None:
    """--watch shows a line that comes and a stranger's message, and Ctrl-C ends it without a word."""
    address = f"mqtt://127.0.0.1:{broker.port}/factory"
    command = [sys.executable, "-m", "onspect.runtime", "fleet", "status", address, "--watch", "--json"]
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["lines"] == []
        client.publish("factory/a/status", b"\x00", qos=1, retain=True).wait_for_publish(5)
        assert json.loads(watch.stdout.readline())["lines"][0]["state"] == "unreadable"
        client.publish("factory/a/status", message(online=False, lost=False), qos=1).wait_for_publish(5)
        assert json.loads(watch.stdout.readline())["lines"][0]["state"] == "stopped"
        watch.send_signal(signal.SIGINT)
        try:
            rest, error = watch.communicate(timeout=20)
        finally:
            watch.kill()
    client.disconnect()
    client.loop_stop()
    assert (watch.returncode, rest, error) == (0, "", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a refused socket open
def test_login_and_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS, user and password work as for the MQTT sink; a refusal is reported, and no secret is shown."""
    ca, cert, key = write_certificates(tmp_path)
    passwords = tmp_path / "passwords"
    subprocess.run([find_program("mosquitto_passwd"), "-c", "-b", str(passwords), "eye", "geheim"], check=True)
    settings = [f"certfile {cert}", f"keyfile {key}", "allow_anonymous false", f"password_file {passwords}"]
    (tmp_path / "secret").write_text("geheim\n")
    monkeypatch.setenv("WRONG", "falsch-geheim")
    monkeypatch.setenv("EYE", "eye")
    with Broker(tmp_path, *settings) as broker:
        for password, trusted, words in (
            (f"file:{tmp_path / 'secret'}", f"&ca={ca}", "no line has published"),
            ("env:WRONG", f"&ca={ca}", "the broker refuses"),
            (f"file:{tmp_path / 'secret'}", "", "certificate verify failed"),
        ):
            result = ask(f"mqtts://localhost:{broker.port}/f?username=env:EYE&password={password}{trusted}")
            assert result.exit_code == 1
            assert words in result.stderr
            assert "geheim" not in result.output


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("http://host/x", 2, "is not known; give mqtt://"),
        ("mqtt://", 2, "names no host"),
        ("mqtt://me:geheim@host/x", 2, "has a user or password in it"),
        ("mqtt://host/x?commands=yes", 2, "the broker 'mqtt://host/x?commands=yes' has the option 'commands'"),
        ("mqtt://host/a/%23", 2, "without + and #"),
        ("mqtt://host/a?ca=x", 2, "the broker 'mqtt://host/a' names certificates"),
        ("env:ONSPECT_NOT_SET", 2, "is not set"),
    ],
)
def test_wrong_addresses_are_refused(address: str, code: int, words: str) -> None:
    """An address that cannot work is bad usage, told with the cure and without its secrets."""
    result = ask(address)
    assert result.exit_code == code
    assert words in result.stderr
    assert "geheim" not in result.stderr


@pytest.mark.slow
def test_a_broker_that_is_not_there_is_told_at_once() -> None:
    """If nobody listens, the command fails with the reason instead of waiting."""
    began = time.monotonic()
    result = ask(f"mqtt://127.0.0.1:{free_port()}/factory")
    assert result.exit_code == 1
    assert "cannot receive the lines' status from mqtt://127.0.0.1" in result.stderr
    assert "refused" in result.stderr
    assert time.monotonic() - began < 5


def test_without_the_extra_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without paho-mqtt the command says what to install."""
    monkeypatch.setitem(sys.modules, "paho", None)
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    result = ask("mqtt://127.0.0.1/factory")
    assert result.exit_code == 1
    assert "pip install 'onspect[mqtt]'" in result.stderr
