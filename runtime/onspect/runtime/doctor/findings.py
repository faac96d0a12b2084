"""Result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "absent", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    name: str
    """Name of the check, such as ``opencv`` or ``extra train``."""

    status: Status
    """``ok``; ``absent``: not installed and not needed; ``warning``: works, but look at it; ``broken``: needed."""

    detail: str
    """Result in one line."""

    remedy: str = ""
    """What to do; empty if nothing is to be done."""
