"""The dashboard: a page in a browser with the picture of the camera, the verdict and the counts of a line.

`Dashboard` is a sink: the line gives it every inspection and its status, and it keeps what the page shows. No client,
slow or hostile, can delay the line: the line only writes to the `DashboardState`.
"""

from onspect.runtime.dashboard.server import Dashboard

__all__ = ["Dashboard"]
