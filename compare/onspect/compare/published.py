"""Printed results of the paper: Tables 5 and 6 of Schneider et al., "Autoencoders - A Comparative Analysis" (2022).

The second column group of both tables is headed CAE there; it is the VAE's. Values are AUROC and AUPR, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

VARIANTS = ("cae", "vae", "aae")

_MNIST = """
0  0.9999 0.9999  0.9999 0.9989  0.9999 0.9999
2  0.9933 0.9949  0.9989 0.9975  0.9974 0.9975
3  0.9964 0.9970  0.9986 0.9977  0.9966 0.9972
4  0.9980 0.9980  0.9984 0.9975  0.9974 0.9975
5  0.9979 0.9977  0.9990 0.9982  0.9982 0.9982
6  0.9942 0.9956  0.990  0.9984  0.9959 0.9966
7  0.9664 0.9776  0.9971 0.9957  0.9711 0.9809
8  0.9985 0.9982  0.9988 0.9980  0.9992 0.9988
9  0.9876 0.9914  0.9980 0.9969  0.9893 0.9921
"""

_CIFAR = """
airplane    0.6343 0.6280  0.6448 0.6338  0.6338 0.6254
automobile  0.7689 0.7389  0.7615 0.7259  0.7510 0.7180
bird        0.5405 0.5482  0.5328 0.5353  0.5315 0.5363
cat         0.5525 0.5489  0.5421 0.5321  0.5447 0.5380
deer        0.5463 0.5459  0.5404 0.5344  0.5328 0.5246
frog        0.5780 0.5616  0.5677 0.5474  0.5632 0.5495
horse       0.6612 0.6345  0.6470 0.6185  0.6435 0.6255
ship        0.5398 0.5445  0.5655 0.5692  0.5370 0.5462
truck       0.7379 0.7132  0.7375 0.7073  0.7364 0.7120
"""


@dataclass(frozen=True)
class PrintedTable:
    """A table of the paper."""

    title: str
    """Its title."""
    areas: dict[tuple[str, str], tuple[float, float]]
    """AUROC and AUPR, 0 to 1, by anomalous class and variant."""
    seconds: dict[str, float]
    """Duration of training in seconds, by variant."""
    shown: tuple[str, ...]
    """Anomalous classes that its Figures 3 and 4 show."""


def _parse(title: str, text: str, seconds: tuple[float, float, float], shown: tuple[str, ...]) -> PrintedTable:
    areas = {}
    for line in text.strip().splitlines():
        name, *values = line.split()
        for index, variant in enumerate(VARIANTS):
            areas[name, variant] = (float(values[2 * index]), float(values[2 * index + 1]))
    return PrintedTable(title, areas, dict(zip(VARIANTS, seconds, strict=True)), shown)


_TABLES: dict[tuple[str, tuple[str, ...]], PrintedTable] = {
    ("MNIST", ("1",)): _parse("Table 5", _MNIST, (1015.53, 1055.02, 1748.8), ("0",)),
    ("CIFAR-10", ("dog",)): _parse("Table 6", _CIFAR, (89704.82, 99882.32, 105906.03), ("truck", "frog", "ship")),
}


def find_printed(dataset: str, normal: tuple[str, ...]) -> PrintedTable | None:
    """Return the paper's table for a dataset.

    Parameters
    ----------
    dataset
        Name of the dataset.
    normal
        Names of the normal classes.

    Returns
    -------
    PrintedTable or None
        The table; None if the paper has none.
    """
    return _TABLES.get((dataset, normal))
