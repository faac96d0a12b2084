from __future__ import annotations

import subprocess
import sys

import pytest

from onspect.runtime.line.memory import give_memory_back, keep_memory_together, lay_apart


@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_memory_is_looked_after_where_the_system_can(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Both calls work here, and do nothing on a system without glibc."""
    monkeypatch.setattr(sys, "platform", platform)
    keep_memory_together()
    with lay_apart():
        give_memory_back()


PROGRAM = """
import os
from pathlib import Path

from onspect.runtime.line.memory import lay_apart


def measure_memory():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


with lay_apart():
    pieces = [bytearray(b"x") * 200_000 for _ in range(200)]
    kept = [bytearray(b"x") * 1_000 for _ in range(200)]
before = measure_memory()
del pieces
print(before - measure_memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' memory is not told what to do")
def test_what_is_laid_apart_is_the_system_s_again_once_freed() -> None:
    """Pieces allocated apart leave nothing behind, though what lives on was allocated between them."""
    freed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert int(freed.stdout) > 30_000_000
