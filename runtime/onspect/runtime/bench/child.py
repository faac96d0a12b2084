"""A process that judges the images named on stdin and reports how much memory it used."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path


def read_peak_memory() -> float | None:
    """Return the peak of this process's resident memory.

    Returns
    -------
    float or None
        MiB; None if the system does not report it.
    """
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) / 1024.0
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2.0**20
    return None


def main() -> None:
    """Judge the images and print one JSON line: peak memory after the first verdict and after the last."""
    from onspect.runtime.images.decode import quieten_opencv
    from onspect.runtime.inspection.inspector import Inspector

    quieten_opencv()
    model, provider = sys.argv[1:]
    paths = json.load(sys.stdin)
    inspector = Inspector(model, provider=provider)
    for _ in inspector.inspect_many(paths[:1]):
        first = read_peak_memory()
    for _ in inspector.inspect_many(paths):
        pass
    print(json.dumps({"first": first, "peak": read_peak_memory()}))  # noqa: T201 - read by the process that began it


if __name__ == "__main__":
    main()
