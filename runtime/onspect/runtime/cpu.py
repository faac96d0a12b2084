"""The number of cores that the process may use."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path


def available_cores() -> int:
    """Return how many cores this process may use.

    It counts the cores that the process may run on and the CPU quota of its container (control groups, version 1 or
    2), rounded up. More threads than the quota would be stopped repeatedly.

    Returns
    -------
    int
        1 or more.
    """
    quota = _own_quota()
    cores = schedulable_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def schedulable_cores() -> int:
    """Return on how many cores the system may schedule this process, whatever its quota.

    Returns
    -------
    int
        1 or more.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Return the name of this machine's processor.

    Returns
    -------
    str
        The name that the system reports.
    """
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU quota of this process. The smallest quota of its own group and the groups above it counts.

    Parameters
    ----------
    root
        The folder that has ``proc`` and ``sys``.

    Returns
    -------
    float or None
        Number of cores, None without a quota or without control groups.
    """
    quotas: list[float] = []
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                quotas += _read_groups(root / "sys/fs/cgroup", path, _read_version_2)
            elif "cpu" in controllers.split(","):
                quotas += _read_groups(root / "sys/fs/cgroup" / controllers, path, _read_version_1)
    return min(quotas, default=None)


@cache
def _own_quota() -> float | None:
    return read_cpu_quota()


def _read_groups(mount: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """Return the quotas of a group and those above it.

    In a container the path may be that of the host. Then the quotas of the container's root are returned.
    """
    group = mount / path.lstrip("/")
    places = [place for place in (group, *group.parents) if place.is_relative_to(mount)]
    quotas = []
    for place in places:
        with suppress(OSError, ValueError, ZeroDivisionError, IndexError):
            quotas.append(read(place))
    return [quota for quota in quotas if quota is not None and quota > 0]


def _read_version_2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def _read_version_1(group: Path) -> float | None:
    quota, period = (int((group / f"cpu.cfs_{what}_us").read_text(encoding="ascii")) for what in ("quota", "period"))
    return None if quota < 0 else quota / period
