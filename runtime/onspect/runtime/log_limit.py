"""A limit for repeated log lines: a fault that returns a thousand times a second must not fill the disk."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 10
"""Largest number of equal lines in the log within `WINDOW_S`."""

WINDOW_S = 60.0

_LOGGERS = ("onspect", "asyncio", "uvicorn.error")
_KINDS = 1000  # most different lines that are remembered
_NUMBER = re.compile(r"\d+")


class RepeatLimit(logging.Filter):
    """Lets each line pass ten times a minute. The next one that passes says how many lines like it were left out.

    Warnings and errors that differ only in numbers count as the same line. Other lines are the same if they are
    equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._passed: OrderedDict[tuple[int, str], deque[float]] = OrderedDict()
        self._left_out: dict[tuple[int, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record passes.

        Parameters
        ----------
        record
            The log record. Its message gets the number of lines that were left out.

        Returns
        -------
        bool
            False if the line is left out.
        """
        text = record.getMessage()
        key = (record.levelno, _NUMBER.sub("#", text) if record.levelno >= logging.WARNING else text)
        now = time.monotonic()
        with self._lock:
            passed = self._passed.setdefault(key, deque(maxlen=MOST))
            self._passed.move_to_end(key)
            while len(self._passed) > _KINDS:
                oldest, _ = self._passed.popitem(last=False)
                self._left_out.pop(oldest, None)
            if len(passed) == MOST and now - passed[0] < WINDOW_S:
                self._left_out[key] = self._left_out.get(key, 0) + 1
                return False
            passed.append(now)
            left_out = self._left_out.pop(key, 0)
        if left_out:
            record.msg, record.args = f"{text} ({left_out} messages like it were left out)", ()
        return True


@contextmanager
def limit_repeats() -> Iterator[None]:
    """Limit the log of this package, and those of the dashboard's server, inside the block."""
    limit = RepeatLimit()
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(limit)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(limit)
