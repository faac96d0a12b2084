"""Score camera frames and image files with an onspect model file; needs numpy, OpenCV and onnxruntime only.

The public names are below. Each is loaded at its first use, so that ``onspect --help`` starts fast and works if an
extra is missing. onnxruntime's official builds report their use to Microsoft, over the network and from a database in
the home folder. Nothing in this package contacts anyone unasked. So this is turned off before onnxruntime is loaded
(``ORT_DISABLE_TELEMETRY``, unless it is set already).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from onspect.runtime.lazy import public_names

if TYPE_CHECKING:
    from onspect.runtime.drift.log import compare_log as compare_log
    from onspect.runtime.errors import ChoiceError as ChoiceError
    from onspect.runtime.errors import DatasetError as DatasetError
    from onspect.runtime.errors import EngineError as EngineError
    from onspect.runtime.errors import ExportError as ExportError
    from onspect.runtime.errors import FleetError as FleetError
    from onspect.runtime.errors import GapError as GapError
    from onspect.runtime.errors import ImageError as ImageError
    from onspect.runtime.errors import ModelFileError as ModelFileError
    from onspect.runtime.errors import OnspectError as OnspectError
    from onspect.runtime.errors import OutputError as OutputError
    from onspect.runtime.errors import RefusedError as RefusedError
    from onspect.runtime.errors import SeparationError as SeparationError
    from onspect.runtime.errors import SourceError as SourceError
    from onspect.runtime.errors import TrainingError as TrainingError
    from onspect.runtime.errors import UncalibratedError as UncalibratedError
    from onspect.runtime.images.decode import read_image as read_image
    from onspect.runtime.inspection.inspector import Inspection as Inspection
    from onspect.runtime.inspection.inspector import Inspector as Inspector
    from onspect.runtime.inspection.inspector import Scored as Scored
    from onspect.runtime.inspection.regions import Region as Region
    from onspect.runtime.inspection.verdict import FrameContext as FrameContext
    from onspect.runtime.inspection.verdict import Verdict as Verdict
    from onspect.runtime.inspection.verdict import parse_verdict as parse_verdict
    from onspect.runtime.inspection.visualization import draw_overlay as draw_overlay
    from onspect.runtime.inspection.visualization import write_picture as write_picture
    from onspect.runtime.inspection.visualization import write_png as write_png
    from onspect.runtime.line import AlarmRule as AlarmRule
    from onspect.runtime.line import Health as Health
    from onspect.runtime.line import Line as Line
    from onspect.runtime.line import Models as Models
    from onspect.runtime.line import Timing as Timing
    from onspect.runtime.line import Voting as Voting
    from onspect.runtime.model.file import ModelFile as ModelFile
    from onspect.runtime.model.file import read_model_file as read_model_file
    from onspect.runtime.model.file import read_model_info as read_model_info
    from onspect.runtime.model.schema import Calibration as Calibration
    from onspect.runtime.model.schema import ModelInfo as ModelInfo
    from onspect.runtime.model.schema import Threshold as Threshold
    from onspect.runtime.recalibration.recalibrate import Recalibration as Recalibration
    from onspect.runtime.recalibration.recalibrate import recalibrate as recalibrate
    from onspect.runtime.sinks import Sink as Sink
    from onspect.runtime.sinks import open_sink as open_sink
    from onspect.runtime.sinks import open_sinks as open_sinks
    from onspect.runtime.sources import Capture as Capture
    from onspect.runtime.sources import Source as Source
    from onspect.runtime.sources import open_source as open_source
    from onspect.runtime.status import LineStatus as LineStatus
    from onspect.runtime.teaching import Taught as Taught
    from onspect.runtime.teaching import teach as teach

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "errors": "ChoiceError DatasetError EngineError ExportError FleetError GapError ImageError ModelFileError "
    "OnspectError OutputError RefusedError SeparationError SourceError TrainingError UncalibratedError",
    "drift.log": "compare_log",
    "images.decode": "read_image",
    "inspection.inspector": "Inspection Inspector Scored",
    "inspection.regions": "Region",
    "inspection.verdict": "FrameContext Verdict parse_verdict",
    "inspection.visualization": "draw_overlay write_picture write_png",
    "line": "AlarmRule Health Line Models Timing Voting",
    "model.file": "ModelFile read_model_file read_model_info",
    "model.schema": "Calibration ModelInfo Threshold",
    "recalibration.recalibrate": "Recalibration recalibrate",
    "sinks": "Sink open_sink open_sinks",
    "sources": "Capture Source open_source",
    "status": "LineStatus",
    "teaching": "Taught teach",
}
"""The modules and their public names. A test compares them with the imports above, which are for type checkers."""

__all__, __getattr__, __dir__ = public_names(__name__, _HOMES)
