"""The type of the fixture `share`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Share = Callable[[str, Callable[[Path], object]], Path]
"""Gives the folder of a name, which a function has filled once a session."""
