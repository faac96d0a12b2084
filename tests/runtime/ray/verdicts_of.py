"""Reading the output of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_partitions(folder: Path) -> str:
    """Return the lines of a folder's JSONL partitions, in order."""
    return "".join(path.read_text() for path in sorted(folder.glob("part-*.jsonl")))


def without_timings(lines: str) -> list[dict[str, Any]]:
    """Return verdicts without what differs from run to run."""
    verdicts = [json.loads(line) for line in lines.splitlines()]
    for verdict in verdicts:
        del verdict["time"], verdict["latency_ms"]
    return verdicts
