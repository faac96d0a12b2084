"""The page beside the line: what the camera sees, the verdict, the counters; served on this computer to a browser.

`Dashboard` is a sink: a line hands it every inspection and its status, and it keeps what the page shows. No client,
slow or hostile, can hold the line up: the line only ever puts things on the `DashboardState`.
"""

from onspect.runtime.dashboard.server import Dashboard

__all__ = ["Dashboard"]
