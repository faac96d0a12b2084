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
    from onspect.runtime.bench.margin import measure_margin as measure_margin
    from onspect.runtime.bench.run import run_bench as run_bench
    from onspect.runtime.capture.recorder import PictureFolder as PictureFolder
    from onspect.runtime.capture.recorder import record as record
    from onspect.runtime.capture.triggers import CountTrigger as CountTrigger
    from onspect.runtime.capture.triggers import KeyTrigger as KeyTrigger
    from onspect.runtime.capture.triggers import PresenceTrigger as PresenceTrigger
    from onspect.runtime.capture.triggers import TimeTrigger as TimeTrigger
    from onspect.runtime.capture.triggers import Trigger as Trigger
    from onspect.runtime.dataset.split import NamePatterns as NamePatterns
    from onspect.runtime.dataset.split import plan_split as plan_split
    from onspect.runtime.dataset.split import write_split as write_split
    from onspect.runtime.doctor.check import check_computer as check_computer
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
    from onspect.runtime.fleet.listen import FleetListener as FleetListener
    from onspect.runtime.fleet.listen import open_fleet as open_fleet
    from onspect.runtime.images.decode import read_image as read_image
    from onspect.runtime.images.region import Reference as Reference
    from onspect.runtime.images.region import RegionFile as RegionFile
    from onspect.runtime.images.region import parse_region as parse_region
    from onspect.runtime.images.working_size import working_size as working_size
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
    from onspect.runtime.labels.export import export_labels as export_labels
    from onspect.runtime.labels.store import LabelStore as LabelStore
    from onspect.runtime.line import AlarmRule as AlarmRule
    from onspect.runtime.line import Health as Health
    from onspect.runtime.line import Line as Line
    from onspect.runtime.line import Models as Models
    from onspect.runtime.line import Timing as Timing
    from onspect.runtime.line import Voting as Voting
    from onspect.runtime.line.check import check_line as check_line
    from onspect.runtime.line.config import LineConfig as LineConfig
    from onspect.runtime.line.config import read_config as read_config
    from onspect.runtime.model.file import ModelFile as ModelFile
    from onspect.runtime.model.file import read_model_file as read_model_file
    from onspect.runtime.model.file import read_model_info as read_model_info
    from onspect.runtime.model.file import undo_restamp as undo_restamp
    from onspect.runtime.model.schema import Calibration as Calibration
    from onspect.runtime.model.schema import ModelInfo as ModelInfo
    from onspect.runtime.model.schema import Threshold as Threshold
    from onspect.runtime.presence.cut import CutParts as CutParts
    from onspect.runtime.presence.cut import cut_parts as cut_parts
    from onspect.runtime.presence.settings import PresenceSettings as PresenceSettings
    from onspect.runtime.presence.settings import parse_presence as parse_presence
    from onspect.runtime.ray.judge import score_on_ray as score_on_ray
    from onspect.runtime.recalibration.recalibrate import Recalibration as Recalibration
    from onspect.runtime.recalibration.recalibrate import recalibrate as recalibrate
    from onspect.runtime.sinks import Sink as Sink
    from onspect.runtime.sinks import open_sink as open_sink
    from onspect.runtime.sinks import open_sinks as open_sinks
    from onspect.runtime.sinks.delivery.queued_sink import QueuedSink as QueuedSink
    from onspect.runtime.sinks.history import read_recent as read_recent
    from onspect.runtime.sinks.history import yield_per_hour as yield_per_hour
    from onspect.runtime.sources import Capture as Capture
    from onspect.runtime.sources import Source as Source
    from onspect.runtime.sources import open_source as open_source
    from onspect.runtime.sources.cameras.discovery import FoundCamera as FoundCamera
    from onspect.runtime.sources.cameras.discovery import find_genicam_cameras as find_genicam_cameras
    from onspect.runtime.sources.cameras.discovery import find_local_cameras as find_local_cameras
    from onspect.runtime.sources.fake import FakeFault as FakeFault
    from onspect.runtime.sources.fake import FakeSource as FakeSource
    from onspect.runtime.sources.reopen import LiveSource as LiveSource
    from onspect.runtime.status import LineStatus as LineStatus
    from onspect.runtime.teaching import Taught as Taught
    from onspect.runtime.teaching import add as add
    from onspect.runtime.teaching import take_back as take_back
    from onspect.runtime.teaching import teach as teach

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "bench.margin": "measure_margin",
    "bench.run": "run_bench",
    "capture.recorder": "PictureFolder record",
    "capture.triggers": "CountTrigger KeyTrigger PresenceTrigger TimeTrigger Trigger",
    "dataset.split": "NamePatterns plan_split write_split",
    "doctor.check": "check_computer",
    "drift.log": "compare_log",
    "errors": "ChoiceError DatasetError EngineError ExportError FleetError GapError ImageError ModelFileError "
    "OnspectError OutputError RefusedError SeparationError SourceError TrainingError UncalibratedError",
    "fleet.listen": "FleetListener open_fleet",
    "images.decode": "read_image",
    "images.region": "Reference RegionFile parse_region",
    "images.working_size": "working_size",
    "inspection.inspector": "Inspection Inspector Scored",
    "inspection.regions": "Region",
    "inspection.verdict": "FrameContext Verdict parse_verdict",
    "inspection.visualization": "draw_overlay write_picture write_png",
    "labels.export": "export_labels",
    "labels.store": "LabelStore",
    "line": "AlarmRule Health Line Models Timing Voting",
    "line.check": "check_line",
    "line.config": "LineConfig read_config",
    "model.file": "ModelFile read_model_file read_model_info undo_restamp",
    "model.schema": "Calibration ModelInfo Threshold",
    "presence.cut": "CutParts cut_parts",
    "presence.settings": "PresenceSettings parse_presence",
    "ray.judge": "score_on_ray",
    "recalibration.recalibrate": "Recalibration recalibrate",
    "sinks": "Sink open_sink open_sinks",
    "sinks.delivery.queued_sink": "QueuedSink",
    "sinks.history": "read_recent yield_per_hour",
    "sources": "Capture Source open_source",
    "sources.cameras.discovery": "FoundCamera find_genicam_cameras find_local_cameras",
    "sources.fake": "FakeFault FakeSource",
    "sources.reopen": "LiveSource",
    "status": "LineStatus",
    "teaching": "Taught add take_back teach",
}
"""The modules and their public names. A test compares them with the imports above, which are for type checkers."""

__all__, __getattr__, __dir__ = public_names(__name__, _HOMES)
