"""Read good pictures once, in the form that the runtime uses, and collect the facts about them.

Training and teaching read their pictures with this one function.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.dataset.crop import Crop
from onspect.runtime.errors import DatasetError, ImageError
from onspect.runtime.fingerprints import fingerprint_bytes, fingerprint_pixels
from onspect.runtime.images.decode import Frame, decode_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.images.quality import explain_darkness
from onspect.runtime.images.working_size import largest_stretch
from onspect.runtime.inspection.batch import in_order
from onspect.runtime.model.schema import Preprocess, SourceLimits
from onspect.runtime.progress import Progress, no_progress

_LOG = logging.getLogger("onspect")

FEW = 20
"""Number of good pictures below which a warning is logged."""

_NOTED_STRETCH = 1.02  # ratio of the largest to the smallest stretch above which a warning is logged
_MOST_CLIPPED = 0.001

Shapes = Sequence[tuple[int, int]]
"""Height and width of each image as stored, in pixels."""


@dataclass(frozen=True)
class GoodImages:
    """Good images as model inputs. Repeated files are left out."""

    paths: tuple[Path, ...]
    """The image files."""

    images: NDArray[np.uint8] = dataclasses.field(repr=False)
    """Model inputs, uint8 [n, height, width, channels], or as `stack_images` returns them."""

    fingerprints: tuple[str, ...] = dataclasses.field(repr=False)
    """Fingerprint of each file."""

    preprocess: Preprocess
    """How a frame became a model input."""

    shapes: Shapes = dataclasses.field(repr=False)
    """Height and width of each image as stored, in pixels."""

    @property
    def crops(self) -> Shapes:
        """Height and width of each region, or of each image without a region."""
        crop = Crop.of(self.preprocess)
        return self.shapes if crop is None else [crop.shape] * len(self.shapes)


@dataclass(frozen=True)
class _Seen:
    """Facts about one file.

    They are its shape as stored, whether it is grey, and its brightest value if it is 16-bit. Also the share of its
    values above the white level, and the fingerprints of its bytes and pixels.
    """

    height: int
    width: int
    channels: int
    grey: bool
    brightest: int
    clipped: float
    fingerprint: str
    pixels: str
    prepared: NDArray[np.uint8] | None


def load_good_images(
    paths: Sequence[Path],
    choose_size: Callable[[Shapes, int], tuple[int, int]],
    *,
    channels: int | None = None,
    white_level: int = 65535,
    any_size: bool = False,
    crop: Crop | None = None,
    keeps_aspect: Callable[[Shapes], bool] = lambda _: False,
    progress: Progress | None = None,
) -> GoodImages:
    """Read good images and prepare them for a model.

    Parameters
    ----------
    paths
        Image files, at least one.
    choose_size
        Function that returns the working height and width in pixels. It gets the shapes and the channels (1 or
        3) of the images or of their crops.
    channels
        1 or 3; None for 1 if every image is grey, otherwise 3.
    white_level
        Value of a 16-bit image that is white.
    any_size
        Whether the model accepts frames of any size later. Otherwise it accepts the one size of the images, or
        from half their smallest to twice their largest side.
    crop
        Region that the images are cropped to (`fit_crop`); None for whole images.
    keeps_aspect
        Function from the shapes of the images to whether each image keeps its aspect ratio (`Preprocess.keep_aspect`).
    progress
        Wraps the reading of the images, for a progress bar.

    Returns
    -------
    GoodImages
        The images, without repeated files.

    Raises
    ------
    DatasetError
        If images cannot be read.
    """

    def decide(seen: Sequence[_Seen]) -> Preprocess:
        depth = channels or (1 if all(item.grey for item in seen) else 3)
        shapes = _shapes(seen) if crop is None else [crop.shape] * len(seen)
        height, width = choose_size(shapes, depth)
        limits = SourceLimits(
            channels=tuple(sorted({item.channels for item in seen})),
            width=None if any_size else _span([item.width for item in seen]),
            height=None if any_size else _span([item.height for item in seen]),
        )
        region, align = (None, None) if crop is None else (crop.region, crop.align)
        keep_aspect = crop is None and keeps_aspect(shapes)
        return Preprocess(width, height, depth, white_level, limits, region, align, keep_aspect)

    guess = decide([_look_at_first(paths)])
    seen = _read_all(paths, guess, progress)
    distinct = find_distinct(paths, [item.pixels for item in seen])
    paths, seen = [paths[place] for place in distinct], [seen[place] for place in distinct]
    preprocess = decide(seen)
    if dataclasses.replace(guess, source=preprocess.source) != preprocess:
        seen = _read_all(paths, preprocess, progress)  # the first image differs from the others
    _warn_of_mixtures(paths, seen, preprocess, channels)
    _warn_of_darkness(seen, white_level)
    images = stack_images([item.prepared for item in seen if item.prepared is not None])
    return GoodImages(tuple(paths), images, tuple(item.fingerprint for item in seen), preprocess, _shapes(seen))


def stack_images(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put images into one array.

    Parameters
    ----------
    images
        uint8 [height, width, channels] each, one or more.

    Returns
    -------
    NDArray[np.uint8]
        uint8 [n, height, width, channels]. Images of different sizes: an array of objects [n], the images.
    """
    if len({image.shape for image in images}) == 1:
        return np.stack(images)
    stacked = np.empty(len(images), object)
    for place, image in enumerate(images):
        stacked[place] = image
    return stacked


