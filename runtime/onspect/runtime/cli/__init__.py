"""The `onspect` command: the commands of every part, listed on any machine; each loads its work when it runs."""

from __future__ import annotations

import importlib
import os

import click

# Our own threads share the work; threads of numpy in them would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

_GROUPS = {
    "Workstation": {
        "demo": "demo.commands",
        "capture": "runtime.cli.capture",
        "split": "runtime.cli.split",
        "roi": "runtime.cli.roi",
        "parts": "runtime.cli.parts",
        "teach": "runtime.cli.teach",
        "backbone": "training.commands",
        "train": "training.commands",
        "export": "export.commands",
        "calibrate": "calibration.commands",
        "threshold": "calibration.commands",
        "evaluate": "calibration.commands",
        "compare": "compare.commands",
    },
    "Line": {
        "score": "runtime.cli.score",
        "run": "runtime.cli.run",
        "cameras": "runtime.cli.cameras",
        "info": "runtime.cli.info",
        "bench": "runtime.cli.bench",
        "doctor": "runtime.cli.doctor",
    },
    "Upkeep": {
        "drift": "runtime.cli.drift",
        "recalibrate": "runtime.cli.recalibrate",
        "labels": "runtime.cli.labels",
        "fleet": "runtime.cli.fleet",
    },
}
"""The commands in groups, in the order in which a user needs them, each with its module below ``onspect``.

Only the called command is loaded: otherwise a process that gives one verdict would spend a tenth of its time on the
options of commands that it does not run.
"""

_HOMES = {name: module for group in _GROUPS.values() for name, module in group.items()}

_WHOLE = 1000  # characters: the first sentence of a command's help is wrapped, not cut


class _Group(click.Group):
    """Know the commands by name, and load each when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click gives it
        return list(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click gives it
        if cmd_name not in _HOMES:
            return None
        command: click.Command = getattr(importlib.import_module(f"onspect.{_HOMES[cmd_name]}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their groups."""
        for title, names in _GROUPS.items():
            commands = [(name, command) for name in names if (command := self.get_command(ctx, name)) is not None]
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(_WHOLE)) for name, command in commands])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, suggest the most similar one."""
        name = args[0]
        if name not in _HOMES and not name.startswith("-") and not ctx.resilient_parsing:
            from onspect.runtime.cli.mistakes import describe_unknown

            raise click.UsageError(describe_unknown(name, list(_HOMES)), ctx)
        return super().resolve_command(ctx, args)


def _print_versions(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: ARG001 - click's
    if value and not ctx.resilient_parsing:
        from onspect.runtime.cli.versions import describe_versions

        click.echo(describe_versions())
        ctx.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_versions,
    help="Show the versions of Onspect and its libraries.",
)
def main() -> None:
    """Screen parts for defects with a model that knows good ones.

    Teach a memory of good parts in seconds, or train an autoencoder; both give one .onnx file. Calibrate its threshold,
    and score images or a camera line with it.

    \b
    Example, from a folder of images to verdicts:
      onspect teach parts/train/good -o part.onnx
      onspect calibrate part.onnx parts/
      onspect score part.onnx parts/test -o verdicts.jsonl
    """
