"""Every error that onspect raises on purpose; each message names the value at fault and the cure.

::

    OnspectError
    +-- ChoiceError        an argument is none of the values allowed; also a ValueError
    +-- ImageError         one image cannot be judged (unreadable, wrong size, wrong channels)
    |   +-- GapError            frames are missing here, nobody knows how many
    +-- ModelFileError     the .onnx file cannot be used (truncated, foreign, newer format)
    |   +-- UncalibratedError   it can be used, but has no threshold yet
    +-- DatasetError       a folder of images is not what the command needs
    +-- SeparationError    good and defective parts can no longer be told apart, or it is not shown that they can
    +-- SourceError        a video or folder cannot be opened as a source of frames
    +-- OutputError        something could not be written or delivered
    |   +-- RefusedError   the receiver will never take this verdict, so it is not tried again
    +-- EngineError        work could not be spread over processes or machines, and stopped part of the way
    +-- FleetError         the lines of a fleet cannot be heard
    +-- TrainingError      training cannot go on (loss is not finite, no such checkpoint)
    +-- ExportError        the exported file does not do what the trained model does
"""

FAULT_CODES: dict[str, str] = {
    "image": "the file or frame cannot be read, is damaged, or is of a kind that is not read",
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
"""Every code of a fault with its meaning. A code stays, whatever becomes of the sentence beside it.

New codes are added at the end: `FAULT_NUMBERS` counts them.
"""

FAULT_NUMBERS: dict[str, int] = {code: number for number, code in enumerate(FAULT_CODES, 1)}
"""The number of each code, for receivers that take no text; 0 stands for none."""


class OnspectError(Exception):
    """Base of all errors raised by onspect on purpose."""


class ChoiceError(OnspectError, ValueError):
    """An argument is none of the values allowed."""


class ImageError(OnspectError):
    """One image cannot be judged; the run around it may go on.

    code: the kind of the fault, one of `FAULT_CODES`, for programs; the message is for people.
    """

    _code = "image"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self._code


class GapError(ImageError):
    """A source was lost, or hung, and frames may be missing; it stands in the place of all of them."""

    _code = "lost"


class ModelFileError(OnspectError):
    """A model file cannot be used."""


class UncalibratedError(ModelFileError):
    """A model file has no threshold yet."""


class DatasetError(OnspectError):
    """A folder of images is not what the command needs."""


class SeparationError(OnspectError):
    """It is not shown that good and defective parts can still be told apart."""


class SourceError(OnspectError):
    """A source of frames cannot be opened."""


class OutputError(OnspectError):
    """A file or folder could not be written, or a verdict not be delivered."""


class RefusedError(OutputError):
    """A receiver refused one verdict for good; trying again would not help."""


class EngineError(OnspectError):
    """Work could not be spread over processes or machines; what was written until then stays."""


class FleetError(OnspectError):
    """What the lines of a fleet say of themselves cannot be heard."""


class TrainingError(OnspectError):
    """Training cannot start or go on."""


class ExportError(OnspectError):
    """An exported file differs from the trained model, so it was not kept."""
