"""Public names of a package, loaded at their first use, and earlier names of modules."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping


def public_names(
    package: str, homes: Mapping[str, str]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package
        Full name of the package.
    homes
        The modules below it, each with its public names, separated by spaces.

    Returns
    -------
    tuple[list[str], Callable[[str], object], Callable[[], list[str]]]
        List of names, function that loads a name, and function that lists all names.
    """
    modules = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> object:
        if name == "__version__":
            from importlib import metadata  # imported here, because it loads slowly

            return metadata.version("onspect")
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return sorted(modules), load, lambda: sorted({*vars(importlib.import_module(package)), *modules})


def move(old: str, new: str) -> None:
    """Let an earlier name of a module give the module, with a warning.

    Parameters
    ----------
    old, new
        Full names of the module, the earlier one and today's.
    """
    warnings.warn(f"{old} has moved to {new}", DeprecationWarning, stacklevel=3)
    sys.modules[old] = importlib.import_module(new)
