from __future__ import annotations

import sys

import pytest

from onspect.runtime.line.memory import give_memory_back, keep_memory_together


@pytest.mark.parametrize("platform", [sys.platform, "win32"])
def test_memory_is_looked_after_where_the_system_can(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    """Both calls work here, and do nothing on a system without glibc."""
    monkeypatch.setattr(sys, "platform", platform)
    keep_memory_together()
    give_memory_back()
