"""Single keys of a terminal, read without a wait."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import ExitStack
from typing import Any, Self, TextIO


class Keys:
    """Context in which keys are read without Enter; each read gives the keys since the last one."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal
        self._restore = ExitStack()

    def __enter__(self) -> Self:
        if sys.platform != "win32":
            import termios
            import tty

            number = self._terminal.fileno()
            before = termios.tcgetattr(number)
            self._restore.callback(termios.tcsetattr, number, termios.TCSADRAIN, before)
            tty.setcbreak(number)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore.close()

    def read(self) -> str:
        """Return the pressed keys; never waits.

        Returns
        -------
        str
            The keys in order; empty if none was pressed.
        """
        if sys.platform == "win32":
            console: Any = importlib.import_module("msvcrt")
            keys = ""
            while console.kbhit():
                keys += console.getwch()
            return keys
        import select

        number = self._terminal.fileno()
        if not select.select([number], [], [], 0.0)[0]:
            return ""
        return os.read(number, 1024).decode(errors="replace")
