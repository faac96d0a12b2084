"""The training part's commands: train and backbone."""

from __future__ import annotations

import logging
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.runtime.atomic import write_together
from onspect.runtime.cli.base import Command, ProgressLines, progress, say, shows_progress, usage_errors
from onspect.runtime.cli.options import white_level_option
from onspect.runtime.cli.region_options import read_region_options, region_options
from onspect.runtime.errors import ChoiceError, OutputError, TrainingError
from onspect.runtime.text import count_of
from onspect.training.config import AUGMENTATIONS, OPTIMIZERS, SCHEDULES, VARIANTS
from onspect.training.presets import DEFAULT, FEATURES, NAMES, PIXELS, PRESETS, SUBJECTS, describe_defaults

if TYPE_CHECKING:
    from onspect.training.autoencoder.loop import Outcome, TrainingProgress
    from onspect.training.checkpoint import RunRecord


def _parse_size(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise click.BadParameter(f"{value!r} is not a size; give 128 for 128x128, or 160x120 for width x height")
    return int(sides[0]), int(sides[-1])


def _parse_list(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return () if value == "none" else tuple(part.strip() for part in value.split(",") if part.strip())


_SECTIONS = {
    "Images": ("size", "tile", "channels", "white_level", "roi", "align", "max_turn", "max_scale", "any_size"),
    "Network": ("variant", "on", "preset", "latent"),
    "Training": (
        *("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "augment", "holdout", "patience", "seed"),
    ),
    "Devices": ("device", "devices", "precision"),
}


@click.command(cls=Command, sections=_SECTIONS)
@click.argument("data", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", "run", required=True, type=click.Path(path_type=Path), help="The run's folder.")
@click.option(
    "-m",
    "--model",
    "variant",
    type=click.Choice(VARIANTS),
    default=VARIANTS[0],
    show_default=True,
    help="Plain (cae), variational (vae) or adversarial (aae) autoencoder.",
)
@click.option(
    "--on",
    type=click.Choice(SUBJECTS),
    default=PIXELS,
    show_default=True,
    help="What the autoencoder reconstructs: the image, or a pretrained network's features of it at each place.",
)
@click.option(
    "--preset",
    type=click.Choice(NAMES),
    help=f"Working size and width of the network: {'; '.join(PRESETS[name].describe() for name in NAMES)} [default: "
    f"one with networks for the images' size, otherwise {DEFAULT}].",
)
@click.option(
    "--size",
    callback=_parse_size,
    metavar="WxH",
    help="Working size, such as 128 or 160x120 [default: from images and preset].",
)
@click.option(
    "--tile",
    callback=_parse_size,
    metavar="WxH",
    help="Cut each image into overlapping tiles of this size, such as 256, for small defects in large images: the "
    "networks process one tile at a time, and the results are stitched [default: the whole image].",
)
@click.option("--channels", type=click.Choice(["1", "3"]), help="1 mono, 3 colour [default: 1 where all are grey].")
@white_level_option
@region_options
@click.option(
    "--any-size", is_flag=True, help="Let the model accept images of any size, not only of the sizes in DATA."
)
@click.option(
    "--latent",
    type=click.IntRange(min=1),
    help=f"Size of the latent vector, n_z [default: {describe_defaults('latent')}; "
    f"{PRESETS[FEATURES].latent} on features].",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Passes over the images. With tiles, the default is divided by their number [default: "
    f"{describe_defaults('epochs')}; {PRESETS[FEATURES].steps} steps on features].",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help=f"Images of one step [default: {describe_defaults('batch_size')}; {PRESETS[FEATURES].batch_size} places of "
    "images on features].",
)
@click.option(
    "--optimizer",
    type=click.Choice(OPTIMIZERS),
    default=OPTIMIZERS[0],
    show_default=True,
    help="Adam, or Adam with weight decay.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Size of the steps at the start.",
)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    help="Learning rate over the epochs: half a cosine down to 1%, or constant "
    f"[default: {describe_defaults('schedule')}].",
)
@click.option(
    "--augment",
    callback=_parse_list,
    metavar="LIST",
    help=f"Random changes of the images, comma-separated: {', '.join(AUGMENTATIONS)}, or none [default: "
    f"{describe_defaults('augment')}]. With flips, a part that is inserted the wrong way round counts as good.",
)
@click.option(
    "--holdout",
    type=click.FloatRange(0, 0.5),
    default=0.1,
    show_default=True,
    help="Share of the good images that is not trained on and decides early stopping.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Stop after this number of epochs without a better validation loss; 0 never stops early.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same weights."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train; auto takes a GPU if PyTorch finds one.",
)
@click.option("--devices", type=click.IntRange(min=1), default=1, show_default=True, help="Number of devices.")
@click.option(
    "--precision",
    type=click.Choice(["32-true", "bf16-mixed", "16-mixed"]),
    default="32-true",
    show_default=True,
    help="float32, or mixed with bfloat16 or float16, which is faster on most GPUs.",
)
@click.option(
    "--resume", is_flag=True, help="Resume the interrupted run in the folder -o, with the options it was started with."
)
def train(
    data: Path | None, run: Path, device: str, devices: int, precision: str, resume: bool, **choices: Any
) -> None:
    """Train an autoencoder on the good images of DATA.

    DATA is a folder with train/good in it, or a flat folder of good images. RUN gets weights.safetensors, config.json,
    log.jsonl, preview.png and a checkpoint. Ctrl-C saves the run, and --resume continues it to the same result.

    \b
    Example:
      onspect train parts/ -m cae -o run/
      onspect train --resume -o run/
    """
    from onspect.training import launcher

    if resume:
        _refuse_choices()
    elif data is None:
        raise click.UsageError("give DATA, the folder of images, or --resume")
    with usage_errors(), launcher.membership():
        if launcher.start_is_due(devices):
            launcher.train_together(click.get_current_context().meta["onspect.arguments"], devices, run)
        else:
            _train(None if resume else data, run, (device, devices, precision), choices)


def _train(data: Path | None, run: Path, places: tuple[str, int, str], choices: dict[str, Any]) -> None:
    """Train on data in this process; with None, resume the run."""
    from onspect.training import session

    channels = choices.pop("channels")
    with usage_errors():
        region = read_region_options(*(choices.pop(name) for name in ("roi", "align", "max_turn", "max_scale")))
        if region is not None and region.mask is not None:
            raise ChoiceError(
                f"the region's file names the mask {str(region.mask)!r}, which goes in at export: remove it from the "
                "file, and give it to 'onspect export' as --mask"
            )
    devices = session.Devices(*places)
    with _Watch() as watch:
        callbacks = session.Callbacks(reading=progress, planned=watch.planned, step=watch.step)
        if data is None:
            outcome = session.resume(run, devices=devices, callbacks=callbacks)
        else:
            depth = None if channels is None else int(channels)
            options = session.TrainOptions(channels=depth, region=region, **choices)
            outcome = session.train(data, run, options, devices=devices, callbacks=callbacks)
    if watch.is_first:
        _report(outcome, run)


_LOG = logging.getLogger("onspect")


def _refuse_choices() -> None:
    """With --resume, refuse options that would change the run."""
    context = click.get_current_context()
    allowed = {"run", "resume", "device", "devices", "precision", "quiet", "verbose", "debug", "no_color"}
    given = [
        "DATA" if isinstance(parameter, click.Argument) else max(parameter.opts, key=len)
        for parameter in context.command.params
        if parameter.name is not None
        and parameter.name not in allowed
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"--resume uses the options of the run; leave out {', '.join(given)}")


class _Watch:
    """Prints the configuration; on a terminal, also a progress bar with loss and remaining time."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Any = None
        self._words = ""
        self._epoch = 0
        self._lines = ProgressLines()
        self.is_first = False  # True in the process that gets the configuration

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def planned(self, record: RunRecord) -> None:
        from onspect.training.summary import describe

        self.is_first = True
        say(describe(record))

    def step(self, moment: TrainingProgress) -> None:
        if not shows_progress():
            self._log(moment)
            if self._lines.are_due():
                say(f"training: epoch {moment.epoch} of {moment.epochs}, loss {moment.loss:.5f}")
            return
        self._words = f"epoch {moment.epoch}/{moment.epochs}, loss {moment.loss:.5f}"
        if moment.held_out is not None:
            self._words += f", held out {moment.held_out:.5f}"
        if self._bar is None:
            self._bar = self._stack.enter_context(
                click.progressbar(
                    length=moment.steps - moment.step + 1,  # of a resumed run, its own steps only
                    label="training",
                    width=0,  # fit the terminal: a wrapped line would be printed again with every step
                    file=sys.stderr,
                    item_show_func=lambda _: self._words,
                )
            )
        self._bar.update(1, moment)

    def _log(self, moment: TrainingProgress) -> None:
        """Log each epoch if there is no bar, for -v."""
        if moment.epoch > self._epoch:
            if moment.held_out is not None:
                _LOG.info("epoch %d/%d: held out %.6f", moment.epoch - 1, moment.epochs, moment.held_out)
            self._epoch = moment.epoch


def _report(outcome: Outcome, run: Path) -> None:
    if outcome.reason == "interrupted":
        raise TrainingError(f"interrupted and saved; continue with: onspect train --resume -o {shlex.quote(str(run))}")
    error = "best held-out error" if outcome.held_out else "training error"
    model = f"{run.absolute().name or 'part'}.onnx"
    say(
        f"{outcome.reason} after {count_of(outcome.epoch, 'epoch')}, {outcome.seconds:.0f} s; {error} "
        f"{outcome.best_loss:.6f} in epoch {outcome.best_epoch}; see {run / 'preview.png'}\n"
        f"next: {shlex.join(['onspect', 'export', str(run), '-o', model])}"
    )


@click.command(cls=Command)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The base file, ending in .onnx.")
@click.option(
    "--backbone",
    metavar="NAME",
    default="efficientnet-lite0",
    show_default=True,
    help="The pretrained network: efficientnet-lite0, an ONNX file with the outputs stride8, stride16 and stride32, or "
    "timm:MODEL where timm is installed.",
)
def backbone(output: Path, backbone: str) -> None:
    """Make the base file that lets a device without PyTorch teach: a pretrained network with an empty memory.

    The weights come from an installed package; nothing is downloaded.

    \b
    Example:
      onspect backbone -o base.onnx
      onspect teach good/ --base base.onnx -o part.onnx
    """
    if output.suffix.lower() != ".onnx":
        raise OutputError(f"the base file {str(output)!r} must end in .onnx")
    from onspect.training.features import make_base

    with usage_errors():
        content = make_base(backbone)
    write_together({output: content})
    say(f"wrote {output} ({output.stat().st_size / 1e6:.1f} MB)")
    say(f"next: onspect teach GOOD --base {output} -o part.onnx")
