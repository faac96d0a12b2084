"""Public names of a part, loaded when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping


def public_names(
    package: str, homes: Mapping[str, str]
) -> tuple[list[str], Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package
        Its full name.
    homes
        The modules below it, each with the public names in it, divided by spaces.
    """
    modules = {name: module for module, names in homes.items() for name in names.split()}

    def load(name: str) -> object:
        if name == "__version__":
            from importlib import metadata  # here, for it takes long to load

            return metadata.version("onspect")
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return sorted(modules), load, lambda: sorted({*vars(importlib.import_module(package)), *modules})
