"""The spool compared with a list, over crashes, restarts and power cuts at any moment."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from onspect.runtime.sinks.delivery.spool import Spool

LINES = st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=5)


class SpoolAndList(RuleBasedStateMachine):
    """Appended lines come in order: after a kill exactly once, after a power cut once or more."""

    @initialize(segment_bytes=st.integers(1, 80))
    def begin(self, segment_bytes: int) -> None:
        self.resources = ExitStack()
        self.folder = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))
        self.segment_bytes = segment_bytes
        self.delivered: list[bytes] = []
        self.waiting: list[bytes] = []
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.folder, segment_bytes=self.segment_bytes)
        self.spool.__enter__()

    def die(self) -> None:
        """End as a killed process does: the system closes its files, and nothing more is written."""
        for file in (self.spool._file, self.spool._cursor_file, self.spool._guard):
            if file is not None:
                file.close()

    @rule(lines=LINES)
    def append(self, lines: list[bytes]) -> None:
        """Add lines."""
        self.spool.append(lines)
        self.waiting += lines

    @rule(count=st.integers(1, 7))
    def deliver(self, count: int) -> None:
        """Take lines and deliver them."""
        piece = self.spool.read(count)
        assert list(piece.lines) == self.waiting[: len(piece.lines)]
        assert bool(piece.lines) == bool(self.waiting)
        self.spool.advance(piece)
        self.delivered += self.waiting[: len(piece.lines)]
        del self.waiting[: len(piece.lines)]

    @rule(count=st.integers(1, 7))
    def fail_to_deliver(self, count: int) -> None:
        """Take lines that a sink does not accept: they come again."""
        assert self.spool.read(count) == self.spool.read(count)

    @rule()
    def close_and_open(self) -> None:
        """End normally, and begin again."""
        self.spool.__exit__()
        self.open()

    @rule()
    def kill_and_open(self) -> None:
        """Be killed, and begin again: nothing is lost and nothing comes twice."""
        self.die()
        self.open()

    @rule(stump=st.binary(min_size=1, max_size=20).filter(lambda data: b"\n" not in data))
    def lose_power_in_a_line(self, stump: bytes) -> None:
        """Lose power while a line is written, which leaves a part of it: that part is left out."""
        self.die()
        segments = sorted(self.folder.glob("*.jsonl"))
        if segments:
            with segments[-1].open("ab") as file:
                file.write(stump)
        self.open()

    @rule(cursor=st.binary(max_size=100))
    def lose_power_at_the_cursor(self, cursor: bytes) -> None:
        """Lose power while the cursor is written: lines may come again, and none is left out."""
        self.die()
        (self.folder / "cursor").write_bytes(cursor)
        self.open()
        again = len(self.spool) - len(self.waiting)
        assert 0 <= again <= len(self.delivered)
        if again:
            self.waiting[:0] = self.delivered[-again:]
            del self.delivered[-again:]

    @invariant()
    def as_many_wait_as_are_in_the_list(self) -> None:
        """The spool knows how many lines wait, and has lost none."""
        assert (len(self.spool), self.spool.held, self.spool.lost) == (len(self.waiting), 0, 0)

    def teardown(self) -> None:
        """In the end all that waits comes, in order."""
        found: list[bytes] = []
        while (piece := self.spool.read(3)).lines:
            found += piece.lines
            self.spool.advance(piece)
        assert found == self.waiting
        self.spool.__exit__()
        self.resources.close()


TestSpoolAndList = SpoolAndList.TestCase
