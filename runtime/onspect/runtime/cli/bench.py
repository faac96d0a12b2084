"""``onspect bench``: time and memory of a model on this machine."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click

from onspect.runtime.cli.base import PictureCommand, parse_rate, progress, say, usage_errors


@click.command(cls=PictureCommand)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option("--compare", type=click.Path(path_type=Path), metavar="OTHER", help="Another model file, taken in turns.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0.1, max=1000.0),
    default=30.0,
    show_default=True,
    help="Frames a second of the camera for which the load on the processor is measured.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 60.0),
    default=0.5,
    show_default=True,
    help="Length of a measurement; there are some dozens. A longer one varies less.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a picture (SVG) here.")
@click.option(
    "--margin",
    metavar="SHARE",
    callback=functools.partial(parse_rate, no_limit=(0, 1)),
    help="Measure how far bfloat16 moves the scores of this share of IMAGES, such as 90%, and write it into MODEL for "
    "the provider openvino-bf16; nothing else is measured.",
)
def bench(
    model: Path,
    images: tuple[str, ...],
    compare: Path | None,
    rate: float,
    seconds: float,
    json_file: Path | None,
    plot: Path | None,
    margin: float | None,
) -> None:
    """Measure what the calibrated MODEL costs on this machine, on your IMAGES or on drawn ones.

    IMAGES are given as for 'onspect score'; up to 128 of them are used. The command measures the stages from file to
    verdict, images per second and latency by threads and batch, and the load at a camera's rate. It also measures the
    time from process start to the first verdict, the memory, and how busy other programs kept the machine. Takes about
    a minute for a model on two cores.

    \b
    Example:
      onspect bench part.onnx parts/test --plot bench.svg
      onspect bench part.onnx --compare part-int8.onnx
      onspect bench part.onnx parts/train/good --margin 90%
    """
    from onspect.runtime.atomic import write_together
    from onspect.runtime.bench.plot import draw_bench
    from onspect.runtime.bench.run import run_bench
    from onspect.runtime.bench.tables import describe_bench
    from onspect.runtime.cli.images import expand_images

    models = [model] if compare is None else [model, compare]
    with usage_errors():
        paths = [Path(image) for image in expand_images(images)]
    if margin is not None:
        if compare or json_file or plot:
            raise click.UsageError("--margin writes into MODEL and measures nothing else; leave the other options out")
        from onspect.runtime.bench.margin import measure_margin
        from onspect.runtime.model.card import describe_margin

        say(f"bfloat16 {describe_margin(measure_margin(model, paths, margin, progress=progress))}")
        say(f"{model} runs with --provider openvino-bf16 now")
        return
    found = run_bench(models, paths, rate=rate, seconds=seconds, progress=progress)
    click.echo(describe_bench(found))
    texts = ((json_file, json.dumps(found.to_dict(), indent=1) + "\n"), (plot, draw_bench(found)))
    files = {path: text.encode() for path, text in texts if path is not None}
    write_together(files)
    for path in files:
        say(f"wrote {path}")
