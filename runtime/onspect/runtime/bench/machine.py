"""The machine that measures: its description and its load by other processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from onspect.runtime.bench.results import Load, Machine
from onspect.runtime.cpu import available_cores, processor_name


def describe_machine() -> Machine:
    """Return the machine's system, processor, usable cores and versions.

    Returns
    -------
    Machine
        The description.
    """
    versions = {
        "onspect": importlib.metadata.version("onspect"),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
        "numpy": np.__version__,
    }
    with suppress(importlib.metadata.PackageNotFoundError):
        versions["openvino"] = importlib.metadata.version("openvino")
    return Machine(f"{platform.system()} {platform.machine()}", processor_name(), available_cores(), versions)


class LoadMeter:
    """Measures, from its creation to `stop`, how much of the machine other processes used."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._all = _read_busy_seconds()
        self._own = _own_seconds()
        self._wall = 0.0
        self._cpu = 0.0

    def count(self, wall: float, cpu: float) -> None:
        """Add the work of one busy thread of this process.

        Parameters
        ----------
        wall
            Seconds by the clock.
        cpu
            Seconds in which it ran on a processor.
        """
        self._wall += wall
        self._cpu += cpu

    def stop(self) -> Load:
        """Return the load since the meter was created.

        Returns
        -------
        Load
            The load.
        """
        share = min(1.0, self._cpu / self._wall) if self._wall else 1.0
        now = _read_busy_seconds()
        if self._all is None or now is None:
            return Load(None, share)
        others = (now - self._all) - (_own_seconds() - self._own)
        return Load(max(0.0, others) / (time.perf_counter() - self._started), share)


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _read_busy_seconds() -> float | None:
    """Return the seconds that all processors together have worked since the start, None if the system hides them."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
        user, nice, system, _, _, interrupts, soft, stolen = (int(field) for field in fields[1:9])
        return (user + nice + system + interrupts + soft + stolen) / float(os.sysconf("SC_CLK_TCK"))
    return None
