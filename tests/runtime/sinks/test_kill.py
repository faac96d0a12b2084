from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..services import find_program

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "kill.py"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_nobody_knows_more_than_the_record(calibrated: Path) -> None:
    """After kill -9 neither the MQTT subscriber nor the PLC has received a part that JSONL and SQLite lack."""
    find_program("mosquitto")
    command = [sys.executable, str(BENCHMARK), str(calibrated), "--kills", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise was kept" in done.stdout
