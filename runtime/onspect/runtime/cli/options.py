"""Common parts of the commands that judge: options, the sink of overlays, and the counts at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onspect.runtime.cli.base import say
from onspect.runtime.errors import OutputError, SourceError
from onspect.runtime.model.providers import CHOICES

if TYPE_CHECKING:
    from onspect.runtime.sinks.overlays import OverlaySink

_LOG = logging.getLogger("onspect")

F = TypeVar("F", bound=Callable[..., Any])


def combine(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds several options to a command, in this order in its help.

    Parameters
    ----------
    *options
        Decorators of click.

    Returns
    -------
    Callable[[F], F]
        The decorator.
    """

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


provider_option = click.option(
    "--provider",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="The provider that runs the model; cuda and tensorrt fall back with a warning; auto never chooses openvino. "
    "With openvino-bf16, scores near a threshold are computed again in float32; 'onspect bench --margin' prepares it.",
)
white_level_option = click.option(
    "--white-level",
    type=click.IntRange(255, 65535),
    default=65535,
    show_default=True,
    help="The 16-bit value that is white: 4095 for a 12-bit camera.",
)
presence_white_option = click.option(
    "--white-level",
    type=click.IntRange(255, 65535),
    help="With presence: the 16-bit value that is white, 4095 for a 12-bit camera.  [default: the file's, or 65535]",
)
overlay_options = combine(
    click.option(
        "--overlays",
        type=click.Path(path_type=Path, file_okay=False),
        help="Write each image with its verdict, and outline and box around each region, into this folder.",
    ),
    click.option(
        "--overlay-style",
        type=click.Choice(["marks", "beside", "heat"]),
        default="marks",
        show_default=True,
        help="Marks: outline and box; beside: the plain image to the left, a legend below; heat: error map as colours.",
    ),
    click.option(
        "--overlay-format",
        type=click.Choice(["png", "jpg"]),
        default="png",
        show_default=True,
        help="File format of the overlays.",
    ),
)
"""The options ``overlays``, ``overlay_style`` and ``overlay_format``, whose values `overlay_sinks` takes."""


def overlay_sinks(
    folder: Path | None, root: Path, images: Iterable[Path | str], *, style: str = "marks", ending: str = "png"
) -> list[OverlaySink]:
    """Return the sink that draws into a folder.

    Parameters
    ----------
    folder
        The folder; None for no overlays.
    root
        Folder of the images; subfolders below it are kept.
    images
        The images, which must not be in the folder.
    style
        ``marks``, ``beside`` or ``heat``.
    ending
        ``png`` or ``jpg``.

    Returns
    -------
    list[OverlaySink]
        The sink, or an empty list.

    Raises
    ------
    OutputError
        If the images are in the folder.
    """
    if folder is None:
        return []
    target = folder.resolve()
    if any(parent.resolve().is_relative_to(target) for parent in {Path(image).parent for image in images}):
        raise OutputError(f"the images to judge are in {str(folder)!r}; give another folder for the overlays")
    from onspect.runtime.sinks.overlays import OverlaySink

    return [OverlaySink(folder, root=root, heat=style == "heat", beside=style == "beside", ending=ending)]


def conclude(counts: Mapping[str, int], reasons: Mapping[str, int] | None = None) -> None:
    """Print the number of images for each verdict, and warn of faults.

    Faults do not fail the command if at least one image was judged: each fault has its line and its reason, and did not
    pass.

    Parameters
    ----------
    counts
        Number of images by verdict.
    reasons
        Number of faults by reason; None if it is unknown.

    Raises
    ------
    SourceError
        If no image could be judged.
    """
    from onspect.runtime.judgement import JUDGEMENTS

    total = sum(counts.values())
    parts = ", ".join(f"{counts[name]} {name}" for name in JUDGEMENTS if counts[name])
    say(f"{total} image{'s' * (total != 1)}: {parts}" if total else "no frame was judged: the source is empty")
    if total and counts["fault"] == total:
        raise SourceError(f"no image could be judged; {describe_reasons(reasons or {}, total)}")
    if counts["fault"]:
        why = describe_reasons(reasons or {}, counts["fault"])
        _LOG.warning("%d of %d images could not be judged (fault); %s", counts["fault"], total, why)


def describe_reasons(reasons: Mapping[str, int], total: int) -> str:
    """Describe the most frequent reason of faults.

    Parameters
    ----------
    reasons
        Number of faults by reason; empty if it is unknown.
    total
        Number of faults.

    Returns
    -------
    str
        The description.
    """
    if not reasons:
        return "each line's reason says why"
    reason, count = max(reasons.items(), key=lambda item: item[1])
    if total == 1:
        return f"the reason: {reason!r}"
    return f"{f'all {total}' if count == total else f'{count} of {total}'}: {reason!r}"