def _shapes(seen: Sequence[_Seen]) -> list[tuple[int, int]]:
    """Return height and width of the images as stored."""
    return [(item.height, item.width) for item in seen]


def _span(sides: Sequence[int]) -> tuple[int, int]:
    low, high = min(sides), max(sides)
    return (low, high) if low == high else (low // 2, high * 2)


def _look_at_first(paths: Sequence[Path]) -> _Seen:
    for path in paths:
        item = _look(path, None)
        if isinstance(item, _Seen):
            return item
    raise _unreadable([(paths[0], _look(paths[0], None))], len(paths))


def _read_all(paths: Sequence[Path], preprocess: Preprocess, progress: Progress | None) -> list[_Seen]:
    any_frame = dataclasses.replace(preprocess, source=SourceLimits((1, 3), None, None))
    items = in_order(lambda path: _look(path, any_frame), paths)
    found = list((progress or no_progress)(items, len(paths), "reading images"))
    bad = [(path, item) for path, item in zip(paths, found, strict=True) if isinstance(item, str)]
    if bad:
        raise _unreadable(bad, len(paths))
    return [item for item in found if isinstance(item, _Seen)]


def _look(path: Path, preprocess: Preprocess | None) -> _Seen | str:
    try:
        data = path.read_bytes()
        frame = decode_image(data)
        deep = frame.dtype == np.uint16 and preprocess is not None
        clipped = float(np.mean(frame > preprocess.white_level)) if deep and preprocess is not None else 0.0
        prepared = None if preprocess is None else prepare(frame, preprocess)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"cannot read the file: {describe_os_error(error)}"
    return _Seen(
        height=frame.shape[0],
        width=frame.shape[1],
        channels=1 if frame.ndim == 2 else frame.shape[2],
        grey=_is_grey(frame),
        brightest=int(frame.max()) if frame.dtype == np.uint16 else 0,
        clipped=clipped,
        fingerprint=fingerprint_bytes(data),
        pixels=fingerprint_pixels(frame),
        prepared=prepared,
    )


def _is_grey(frame: Frame) -> bool:
    return frame.ndim == 2 or (
        np.array_equal(frame[:, :, 0], frame[:, :, 1]) and np.array_equal(frame[:, :, 1], frame[:, :, 2])
    )


def _unreadable(bad: Sequence[tuple[Path, object]], total: int) -> DatasetError:
    reasons = {str(reason): path for path, reason in reversed(bad)}  # one example of each
    examples = "; ".join(f"{str(path)!r}: {reason}" for reason, path in list(reversed(reasons.items()))[:3])
    return DatasetError(f"{len(bad)} of {total} images cannot be used ({examples}); remove or replace them")


def _warn_of_mixtures(
    paths: Sequence[Path], seen: Sequence[_Seen], preprocess: Preprocess, channels: int | None
) -> None:
    sizes = Counter((item.width, item.height) for item in seen)
    usual = sizes.most_common(1)[0][1]
    if len(seen) > usual > len(seen) // 2:  # without a usual size there is no unusual one
        (rarest, count) = sizes.most_common()[-1]
        example = next(path for path, item in zip(paths, seen, strict=True) if (item.width, item.height) == rarest)
        _LOG.warning(
            "the images have %d sizes: remove images of another camera mode (%d of %dx%d, such as %r)",
            len(sizes),
            count,
            *rarest,
            str(example),
        )
    elif len(sizes) > 1 and preprocess.region is None:
        low, high = min(sizes), max(sizes)
        resized = "keeps its aspect ratio, at about as many pixels as" if preprocess.keep_aspect else "is resized to"
        _LOG.warning(
            "the images have %d sizes, from %dx%d to %dx%d, and each %s %dx%d",
            len(sizes),
            *low,
            *high,
            resized,
            preprocess.width,
            preprocess.height,
        )
    if preprocess.region is None and not preprocess.keep_aspect:
        _warn_of_stretches(paths, seen, preprocess)
    _warn_of_colour(paths, seen, channels)


def _warn_of_stretches(paths: Sequence[Path], seen: Sequence[_Seen], preprocess: Preprocess) -> None:
    size = (preprocess.height, preprocess.width)
    stretches = [largest_stretch([shape], size) for shape in _shapes(seen)]
    if max(stretches) > _NOTED_STRETCH * min(stretches):
        most = int(np.argmax(stretches))
        _LOG.warning(
            "the images have different shapes and are all resized to %dx%d: the most different one, %r of %dx%d, is "
            "stretched %.2f times",
            preprocess.width,
            preprocess.height,
            str(paths[most]),
            seen[most].width,
            seen[most].height,
            stretches[most],
        )


def _warn_of_colour(paths: Sequence[Path], seen: Sequence[_Seen], channels: int | None) -> None:
    coloured = [path for path, item in zip(paths, seen, strict=True) if not item.grey]
    if channels is None and 0 < len(coloured) < len(seen):
        _LOG.warning(
            "%d of %d images are coloured, such as %r, so the model sees colour: --channels 1 makes it mono",
            len(coloured),
            len(seen),
            str(coloured[0]),
        )


def _warn_of_darkness(seen: Sequence[_Seen], white_level: int) -> None:
    brightest = max(item.brightest for item in seen)
    clipped = [item.clipped for item in seen if item.brightest]
    if clipped and max(clipped) > _MOST_CLIPPED:
        _LOG.warning(
            "up to %.1f%% of an image's 16-bit values are above --white-level %d, the brightest is %d; all become "
            "white. If the camera stores its bits at the upper end, train with --white-level 65535",
            100.0 * max(clipped),
            white_level,
            brightest,
        )
    darkness = explain_darkness(brightest, white_level)
    if darkness is not None:
        _LOG.warning(darkness)


def find_distinct(paths: Sequence[Path], fingerprints: Sequence[str]) -> list[int]:
    """Find the files whose pixels differ from those of all earlier files, and warn of the others.

    Parameters
    ----------
    paths
        The image files.
    fingerprints
        Fingerprint of the pixels of each. A file that is saved again has other bytes, so its bytes do not
        count.

    Returns
    -------
    list[int]
        Positions of the distinct files, ascending.
    """
    first: dict[str, int] = {}
    for place, fingerprint in enumerate(fingerprints):
        first.setdefault(fingerprint, place)
    kept = set(first.values())
    repeats = [path for place, path in enumerate(paths) if place not in kept]
    if repeats:
        verb = "repeats another file and counts" if len(repeats) == 1 else "repeat other files and count"
        _LOG.warning("%d of %d images %s once, such as %r", len(repeats), len(paths), verb, str(repeats[0]))
    return sorted(kept)


def warn_of_few(count: int) -> None:
    """Warn, before the work starts, that there are too few different good pictures.

    Parameters
    ----------
    count
        Number of different good pictures.
    """
    if count == 1:
        _LOG.warning(
            "there is only 1 good image, which does not show how good parts differ: expect many false rejects; give "
            "%d or more",
            FEW,
        )
    elif count < FEW:
        _LOG.warning("there are only %d good images: expect many false rejects; give %d or more", count, FEW)
