"""Video file as a source that hides no damaged frame.

FFmpeg replaces damaged areas with the frame before, and OpenCV does not report it. Videos of JPEG or PNG pictures are
therefore split, and each picture is decoded as a file is. PyAV decodes the others: it passes on FFmpeg's complaints and
the size of each frame. All frames from a damaged one to the next key frame are faults. Codecs without checksums, such
as MPEG-4, may decode changed bytes without complaint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onspect.runtime.errors import ImageError, SourceError
from onspect.runtime.images.decode import Frame, decode_image
from onspect.runtime.sources.base import Capture, FirstSize, Source

_LOG = logging.getLogger("onspect")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG")
_CHECKED = frozenset({"ffv1", "h264", "mpeg1video", "mpeg2video", "mpeg4", "prores"})
"""Codecs in which FFmpeg notices damage: all of it in FFV1, most of it in the others."""

_CURE = "record or copy it again"
_BETWEEN = 64  # bytes that may be between two packets: headers of chunks and clusters
_NO_FRAMES = (b"ix", b"idx1", b"RIFF", b"LIST", b"JUNK", b"\xec", b"\x1c\x53\xbb\x6b", b"\x12\x54\xc3\x67")
"""First bytes of chunks and elements between packets that are not frames: indices, paddings, tags."""

_STEADY = 1.5  # a video is steady if no pause between frames is longer than this multiple of the usual one


class VideoSource(Source):
    """Every frame of a video file (BGR uint8); a damaged frame is a capture with an ImageError.

    If the file announces more frames than can be read, the first missing one is a fault, and a warning has the number
    of the others: parts that were not seen must not look like the end of the video.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    SourceError
        If the file cannot be opened.
    ModuleNotFoundError
        If the file needs PyAV (the extra ``video``), which is not installed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._open().release()
        self._start: float | None = None  # time of the first frame in seconds
        self._time, self._pause = 0.0, 0.0  # time of the last frame, and longest pause between two frames
        self._holds_pictures = next(self._read_packets(), b"").startswith(_PICTURES)
        if not self._holds_pictures:
            import av  # noqa: F401 - report a missing package before anything runs

    def __iter__(self) -> Iterator[Capture]:
        capture = self._open()
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        rate = capture.get(cv2.CAP_PROP_FPS)
        size = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        capture.release()
        if announced <= 0:
            _LOG.warning("%s does not say how many frames it has: a missing end would not be noticed", self._path)
        count = faults = 0
        for frame in self._decode_pictures(size) if self._holds_pictures else self._decode_video():
            if self._stopped.is_set():
                return
            yield Capture(str(self._path), frame)
            count += 1
            faults += isinstance(frame, ImageError)
        if faults:
            verb = "is" if faults == 1 else "are"
            _LOG.warning("%d of %d frames of %s %s damaged", faults, count, self._path, verb)
        if not self._stopped.is_set() and (missing := self._describe_missing(count, announced, rate)):
            _LOG.warning("%s: %s", self._path, missing)
            yield Capture(str(self._path), ImageError(missing, code="lost"))

    def _describe_missing(self, count: int, announced: int, rate: float) -> str:
        """Return a sentence about the missing end of the video; empty if the video is complete.

        Containers that do not count frames announce a length in time. If the pauses between frames differ, the number
        of frames does not follow from it, and the time of the last frame decides.
        """
        if count >= announced:
            return ""
        with self._path.open("rb") as file:
            head = file.read(12)
        is_counted = head.startswith(b"RIFF") or head[4:8] in (b"ftyp", b"moov")
        if is_counted or rate <= 0 or self._start is None or self._pause * rate < _STEADY:
            return f"the video ends after {count} of {announced} frames"
        length, seen = announced / rate, self._time - self._start
        if length - seen <= self._pause + 1 / rate:
            return ""
        return f"the video ends after {seen:.1f} of {length:.1f} seconds"

    def _note_time(self, seconds: float | None) -> None:
        if seconds is None:
            return
        if self._start is None:
            self._start = self._time = seconds
        self._pause = max(self._pause, seconds - self._time)
        self._time = max(self._time, seconds)

    def _decode_pictures(self, size: tuple[int, int]) -> Iterator[Frame | ImageError]:
        for packet in self._read_packets():
            try:
                frame = decode_image(add_tables(packet), lambda width, height: _check_size((height, width), size))
            except ImageError as error:
                yield error.with_traceback(None)
            else:
                yield cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 else frame

    def _read_packets(self) -> Iterator[bytes]:
        capture = self._open(cv2.CAP_PROP_FORMAT, -1)
        try:
            while True:
                read, packet = capture.read()
                if not read:
                    return
                self._note_time(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
                yield packet.tobytes()
        finally:
            capture.release()

    def _decode_video(self) -> Iterator[Frame | ImageError]:
        import av

        _quieten_ffmpeg()
        try:
            with av.open(str(self._path), metadata_errors="replace") as container:
                stream = container.streams.video[0]
                if stream.codec_context.name not in _CHECKED:
                    words = (
                        "%s: most damage in frames of the codec %s is not noticed; record FFV1 or motion JPEG instead"
                    )
                    _LOG.warning(words, self._path, stream.codec_context.name)
                stream.thread_type = "NONE"
                stream.codec_context.thread_count = 1
                stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+careful"}
                damage = _Damage()
                # whether the packets of the file follow each other directly, except for a few bytes
                placed = len(container.streams) == 1 and container.format.name.startswith(("avi", "matroska"))
                places = _Places(self._path) if placed else None
                size = FirstSize()
                for packet in container.demux(stream):
                    if places is not None and places.skips(packet):
                        damage.note(packet, damaged=not packet.is_keyframe)
                        yield ImageError(f"frames of the video are lost before byte {packet.pos}; {_CURE}", code="lost")
                    self._note_time(None if packet.pts is None else float(packet.pts * packet.time_base))
                    yield from _decode_packet(packet, damage, size)
        except (av.error.FFmpegError, IndexError, OSError) as error:
            raise SourceError(f"cannot read {str(self._path)!r} as a video: {error}; {_CURE}") from error

    def _open(self, *settings: int) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *settings])
        if not capture.isOpened():
            raise SourceError(f"cannot open {str(self._path)!r} as a video; give a video file or a folder of images")
        return capture


