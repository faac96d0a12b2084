"""The options --roi, --align, --max-turn and --max-scale of teach and train."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from onspect.runtime.cli.options import combine

if TYPE_CHECKING:
    from onspect.runtime.images.region import RegionFile

region_options = combine(
    click.option(
        "--roi",
        multiple=True,
        metavar="X,Y,W,H|FILE",
        help="Inspect only this region of each frame, in pixels, or that of a file which 'onspect roi' wrote. A "
        "rectangle may be given several times.",
    ),
    click.option(
        "--align",
        is_flag=True,
        help="Find the part in each frame before the crop. --roi says where it is in the first good picture. Without "
        "--roi its outline on a plain ground does. A file with a reference needs no --align.",
    ),
    click.option(
        "--max-turn",
        type=click.FloatRange(0, 180),
        metavar="DEGREES",
        help="Largest rotation either way that is searched [default: 180].",
    ),
    click.option(
        "--max-scale",
        type=click.FloatRange(0, 20),
        metavar="PERCENT",
        help="Largest change of size either way that is searched [default: 0].",
    ),
)
"""The options ``roi``, ``align``, ``max_turn`` and ``max_scale``, whose values `read_region_options` takes."""


def read_region_options(
    roi: tuple[str, ...], align: bool, max_turn: float | None, max_scale: float | None
) -> RegionFile | None:
    """Return the region that the options describe.

    Parameters
    ----------
    roi
        Values of ``--roi``.
    align
        Whether ``--align`` is given.
    max_turn
        Largest rotation in degrees; None if it is not given.
    max_scale
        Largest change of size in percent; None if it is not given.

    Returns
    -------
    RegionFile | None
        The region; None without options.

    Raises
    ------
    UsageError
        If options do not fit together.
    ChoiceError
        If a value is not valid.
    """
    from onspect.runtime.images.region import Reference, RegionFile, parse_region

    if not (roi or align or max_turn is not None or max_scale is not None):
        return None
    region = parse_region(roi) if roi else RegionFile()
    reference = region.reference or (Reference() if align else None)
    if reference is None:
        if max_turn is not None or max_scale is not None:
            raise click.UsageError("--max-turn and --max-scale are for the search: give --align as well")
        return region
    if max_turn is not None:
        reference = dataclasses.replace(reference, turn=max_turn)
    if max_scale is not None:
        reference = dataclasses.replace(reference, scale=max_scale / 100.0)
    return dataclasses.replace(region, reference=reference)
