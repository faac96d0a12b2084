"""Every error that onspect raises on purpose. Each message names the wrong value and the remedy.

::

    OnspectError
    +-- ChoiceError        an argument is not one of the allowed values; also a ValueError
    +-- ImageError         one image cannot be judged (unreadable, wrong size, wrong channels)
    |   +-- GapError            an unknown number of frames is missing here
    +-- ModelFileError     the .onnx file cannot be used (truncated, foreign, newer format)
    |   +-- UncalibratedError   the file can be used, but has no threshold yet
    +-- DatasetError       a folder of images is not suitable for the command
    +-- SeparationError    it is not shown that good and defective parts still have different scores
    +-- SourceError        a video or folder cannot be opened as a source of frames
    +-- OutputError        something could not be written or delivered
    |   +-- RefusedError   the receiver refuses this verdict for good, so it is not tried again
    +-- EngineError        work could not be distributed to processes or machines, and stopped early
    +-- FleetError         the status of a fleet's lines cannot be received
    +-- TrainingError      training cannot start or continue (loss is not finite, no such checkpoint)
    +-- ExportError        the exported file differs from the trained model
"""

FAULT_CODES: dict[str, str] = {
    "image": "the file or frame cannot be read, is damaged, or is of an unsupported kind",
    "size": "its width, height, channels or bit depth are not those that the model or the configuration accepts",
    "resolution": "the source has changed its resolution while it ran",
    "black": "the picture is black",
    "saturated": "the picture is saturated",
    "brightness": "the mean brightness is out of its range",
    "blurred": "the picture is blurred",
    "frozen": "the picture does not change",
    "late": "the frame waited, or the verdict took, longer than late_ms, or than the PLC or the other views wait",
    "overrun": "frames come faster than they are judged, and no more may wait",
    "position": "the part was not found, or the edge of the frame cuts it",
    "lost": "the source was lost, hung, or ended early",
    "vanished": "the file was gone before it was judged",
    "incomplete": "frames of the part are missing",
    "recipe": "the part asks for a recipe that the configuration does not have",
    "model": "the model failed, or its output is invalid",
    "withdrawn": "the PLC ended the part before its verdict: trigger cleared, reset, or connection lost",
}
"""Every code of a fault with its meaning. Codes are stable; their sentences may change.

New codes are added at the end: `FAULT_NUMBERS` counts them.
"""

FAULT_NUMBERS: dict[str, int] = {code: number for number, code in enumerate(FAULT_CODES, 1)}
"""Number of each code, for receivers that take no text; 0 means no fault."""


class OnspectError(Exception):
    """Base of all errors raised by onspect on purpose."""


class ChoiceError(OnspectError, ValueError):
    """An argument is not one of the allowed values."""


class ImageError(OnspectError):
    """One image cannot be judged. Other images of the run are not affected.

    Parameters
    ----------
    message
        The reason, for people.
    code
        Kind of the fault, one of `FAULT_CODES`, for programs. None for the default of the class.
    """

    _code = "image"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self._code


class GapError(ImageError):
    """A source was lost or hung. It takes the place of all frames that may be missing."""

    _code = "lost"


class ModelFileError(OnspectError):
    """A model file cannot be used."""


class UncalibratedError(ModelFileError):
    """A model file has no threshold yet."""


class DatasetError(OnspectError):
    """A folder of images is not suitable for the command."""


class SeparationError(OnspectError):
    """It is not shown that good and defective parts still have different scores."""


class SourceError(OnspectError):
    """A source of frames cannot be opened."""


class OutputError(OnspectError):
    """A file or folder could not be written, or a verdict could not be delivered."""


class RefusedError(OutputError):
    """A receiver refused one verdict for good. Another attempt would not help."""


class EngineError(OnspectError):
    """Work could not be distributed to processes or machines. Results that are already written are kept."""


class FleetError(OnspectError):
    """The status of a fleet's lines cannot be received."""


class TrainingError(OnspectError):
    """Training cannot start or continue."""


class ExportError(OnspectError):
    """An exported file differs from the trained model, so it was discarded."""