def _check_size(found: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise ImageError if a picture is smaller than the video's, as one of two fields is."""
    if found != size:
        raise ImageError(
            f"the video's picture is {found[1]}x{found[0]} pixels, the video {size[1]}x{size[0]}", code="resolution"
        )


class _Damage:
    """Times between which frames are damaged: up to the next key frame that is whole."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        self._start: float | None = None

    def note(self, packet: Any, *, damaged: bool) -> None:
        """Record a packet's times, and whether decoding it failed."""
        if damaged:
            if self._start is None:
                times = [time for time in (packet.dts, packet.pts) if time is not None]
                self._start = min(times, default=-np.inf)
        elif packet.is_keyframe and self._start is not None:
            self._spans.append((self._start, np.inf if packet.pts is None else packet.pts))
            self._start = None

    def touches(self, time: int | None) -> bool:
        """Return whether the frame of a time is damaged."""
        if time is None:
            return self._start is not None
        is_open = self._start is not None and time >= self._start
        return is_open or any(start <= time < end for start, end in self._spans)


class _Places:
    """Positions of packets in a file: two packets are adjacent, unless a damaged one between them was skipped.

    A decoder does not notice a lost packet, and gives wrong pictures up to the next key frame.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end: int | None = None

    def skips(self, packet: Any) -> bool:
        """Return whether the file has something before a packet that is neither a packet nor an index."""
        end, place = self._end, packet.pos
        if place is None or not packet.size:
            return False
        self._end = place + packet.size
        if end is None or place - end <= _BETWEEN:
            return False
        with self._path.open("rb") as file:
            file.seek(end + end % 2)
            return not file.read(4).startswith(_NO_FRAMES)


def _decode_packet(packet: Any, damage: _Damage, size: FirstSize) -> Iterator[Frame | ImageError]:
    import av
    import av.logging

    frames: list[Any] = []
    reason = ""
    with av.logging.Capture() as messages:
        try:
            frames = list(packet.decode())
        except av.error.FFmpegError as error:
            reason = str(error)
    complaints = [text.strip() for level, name, text in messages if level <= av.logging.ERROR and name != "swscaler"]
    reason = complaints[0] if complaints else reason
    damage.note(packet, damaged=bool(reason) or packet.is_corrupt)
    if not frames and reason:
        yield ImageError(f"the video's frame is damaged: {reason}; {_CURE}")
    for frame in frames:
        if frame.is_corrupt or damage.touches(frame.pts):
            yield ImageError(
                f"the video's frame is damaged, or depends on a damaged one{': ' * bool(reason)}{reason}; {_CURE}"
            )
        elif (change := size.find_change(frame.width, frame.height)) is not None:
            yield change
        else:
            picture = frame.to_ndarray(format="bgr24")
            yield np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


@cache
def _quieten_ffmpeg() -> None:
    """Let FFmpeg report its complaints to this module only."""
    import av.logging

    av.logging.set_level(av.logging.ERROR)
    logger = logging.getLogger("libav")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


def add_tables(picture: bytes) -> bytes:
    """Add the standard Huffman tables to a picture of a motion JPEG video; webcams leave them out.

    Parameters
    ----------
    picture
        Bytes of the picture.

    Returns
    -------
    bytes
        The picture with tables; unchanged if it has tables or is not a JPEG.
    """
    if not picture.startswith(b"\xff\xd8") or b"\xff\xc4" in picture[: picture.find(b"\xff\xda") + 1]:
        return picture
    return picture[:2] + _standard_tables() + picture[2:]


@cache
def _standard_tables() -> bytes:
    """Return the DHT segments of ITU-T T.81, annex K, as OpenCV writes them."""
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    starts = [place for place in range(len(data) - 1) if data[place] == 0xFF and data[place + 1] in (0xC4, 0xDA)]
    end = next(place for place in starts if data[place + 1] == 0xDA)
    tables = [place for place in starts if place <= end]
    return b"".join(data[start:following] for start, following in pairwise(tables))
