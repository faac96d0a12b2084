"""The command teach: a finished model file from good pictures, on a workstation or on the device."""

from __future__ import annotations

import functools
import importlib.util
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onspect.runtime.cli.base import PictureCommand, parse_rate, progress, say, usage_errors, wrap
from onspect.runtime.cli.options import white_level_option
from onspect.runtime.cli.region_options import read_region_options, region_options
from onspect.runtime.text import count_of

if TYPE_CHECKING:
    from onspect.runtime.teaching import Taught
    from onspect.runtime.teaching.base_file import BaseFile

_LOG = logging.getLogger("onspect")

_NO_FILE = "?"  # value of --undo without a file


def _read_size(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise click.BadParameter(f"{text!r} is not a size such as 256x192", context, option)
    return int(width), int(height)


@click.command(cls=PictureCommand)
@click.argument("good", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The model file to make, ending in .onnx.")
@click.option(
    "--base",
    type=click.Path(path_type=Path),
    help="The base file that 'onspect backbone' made; without it one is made, which needs the extra train.",
)
@click.option("--add-to", type=click.Path(path_type=Path), help="Teach this model file more good pictures.")
@click.option(
    "--undo",
    is_flag=False,
    flag_value=_NO_FILE,
    type=click.Path(path_type=Path),
    help="Undo the last addition to this model file.",
)
@click.option(
    "--size",
    metavar="WXH",
    callback=_read_size,
    help="Working size in pixels, multiples of 32 [default: the pictures' shape].",
)
@click.option("--channels", type=click.Choice(["1", "3"]), help="1 mono, 3 colour [default: as the pictures are].")
@white_level_option
@click.option("--any-size", is_flag=True, help="The model accepts frames of any size.")
@click.option("--mask", type=click.Path(path_type=Path), help="A black-and-white picture; black areas are ignored.")
@region_options
@click.option(
    "--whole/--places", "by_whole", default=None, help="Judge whole images, or their places [default: places]."
)
@click.option(
    "--copies",
    type=click.Choice(["auto", "none", "flips", "turns"]),
    default="auto",
    show_default=True,
    help="Changed copies of the pictures to teach as well; auto tests whether parts are turned.",
)
@click.option("--group", metavar="REGEX", help="Pictures of one part, by their names, such as '^(part\\d+)_'.")
@click.option(
    "--max-fpr",
    "rate",
    metavar="RATE",
    callback=functools.partial(parse_rate, no_limit=(0, 1)),
    help="Share of good parts that may be rejected [default: 1%].",
)
@click.option("--strict", is_flag=True, help="Refuse pictures whose score is an outlier.")
@click.option("--trim", is_flag=True, help="Leave out pictures whose score is an outlier.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same file."
)
def teach(
    good: Path | None,
    output: Path | None,
    base: Path | None,
    add_to: Path | None,
    undo: Path | None,
    channels: str | None,
    roi: tuple[str, ...],
    align: bool,
    max_turn: float | None,
    max_scale: float | None,
    group: str | None,
    rate: float | None,
    strict: bool,
    trim: bool,
    **of_new_file: Any,
) -> None:
    """Make a finished model file from GOOD, a folder with pictures of good parts.

    Ten pictures are enough to begin with. The file has a memory of the good parts, in features of a pretrained network,
    and a threshold from the same pictures: each is judged by a memory without it. Nothing is trained.

    On a device without PyTorch, give the base file that 'onspect backbone' made on the workstation.

    \b
    Example:
      onspect teach parts/train/good -o part.onnx
      onspect teach good/ --base base.onnx -o part.onnx
      onspect teach good/ --roi 160,80,320,320 --align -o part.onnx
      onspect teach more_good/ --add-to part.onnx
      onspect teach --undo part.onnx
    """
    _check_usage(good, output, base, add_to, undo, group)
    from onspect.runtime.teaching import add, take_back
    from onspect.runtime.teaching import teach as teach_new

    with usage_errors():
        if undo is not None:
            taught = take_back(undo)
            say(f"{undo} is back at {_count(taught)} good pictures and the threshold {_cut(taught)}")
            return
        assert good is not None
        if add_to is not None:
            taught = add(add_to, good, group=group, rate=rate, strict=strict, trim=trim, progress=progress)
            say(f"taught {count_of(taught.pictures, 'more good picture')}; {add_to} has {_count(taught)}")
            if taught.refused_threshold is not None:
                stays = (
                    f"the threshold stays: chosen from all pictures it would be {taught.refused_threshold:.4g}, and "
                    "might let defects pass; --max-fpr chooses it from all of them"
                )
                say(wrap(stays, err=True))
        else:
            assert output is not None
            taught = teach_new(
                good,
                output,
                base=_make_base() if base is None else base,
                channels=None if channels is None else int(channels),
                region=read_region_options(roi, align, max_turn, max_scale),
                group=group,
                rate=rate,
                strict=strict,
                trim=trim,
                progress=progress,
                **of_new_file,
            )
            _describe_new(taught)
    _warn_of_lone(taught)
    support = taught.describe_support()
    say(wrap(f"threshold {_cut(taught)}: {support}" if taught.promises else support, err=True))
    if add_to is not None:
        say(f"'onspect teach --undo {add_to}' undoes it")
    else:
        assert output is not None
        assert good is not None
        say(f"next: {_suggest(output, good, group)}")


def _suggest(output: Path, good: Path, group: str | None) -> str:
    """Return the next command: measure the file if the dataset has a test split, else use the file."""
    from onspect.runtime.dataset.folder import has_split

    model = shlex.quote(str(output))
    folder = good.absolute().parent.parent
    if good.absolute().parent.name == "train" and has_split(folder, "test"):
        if importlib.util.find_spec("sklearn") is None:
            return f"onspect score {model} {shlex.quote(str(good.parent.parent / 'test'))} -o verdicts.jsonl"
        by_part = "" if group is None else f" --group {shlex.quote(group)}"
        return f"onspect evaluate {model} {shlex.quote(str(good.parent.parent))}{by_part} -o report"
    return f"onspect score {model} IMAGES, or onspect run {model} SOURCE"


def _check_usage(
    good: Path | None, output: Path | None, base: Path | None, add_to: Path | None, undo: Path | None, group: str | None
) -> None:
    if undo is not None:
        others = (good, output, base, add_to, group)
        if str(undo) == _NO_FILE or any(other is not None for other in others):
            file = next((str(path) for path in (undo, add_to) if path and str(path) != _NO_FILE), "part.onnx")
            raise click.UsageError(
                f"--undo takes the model file and no other option: onspect teach --undo {shlex.quote(file)}"
            )
        return
    if good is None:
        raise click.UsageError("give GOOD, a folder with pictures of good parts")
    if (output is None) == (add_to is None):
        raise click.UsageError("give either -o, the file to make, or --add-to, the file to teach more")
    if add_to is not None and base is not None:
        raise click.UsageError("--base is for a new file; --add-to uses the network that is in the file")


def _make_base() -> BaseFile:
    """Return a base file that is made here; raise ModuleNotFoundError without the extra train."""
    from onspect.runtime.teaching.base_file import parse_base_file

    # imported by name: the runtime imports no other part
    features = importlib.import_module("onspect.training.features")
    say("making the base file; 'onspect backbone -o base.onnx' keeps one for --base")
    return parse_base_file(Path("base.onnx"), features.make_base())


def _describe_new(taught: Taught) -> None:
    info, memory = taught.info, taught.info.memory
    assert memory is not None
    preprocess = info.preprocess
    say(
        f"taught {taught.pictures} good pictures at "
        + ("their own aspect ratios, about " if preprocess.keep_aspect else "")
        + f"{preprocess.width}x{preprocess.height} pixels"
        + (f", with {memory.copies} of each" if memory.copies != "none" else "")
    )
    if preprocess.region is not None:
        say(f"region {preprocess.region.describe()}")
    if preprocess.align is not None:
        say(f"aligned {preprocess.align.describe()}")
    say(f"wrote {taught.path} ({taught.path.stat().st_size / 1e6:.1f} MB)")


def _warn_of_lone(taught: Taught) -> None:
    for item in taught.trimmed:
        words = "%r is left out: its score, %.4g, is an outlier among the good pictures"
        _LOG.warning(words, str(item.path), item.score)
    for item in taught.lone:
        words = (
            "the score of %r, %.4g, is an outlier among the good pictures: without it the threshold is %.4g. Look at "
            "it, remove it if the part is defective, and teach again; --trim leaves it out"
        )
        _LOG.warning(words, str(item.path), item.score, item.threshold)


def _count(taught: Taught) -> int:
    return 0 if taught.info.memory is None else taught.info.memory.pictures


def _cut(taught: Taught) -> str:
    return "none" if taught.info.threshold is None else f"{taught.info.threshold.score:.4g}"
