"""Judge the crop around one part as a picture of its own; the results are in pixels of the frame."""

from __future__ import annotations

import dataclasses

from onspect.runtime.images.decode import Frame
from onspect.runtime.images.placement import Placement
from onspect.runtime.inspection.inspector import Inspector, Prepared
from onspect.runtime.model.schema import Rectangle


def prepare_window(inspector: Inspector, frame: Frame, window: Rectangle) -> Prepared:
    """Prepare a window of a frame as the inspector prepares a picture of the window alone.

    Score and error map are those of such a picture, bit for bit. Regions, pose and overlay are those of the frame.

    Parameters
    ----------
    inspector
        The model.
    frame
        The frame.
    window
        x, y, width and height in pixels of the frame.

    Returns
    -------
    Prepared
        The input for the model, or the error.
    """
    x, y, width, height = window
    prepared = inspector.prepare_frame(frame[y : y + height, x : x + width])
    across, down = frame.shape[1], frame.shape[0]
    placement = prepared.placement
    if placement is None:
        moved = Placement(width, height, (1.0, 0.0, float(x), 0.0, 1.0, float(y)), (across, down))
    else:
        a, b, left, c, d, top = placement.matrix
        pose = placement.pose
        if pose is not None:
            pose = dataclasses.replace(pose, x=pose.x + x, y=pose.y + y)
        moved = Placement(placement.width, placement.height, (a, b, left + x, c, d, top + y), (across, down), pose)
    if prepared.error is not None:
        return dataclasses.replace(prepared, frame=frame)
    return dataclasses.replace(prepared, width=across, height=down, frame=frame, placement=moved, window=window)
