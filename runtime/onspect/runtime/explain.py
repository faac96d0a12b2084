"""Errors of libraries and of the operating system as errors of ours: what failed, why, and the cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import OnspectError


@contextmanager
def explaining(
    kind: type[OnspectError],
    what: str,
    cure: str = "",
    *,
    of: type[Exception] | tuple[type[Exception], ...] = OSError,
) -> Iterator[None]:
    """Turn an error inside the block into an error of ours.

    Parameters
    ----------
    kind
        The error to raise.
    what
        What cannot be done, with the value, such as ``cannot read 'x.toml'``.
    cure
        What the user can do; empty for nothing.
    of
        The errors to turn.

    Raises
    ------
    OnspectError
        The error, if the block raises one of the others.
    """
    try:
        yield
    except of as error:
        why = describe_os_error(error) if isinstance(error, OSError) else str(error)
        raise kind(f"{what}: {why}; {cure}" if cure else f"{what}: {why}") from error
