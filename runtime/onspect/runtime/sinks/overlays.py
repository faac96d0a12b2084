"""Overlay pictures: the source image with its verdict, and an outline and a box around each region."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from onspect.runtime.atomic import make_folder
from onspect.runtime.inspection.inspector import Inspection
from onspect.runtime.inspection.visualization import draw_overlay, write_picture
from onspect.runtime.sinks.base import Sink


class OverlaySink(Sink):
    """Write a picture for each image into a folder.

    Parameters
    ----------
    folder
        The folder.
    root
        The folder of the sources; subfolders below it are kept.
    heat
        Whether the error map is coloured.
    beside
        Whether the plain image is shown at the left, with a legend.
    ending
        ``png`` or ``jpg``.
    """

    def __init__(
        self, folder: Path, *, root: Path, heat: bool = False, beside: bool = False, ending: str = "png"
    ) -> None:
        self._folder = folder
        self._root = root
        self._heat, self._beside, self._ending = heat, beside, f".{ending}"
        self._used: set[Path] = set()

    def __enter__(self) -> Self:
        make_folder(self._folder)
        return self

    def __exit__(self, *exception: object) -> None:
        self._used.clear()

    def write(self, inspection: Inspection) -> None:
        """Draw one inspection; without a readable image there is no picture.

        Parameters
        ----------
        inspection
            The inspection.

        Raises
        ------
        OutputError
            If the disk is full.
        """
        self.draw(inspection, self.place(inspection.verdict.source))

    def draw(self, inspection: Inspection, path: Path) -> None:
        """Draw one inspection into a file; several threads may do so at a time.

        Parameters
        ----------
        inspection
            The inspection.
        path
            The file that `place` returned.

        Raises
        ------
        OutputError
            If the disk is full.
        """
        picture = draw_overlay(inspection, heat=self._heat, beside=self._beside, legend=self._beside)
        if picture is not None:
            make_folder(path.parent)
            write_picture(path, picture)

    def place(self, text: str) -> Path:
        """Return the file for the picture of a source; sources that differ only in their ending get different files.

        Parameters
        ----------
        text
            Path of the source.

        Returns
        -------
        Path
            The file.
        """
        source = Path(os.path.abspath(text))  # noqa: PTH100 - '..' in the path would lead out of the folder
        relative = source.relative_to(self._root) if source.is_relative_to(self._root) else Path(source.name)
        path = self._folder / relative.with_suffix(self._ending)
        if path in self._used:
            path = self._folder / relative.with_name(f"{relative.name}{self._ending}")
        self._used.add(path)
        return path
