"""Long work reports its progress, also without a terminal."""

from __future__ import annotations

import io
import sys
import time

import pytest

from onspect.runtime.cli.base import ProgressLines, progress, wrap


class Terminal(io.StringIO):
    """A stream that a person watches."""

    def isatty(self) -> bool:
        return True


def test_sentences_are_wrapped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines end between words and no later than the terminal; a table and what a program reads stay as they are."""
    monkeypatch.setenv("COLUMNS", "40")
    text = "good    40   0\n" + "verdict: " + "false rejects 1 of 40; " * 4
    assert wrap(text) == wrap(text, err=True) == text
    monkeypatch.setattr(sys, "stdout", Terminal())
    lines = wrap(text).splitlines()
    assert lines[0] == "good    40   0"
    assert max(map(len, lines)) <= 40
    assert " ".join(lines[1:]) == text.splitlines()[1].strip()
    assert wrap(text, err=True) == text
    indented = wrap(text, indent=9).splitlines()
    assert [line[:9] for line in indented[1:]] == ["verdict: ", *[" " * 9] * (len(indented) - 2)]
    assert max(map(len, indented)) <= 40


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """If stderr is not a terminal, work of less than 30 s prints nothing."""
    assert list(progress(range(5), 5, "counting")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_long_work_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 items that take a second each, the lines come after 30, 60 and 90, with the time left."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for _ in progress(range(100), 100, "counting"):
        now[0] += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "counting: 30 of 100, about 70 s left",
        "counting: 60 of 100, about 40 s left",
        "counting: 90 of 100, about 10 s left",
    ]


def test_lines_come_at_their_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is due once in each interval."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = ProgressLines(every=10.0)
    due = []
    for second in range(25):
        now[0] = float(second)
        due.append(lines.are_due())
    assert [second for second, is_due in enumerate(due) if is_due] == [10, 20]
