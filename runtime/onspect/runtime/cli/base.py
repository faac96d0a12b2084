"""Common parts of all commands: -q, -v and --debug, errors in one sentence, and progress on a terminal."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from onspect.runtime.atomic import describe_os_error
from onspect.runtime.errors import ChoiceError, OnspectError
from onspect.runtime.extras import describe_missing

T = TypeVar("T")


class Command(click.Command):
    """A click command with -q, -v and --debug; an expected error becomes one sentence on stderr and exit code 1.

    Parameters
    ----------
    arguments, settings
        As in click.
    sections
        Names of options below each heading of the help. The other options follow under "Options".
    """

    reads_pictures = False
    """Whether OpenCV is used, which then leaves the cores to us and prints nothing."""

    def __init__(self, *arguments: Any, sections: Mapping[str, Sequence[str]] | None = None, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._sections = sections or {}
        self.params += [
            click.Option(["-q", "--quiet"], is_flag=True, help="Errors only."),
            click.Option(["-v", "--verbose"], is_flag=True, help="Print more messages."),
            click.Option(["--debug"], is_flag=True, help="Print a traceback if something fails."),
            click.Option(
                ["--no-color"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_choose_color,
                help="No colours, as with the variable NO_COLOR.",
            ),
        ]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their sections.

        Parameters
        ----------
        ctx
            Context of click.
        formatter
            Writer of the help.
        """
        if not self._sections:
            super().format_options(ctx, formatter)
            return
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        records = {option.name: record for option in options if (record := option.get_help_record(ctx)) is not None}
        for title, names in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl(list(records.values()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep the original ones.

        Parameters
        ----------
        ctx
            Context of click.
        args
            The arguments.

        Returns
        -------
        list[str]
            The arguments that are left, as in click.
        """
        ctx.meta["onspect.arguments"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with its logging and its handling of errors.

        Parameters
        ----------
        ctx
            Context of click.

        Returns
        -------
        Any
            The result of the command.

        Raises
        ------
        ClickException
            If the command failed with an expected error.
        """
        quiet, verbose, debug = (ctx.params.pop(name) for name in ("quiet", "verbose", "debug"))
        ctx.meta["onspect.quiet"] = quiet
        ctx.meta["onspect.flags"] = ["-q"] * quiet + ["-v"] * verbose + ["--debug"] * debug
        ctx.meta["onspect.flags"] += ["--no-color"] * ctx.meta["onspect.no_color"]
        _configure_logging(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
        try:
            if self.reads_pictures:
                from onspect.runtime.images.decode import quieten_opencv

                quieten_opencv()
            return super().invoke(ctx)
        except OnspectError as error:
            if debug:
                raise
            from onspect.runtime.credentials import redact

            raise click.ClickException(redact(str(error))) from error
        except BrokenPipeError:
            raise  # click ends quietly if the reader of stdout has ended
        except OSError as error:
            if debug:
                raise
            raise click.ClickException(f"{error.filename or 'stdout'}: {describe_os_error(error)}") from error
        except ImportError as error:
            reason = describe_missing(f"'{ctx.command_path}'", error)
            if debug or reason is None:
                raise
            raise click.ClickException(reason) from error


class PictureCommand(Command):
    """A command that reads pictures with OpenCV, which then leaves the cores to us and prints nothing."""

    reads_pictures = True


def _choose_color(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's
    """Switch colours off if the user does not want them; click leaves them out if there is no terminal."""
    ctx.meta["onspect.no_color"] = value
    if value or os.environ.get("NO_COLOR"):
        ctx.color = False


def say(message: str) -> None:
    """Print a line for the user on stderr, unless the command is quiet.

    Parameters
    ----------
    message
        The line.
    """
    context = click.get_current_context(silent=True)
    if context is None or not context.meta.get("onspect.quiet", False):
        click.echo(message, err=True)


def echo_json(content: object) -> None:
    """Print JSON for a program, over several lines.

    Parameters
    ----------
    content
        The content.
    """
    import json  # imported here: most commands print none

    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def wrap(text: str, *, err: bool = False, indent: int = 0) -> str:
    """Wrap lines of sentences between words at the width of the terminal.

    Parameters
    ----------
    text
        The lines.
    err
        Whether they go to stderr instead of stdout.
    indent
        Number of spaces before the continuation of a line.

    Returns
    -------
    str
        The lines; unchanged if the stream is no terminal.
    """
    import shutil  # imported here: most commands print no long line
    import textwrap

    if not (sys.stderr if err else sys.stdout).isatty():
        return text
    width = shutil.get_terminal_size().columns
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapper.fill(line) if len(line) > width else line for line in text.splitlines())


def progress(items: Iterable[T], length: int, label: str) -> Iterator[T]:
    """Yield the items under a progress bar with the time left, on stderr.

    If stderr is not a terminal, a line every 30 s shows the progress in the log.

    Parameters
    ----------
    items
        The items.
    length
        Number of items.
    label
        Label of the bar.

    Returns
    -------
    Iterator[T]
        The items.
    """
    if not shows_progress():
        yield from _tell_progress(items, length, label, ProgressLines())
        return
    steps = max(1, length // 500)  # a new bar for each item would take longer than some items
    with click.progressbar(
        items, length=length, label=label, file=sys.stderr, show_pos=True, width=0, update_min_steps=steps
    ) as bar:
        yield from bar


def _tell_progress(items: Iterable[T], length: int, label: str, lines: ProgressLines) -> Iterator[T]:
    started = time.monotonic()
    for number, item in enumerate(items):
        if number and lines.are_due():
            left = (time.monotonic() - started) / number * (length - number)
            say(f"{label}: {number} of {length}, about {_describe_time(left)} left")
        yield item


def _describe_time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class ProgressLines:
    """When to report the progress of long work if stderr is not a terminal: every `every` seconds, but not at once."""

    def __init__(self, every: float = 30.0) -> None:
        self._every = every
        self._due = time.monotonic() + every

    def are_due(self) -> bool:
        """Return whether a line is due; the next one is due `every` seconds later.

        Returns
        -------
        bool
            Always False on a terminal.
        """
        if sys.stderr.isatty() or time.monotonic() < self._due:
            return False
        self._due = time.monotonic() + self._every
        return True


def shows_progress() -> bool:
    """Return whether a progress bar is visible: stderr is a terminal and the command is not quiet.

    Returns
    -------
    bool
        True if it is visible.
    """
    context = click.get_current_context(silent=True)
    quiet = context is not None and context.meta.get("onspect.quiet", False)
    return sys.stderr.isatty() and not quiet


@contextmanager
def usage_errors() -> Iterator[None]:
    """Convert a ChoiceError about the value of an option to a usage error of click, exit code 2.

    Raises
    ------
    UsageError
        If the block raises ChoiceError.
    """
    try:
        yield
    except ChoiceError as error:
        raise click.UsageError(str(error)) from error


class _StderrHandler(logging.Handler):
    """Write records through click, to the current stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        label = "" if record.levelno <= logging.INFO else f"{record.levelname.capitalize()}:"
        colour = "red" if record.levelno >= logging.ERROR else "yellow"
        text = wrap(f"{label} {record.getMessage()}" if label else record.getMessage(), err=True)
        click.echo(f"{click.style(label, fg=colour) if label else ''}{text[len(label) :]}", err=True)


def _configure_logging(level: int) -> None:
    logger = logging.getLogger("onspect")
    logger.setLevel(level)
    logger.handlers[:] = [_StderrHandler()]
    logger.propagate = False


def parse_rate(
    context: click.Context, option: click.Parameter, text: str | None, no_limit: tuple[float, ...] = (0,)
) -> float | None:
    """Read a rate such as ``0.5%`` or ``0.005``; a callback of options.

    Parameters
    ----------
    context
        Context of click.
    option
        The option.
    text
        The value; None if the option is not given.
    no_limit
        Rates that would set no limit, which are refused.

    Returns
    -------
    float | None
        The rate, 0 to 1; None if the option is not given.

    Raises
    ------
    BadParameter
        If the value is not a rate, is out of range, or sets no limit.
    """
    import decimal  # imported here because most commands take no rate

    if text is None:
        return None
    try:
        number = decimal.Decimal(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except decimal.InvalidOperation:
        raise click.BadParameter(f"{text!r} is not a rate; write 0.5% or 0.005", context, option) from None
    if not text.strip().endswith("%") and number.is_finite() and 1 < number <= 100:
        meant = f"is {text.strip()}% meant? Write {text.strip()}%"
        raise click.BadParameter(f"{text!r} is more than 100%: {meant}", context, option)
    if not number.is_finite() or not 0 <= number <= 1:
        raise click.BadParameter(f"{text!r} is not between 0% and 100%; write 0.5% or 0.005", context, option)
    if number in no_limit and text.strip() == "1":
        raise click.BadParameter("'1' is 100%, which sets no limit at all: is 1% meant? Write 1%", context, option)
    if number in no_limit:
        raise click.BadParameter(f"{text!r} sets no limit at all; write 0.5% or 0.005", context, option)
    return float(number)
