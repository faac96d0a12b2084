from __future__ import annotations

import logging

import pytest

from onspect.runtime import log_limit
from onspect.runtime.log_limit import MOST, limit_repeats

LOG = logging.getLogger("onspect")


def test_no_line_repeats_more_than_ten_times_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Of a thousand equal lines, or a thousand that differ in numbers only, ten are logged, and other lines too."""
    with caplog.at_level(logging.INFO, "onspect"), limit_repeats():
        for number in range(1000):
            LOG.warning("the camera is lost")
            LOG.warning("no connection for %.1f s", number / 10)
        LOG.warning("something else")
    assert caplog.messages.count("the camera is lost") == MOST
    assert sum(message.startswith("no connection") for message in caplog.messages) == MOST
    assert "something else" in caplog.messages


def test_what_was_left_out_is_counted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the line passes again, it says how many like it were left out."""
    now = [0.0]
    monkeypatch.setattr(log_limit.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.WARNING, "onspect"), limit_repeats():
        for _ in range(25):
            LOG.warning("lost")
        now[0] = 61.0
        LOG.warning("lost")
    assert caplog.messages == ["lost"] * MOST + ["lost (15 messages like it were left out)"]


def test_progress_in_numbers_is_no_repetition(caplog: pytest.LogCaptureFixture) -> None:
    """Lines of information that differ in a number are different lines."""
    with caplog.at_level(logging.INFO, "onspect"), limit_repeats():
        for number in range(50):
            LOG.info("epoch %d", number)
    assert len(caplog.messages) == 50


def test_the_brake_is_taken_off(caplog: pytest.LogCaptureFixture) -> None:
    """After a line has ended, the log settings are restored."""
    with limit_repeats():
        pass
    for _ in range(20):
        LOG.warning("lost")
    assert len(caplog.messages) == 20
