"""A container's CPU quota is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from onspect.runtime import cpu
from onspect.runtime.cpu import available_cores, read_cpu_quota, schedulable_cores


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_quota_of_version_2(tmp_path: Path) -> None:
    """The smallest quota on the way up counts; ``max`` means no quota."""
    files = {
        "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/a/b/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n",
    }
    assert read_cpu_quota(machine(tmp_path, "0::/a/b/c\n", files)) == 1.5


def test_quota_of_version_1(tmp_path: Path) -> None:
    """The CPU controller's own folder is read, by the name that the process's groups give it."""
    group = "sys/fs/cgroup/cpu,cpuacct/docker/1"
    files = {f"{group}/cpu.cfs_quota_us": "250000\n", f"{group}/cpu.cfs_period_us": "100000\n"}
    groups = "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n3:cpuset:/docker/1\n0::/\n"
    assert read_cpu_quota(machine(tmp_path, groups, files)) == 2.5


def test_container_sees_its_group_as_the_root(tmp_path: Path) -> None:
    """If the path is the host's and not there, the root of the mount is the container's group."""
    files = {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert read_cpu_quota(machine(tmp_path, "1:cpu:/docker/abc\n", files)) == 1.0


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/\n", {}),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000"}),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "nonsense"}),
        ("1:cpu:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}),
        ("no groups at all", {}),
    ],
)
def test_no_quota(tmp_path: Path, groups: str, files: dict[str, str]) -> None:
    """No limit, unreadable files and systems without control groups give none."""
    assert read_cpu_quota(machine(tmp_path, groups, files)) is None


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.0, 1), (1.2, 2), (1000.0, None), (None, None)])
def test_cores_are_those_of_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int | None
) -> None:
    """A quota is rounded up and never adds cores."""
    monkeypatch.setattr(cpu, "_own_quota", lambda: quota)
    monkeypatch.setattr(cpu, "schedulable_cores", lambda: 8)
    assert available_cores() == (expected or 8)
    monkeypatch.undo()
    assert 1 <= available_cores() <= schedulable_cores()
