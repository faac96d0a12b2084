"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "absent", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    """What was checked, such as ``opencv`` or ``extra train``."""

    status: Status
    """``ok``; ``absent``: not installed and not needed; ``warning``: works, but look at it; ``broken``: needed."""

    detail: str
    """What was found, in one line."""

    remedy: str = ""
    """What to do; empty if there is nothing to do."""
