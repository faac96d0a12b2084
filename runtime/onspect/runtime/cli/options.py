"""What the commands that judge share: options, the folder of overlays, and the counts at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.runtime.cli.base import say
from onspect.runtime.errors import OutputError, SourceError
from onspect.runtime.model.providers import CHOICES

if TYPE_CHECKING:
    from onspect.runtime.sinks.overlays import OverlaySink

_LOG = logging.getLogger("onspect")

provider_option = click.option(
    "--provider",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="The provider that runs the model; cuda and tensorrt fall back with a warning; auto never chooses openvino.",
)
_overlays = click.option(
    "--overlays",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write each image with its verdict, and outline and box around each region, into this folder.",
)
_overlay_style = click.option(
    "--overlay-style",
    type=click.Choice(["marks", "beside", "heat"]),
    default="marks",
    show_default=True,
    help="Marks: outline and box; beside: the plain image to the left, a legend below; heat: error map as colours.",
)
_overlay_format = click.option(
    "--overlay-format", type=click.Choice(["png", "jpg"]), default="png", show_default=True, help="Of the overlays."
)


def overlay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of overlays: ``overlays``, ``overlay_style`` and ``overlay_format``, as `overlay_sinks` takes."""
    return _overlays(_overlay_style(_overlay_format(command)))


def overlay_sinks(
    folder: Path | None, root: Path, images: Iterable[Path | str], *, style: str = "marks", ending: str = "png"
) -> list[OverlaySink]:
    """Return the sink that draws into a folder, none for None; raises OutputError where the images lie in it."""
    if folder is None:
        return []
    target = folder.resolve()
    if any(parent.resolve().is_relative_to(target) for parent in {Path(image).parent for image in images}):
        raise OutputError(f"the images to judge are in {str(folder)!r}; give another folder for the overlays")
    from onspect.runtime.sinks.overlays import OverlaySink

    return [OverlaySink(folder, root=root, heat=style == "heat", beside=style == "beside", ending=ending)]


def conclude(counts: Mapping[str, int], reasons: Mapping[str, int] | None = None) -> None:
    """Say how many images there were of each verdict, and warn of faults.

    Faults do not fail the command as long as one image could be judged: each has its line and its reason, and did not
    pass. reasons: how many faults have each reason, where that is known. Raises SourceError where none could be judged.
    """
    from onspect.runtime.inspection.verdict import JUDGEMENTS

    total = sum(counts.values())
    parts = ", ".join(f"{counts[name]} {name}" for name in JUDGEMENTS if counts[name])
    say(f"{total} image{'s' * (total != 1)}: {parts}" if total else "no frame was judged: the source is empty")
    if total and counts["fault"] == total:
        raise SourceError(f"no image could be judged; {describe_reasons(reasons or {}, total)}")
    if counts["fault"]:
        why = describe_reasons(reasons or {}, counts["fault"])
        _LOG.warning("%d of %d images could not be judged (fault); %s", counts["fault"], total, why)


def describe_reasons(reasons: Mapping[str, int], total: int) -> str:
    """Return the usual reason of `total` faults in words; reasons: how many faults have each, where that is known."""
    if not reasons:
        return "each line's reason says why"
    reason, count = max(reasons.items(), key=lambda item: item[1])
    if total == 1:
        return f"the reason: {reason!r}"
    return f"{f'all {total}' if count == total else f'{count} of {total}'}: {reason!r}"
