"""Write docs/commands.md from the help of every command; with --check only report whether it is up to date."""

from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner

from onspect.runtime.cli import main

PAGE = Path(__file__).with_name("commands.md")

_WIDTH = 100  # of the help, whatever terminal the script runs in

_PREFACE = """\
# Commands

<!-- Written by docs/generate_commands.py from the commands' own help: change that, and run the script again. -->

All commands keep these rules:

- Results of a command (verdicts, a card, a table) go to stdout or to the named file; messages, warnings and
  progress go to stderr.
- The exit code is 0 on success, 1 on failure and 2 on wrong usage. A failure is one sentence on stderr; `--debug`
  shows the traceback instead.
- An `ng` part is a verdict, not a failure: `score` and `run` then exit with 0. They exit with 1 if no image could
  be judged.
- A progress bar is shown if stderr is a terminal; otherwise a line every 30 s. With `--quiet` there is neither.
- A command whose packages are not installed is listed too, and names the packages to install.
"""


def render() -> str:
    """Return the page: the preface, then the help of `onspect` and of each command in the order of its list."""
    parts = [_PREFACE, _section("onspect")]
    with click.Context(main) as context:
        for name in main.list_commands(context):
            parts.append(_section("onspect", name))
            command = main.get_command(context, name)
            if isinstance(command, click.Group):
                parts += [_section("onspect", name, below) for below in command.list_commands(context)]
    return "\n".join(parts)


def _section(*words: str) -> str:
    result = CliRunner().invoke(
        main, [*words[1:], "--help"], prog_name=words[0], terminal_width=_WIDTH, catch_exceptions=False
    )
    text = "\n".join(line.rstrip() for line in result.output.splitlines())
    return f"## {' '.join(words)}\n\n```text\n{text}\n```\n"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where the page is stale.")
def generate(check: bool) -> None:
    """Write docs/commands.md from the help of every command."""
    page = render()
    if not check:
        PAGE.write_text(page, encoding="utf-8", newline="\n")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        raise click.ClickException(f"{PAGE.name} is stale; write it anew: python docs/{Path(__file__).name}")


if __name__ == "__main__":
    generate()
