from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onspect.runtime.errors import OutputError
from onspect.runtime.sinks.delivery import spool as spool_module
from onspect.runtime.sinks.delivery.spool import Spool


def lines(first: int, end: int) -> list[bytes]:
    """Return numbered lines."""
    return [b"line %d" % number for number in range(first, end)]


def drain(spool: Spool, count: int = 3) -> list[bytes]:
    """Read and take away everything."""
    found: list[bytes] = []
    while (piece := spool.read(count)).lines:
        found += piece.lines
        spool.advance(piece)
    return found


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    """Appended lines are read in order, over several segments, and delivered segments are removed."""
    with Spool(tmp_path, segment_bytes=40) as spool:
        spool.append(lines(0, 50))
        assert len(spool) == 50
        assert len(list(tmp_path.glob("*.jsonl"))) > 5
        assert drain(spool) == lines(0, 50)
        spool.append(lines(50, 52))
        assert drain(spool) == lines(50, 52)
        assert len(spool) == 0
        assert len(list(tmp_path.glob("*.jsonl"))) <= 1


def test_what_was_not_taken_away_comes_again(tmp_path: Path) -> None:
    """Lines stay until they are taken away, in this run and in the next."""
    with Spool(tmp_path, segment_bytes=40) as spool:
        spool.append(lines(0, 20))
        spool.advance(spool.read(4))
        assert spool.read(2).lines == spool.read(2).lines == (b"line 4", b"line 5")
    with Spool(tmp_path, segment_bytes=40) as spool:
        assert len(spool) == 16
        spool.append(lines(20, 25))
        assert drain(spool) == lines(4, 25)
    with Spool(tmp_path) as spool:
        assert (len(spool), drain(spool)) == (0, [])
        spool.append(lines(0, 2))
        assert drain(spool) == lines(0, 2)


@pytest.mark.parametrize("cursor", [b"", b"7 99 00000000\n", b"\xff\xfe"])
def test_lost_cursor_repeats_and_never_skips(tmp_path: Path, cursor: bytes) -> None:
    """If power was lost while the cursor was written, delivered lines may come again and none is left out."""
    with Spool(tmp_path) as spool:
        spool.append(lines(0, 9))
        spool.advance(spool.read(5))
    (tmp_path / "cursor").write_bytes(cursor)
    with Spool(tmp_path) as spool:
        assert drain(spool) == lines(0, 9)


def test_line_torn_by_a_power_cut_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A last line without an end is cut off with a warning; the lines before and after it are whole."""
    with Spool(tmp_path) as spool:
        spool.append(lines(0, 3))
    (segment,) = tmp_path.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes()[:-2])
    with caplog.at_level(logging.WARNING), Spool(tmp_path) as spool:
        spool.append(lines(7, 8))
        assert drain(spool) == [*lines(0, 2), *lines(7, 8)]
    assert "ended inside a line" in caplog.text


def test_full_spool_gives_up_its_oldest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A spool stays within its limit by removing the oldest segment, and counts and reports the loss."""
    with caplog.at_level(logging.WARNING), Spool(tmp_path, segment_bytes=70, limit_bytes=280) as spool:
        held = spool.read(1)
        for number in range(100):
            spool.append(lines(number, number + 1))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) <= 280
        spool.advance(held)
        rest = drain(spool)
        assert rest == lines(100 - len(rest), 100)
        assert spool.lost == 100 - len(rest) > 0
    assert "oldest verdicts are lost" in caplog.text


def test_full_disk_keeps_lines_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that the disk refuses wait in memory, in order, move to the disk later, and are counted above a limit."""

    def refuse(file: Any, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with Spool(tmp_path, tail_capacity=5) as spool:
        spool.append(lines(0, 3))
        with monkeypatch.context() as patch:
            patch.setattr(spool_module, "_write_all", refuse)
            spool.append(lines(3, 10))
            assert (len(spool), spool.held, spool.lost) == (3, 5, 2)
            assert "No space left on device" in spool.message
            spool.advance(spool.read(3))
            spool.advance(spool.read(2))
            lent = spool.read(1)
        spool.append(lines(20, 21))
        assert spool.held == 4, "a line that is being delivered must not move"
        spool.advance(lent)
        spool.append(lines(21, 22))
        assert (len(spool), spool.held, spool.message) == (4, 0, "")
        assert drain(spool) == [*lines(6, 8), *lines(20, 22)]


def test_beginning_of_a_new_spool_survives_a_kill(tmp_path: Path) -> None:
    """The start of a new spool is known after a kill before the first line: everything recorded since is sent then."""
    spool = Spool(tmp_path)
    spool.__enter__()
    spool.begin_after("0" * 16)
    for file in (spool._cursor_file, spool._guard):
        file.close()  # type: ignore[union-attr]
    with Spool(tmp_path) as after:
        assert after.newest == "0" * 16


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A folder that another spool has open is refused, and free again when that is closed."""
    with Spool(tmp_path), pytest.raises(OutputError, match="in use by another run"), Spool(tmp_path):
        pass
    with Spool(tmp_path):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_process_loses_nothing(tmp_path: Path) -> None:
    """After kill -9 all lines whose append returned are there, and those taken away are not but for the last few."""
    script = (
        "import sys, itertools; from pathlib import Path\n"
        "from onspect.runtime.sinks.delivery.spool import Spool\n"
        "with Spool(Path(sys.argv[1]), segment_bytes=2000) as spool:\n"
        "    for number in itertools.count():\n"
        "        spool.append([b'line %d' % number])\n"
        "        print('put', number, flush=True)\n"
        "        if number % 3:\n"
        "            piece = spool.read(1); spool.advance(piece)\n"
        "            print('took', int(piece.lines[0].split()[1]), flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    printed = [process.stdout.readline() for _ in range(700)]
    os.kill(process.pid, signal.SIGKILL)
    printed += process.communicate()[0].splitlines(keepends=True)
    whole = [line.decode().split() for line in printed if line.endswith(b"\n")]
    put = max(int(number) for word, number in whole if word == "put")
    took = max(int(number) for word, number in whole if word == "took")
    with Spool(tmp_path) as spool:
        left = [int(line.split()[1]) for line in drain(spool)]
    assert left == list(range(left[0], left[-1] + 1))
    assert put <= left[-1] <= put + 1
    assert took <= left[0] <= took + 2
