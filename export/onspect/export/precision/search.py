"""Write a model file in a lower precision if its verdicts agree: the interface of ``export --int8`` and ``--fp16``."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onspect.calibration.calibration import calibrate
from onspect.calibration.regions import RegionDemand
from onspect.calibration.scores import fingerprint_or_none
from onspect.calibration.thresholds import default_policy
from onspect.export.agreement import (
    Reference,
    allowed_flips,
    compare,
    compare_thresholds,
    describe_flips,
    find_reference,
    score_like,
)
from onspect.export.precision import memory
from onspect.export.precision.float16 import convert_to_float16
from onspect.export.precision.int8 import Quantizer
from onspect.export.precision.weighted_layers import Layer, find_layers
from onspect.export.scores import SCORES
from onspect.runtime.atomic import write_together
from onspect.runtime.conformal import CROSS_CONFORMAL
from onspect.runtime.dataset.folder import labelled_images, training_images
from onspect.runtime.dataset.good_images import stack_images
from onspect.runtime.errors import ChoiceError, DatasetError, ExportError, OutputError
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.inspection.inspector import Inspector
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import ModelFile, check_name, read_model_file, stamp
from onspect.runtime.model.schema import Agreement, ModelInfo
from onspect.runtime.progress import Progress, no_progress
from onspect.training.to_onnx import serialize

T = TypeVar("T")

PRECISIONS = ("int8", "fp16")

_SAMPLES = 128  # number of training images that give the ranges of values
_PROBES = 64  # number of images nearest the threshold that measure each layer's harm
_TIMED_RUNS = 40
_TAUGHT_SHARE = 200  # a taught file may differ in one verdict of this many images


@dataclass(frozen=True)
class LayerChoice:
    """A layer, and whether it is in the lower precision."""

    layer: Layer
    """The layer."""
    harm: float
    """Shift of the scores with this layer alone quantised, as `Agreement.shift`; NaN for fp16 and for taught files."""
    reduced: bool
    """Whether the layer is in the lower precision."""


@dataclass(frozen=True)
class Quantized:
    """Result of a quantisation."""

    path: Path
    """The file that was written."""
    info: ModelInfo
    """Its metadata."""
    layers: tuple[LayerChoice, ...]
    """All layers, in the order of the graph."""
    agreement: Agreement
    """Agreement of its verdicts with those of the float32 file."""
    speed: float
    """Speed relative to the float32 file, for one image and one thread on this CPU; above 1 is faster."""

    @property
    def share(self) -> float:
        """The share of the layers' weights that is in the lower precision, 0 to 1."""
        reduced = sum(choice.layer.weights for choice in self.layers if choice.reduced)
        return reduced / sum(choice.layer.weights for choice in self.layers)


def quantize(
    source: str | Path,
    output: str | Path,
    precision: str,
    data: str | Path,
    *,
    max_flips: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Write a float32 model file in a lower precision. If too many verdicts differ, no file is written.

    The new file's threshold is chosen from its own scores by the policy of the source. If the source has no threshold,
    the new file has none. The memory of a taught file is fitted again to the int8 features.

    Parameters
    ----------
    source
        The float32 model file.
    output
        The model file to write, ending in ``.onnx``.
    precision
        ``int8`` or ``fp16``.
    data
        Dataset folder on whose ``val`` the source was calibrated. For int8, its ``train/good`` gives the ranges of
        values; for a taught file it must have all pictures that were taught.
    max_flips
        Number of verdicts that may differ; None for 0.2% of the images, rounded down, or 0.5% for a taught file.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    Quantized
        The file, the precision of each layer and the agreement of verdicts.

    Raises
    ------
    ExportError
        If more verdicts differ.
    DatasetError
        If the images cannot be used, or are not those of the source's calibration.
    ModelFileError
        If the source cannot be used.
    OutputError
        If the output cannot be written.
    """
    output, data = Path(output), Path(data)
    file = read_model_file(Path(source))
    if file.info.memory is not None:  # the memory is fitted again, and layers are not measured one by one
        return _quantize_taught(file, output, precision, data, max_flips, progress or no_progress)
    samples = read_samples(file, data) if precision == "int8" else np.empty((0,), np.uint8)
    return quantize_model(file, output, precision, data, samples, max_flips=max_flips, progress=progress)


Smaller = tuple[bytes, tuple[LayerChoice, ...], ModelInfo]
"""A smaller graph, what became of its layers, and what its file says unless its threshold is chosen again."""


def _quantize_taught(
    file: ModelFile, output: Path, precision: str, data: Path, max_flips: int | None, progress: Progress
) -> Quantized:
    """Write a taught file with a smaller backbone."""
    _check(file, output, precision)
    old = file.info.calibration
    by_teaching = old is not None and CROSS_CONFORMAL in old.policy
    reference = _reference_of_taught(file, data) if by_teaching else find_reference(file, data)
    allowed = len(reference.images) // _TAUGHT_SHARE if max_flips is None else max_flips
    tries = _try_backbones(_read_graph(file), file, precision, data, progress)
    return _write_smaller(tries, file, output, precision, data, reference, allowed, by_teaching=by_teaching)


def _try_backbones(
    model: onnx.ModelProto, file: ModelFile, precision: str, data: Path, progress: Progress
) -> Generator[Smaller]:
    """Yield the float16 graph, or int8 graphs with fewer and fewer layers, each with a memory of its own features."""
    layers = memory.find_backbone(model.graph)
    if precision == "fp16":
        yield _serialize(memory.store_float16(model)), _list_choices(layers, layers), file.info
        return
    pictures = memory.read_pictures(file, data)
    quantizer = Quantizer(model, pictures.images[:: -(-len(pictures.images) // _SAMPLES)], layers, outputs=False)
    sets = list(memory.choices(layers))
    for reduced in progress(sets, len(sets), "quantising and teaching again"):
        graph, fitted = memory.fit_again(file, memory.quantize_backbone(quantizer, reduced), pictures)
        yield graph, _list_choices(layers, reduced), memory.describe_again(file.info, pictures, fitted)


def _list_choices(layers: Sequence[Layer], reduced: Sequence[Layer]) -> tuple[LayerChoice, ...]:
    return tuple(LayerChoice(layer, np.nan, reduced=layer in reduced) for layer in layers)


def _write_smaller(
    tries: Generator[Smaller],
    file: ModelFile,
    output: Path,
    precision: str,
    data: Path,
    reference: Reference,
    allowed: int,
    *,
    by_teaching: bool = False,
) -> Quantized:
    """Write the first small form with few enough different verdicts; raises ExportError if there is none.

    Its threshold is that of the new memory with by_teaching; else it is chosen again, if the file has one.
    """
    tried = []
    with closing(tries):  # ends its progress bar
        for smaller in tries:
            graph, layers, info = smaller
            scores = score_like(reference, file, graph)
            if by_teaching and info.threshold is not None and np.isfinite(scores).all():
                policy = "" if info.calibration is None else info.calibration.policy
                agreement = compare_thresholds(reference, scores, info.threshold, policy)
            else:
                agreement = compare(reference, scores)
            if agreement.flips <= allowed:
                break
            tried.append(agreement)
        else:
            raise describe_flips(min(tried, key=lambda agreement: agreement.flips), allowed)
    info = _describe(info, output.stem, precision, layers, agreement)
    if not by_teaching:
        info = dataclasses.replace(info, threshold=None, calibration=None, history=())
    content = stamp(graph, info, file.training_images, file.looks)
    if file.info.threshold is not None and not by_teaching:
        content = _recalibrate(content, file, data, reference)
    write_together({output: content})
    written = read_model_file(output)
    return Quantized(output, written.info, layers, agreement, _measure_speed(file, written))


def _reference_of_taught(file: ModelFile, data: Path) -> Reference:
    """Return labelled images with their scores and the threshold that teaching chose from the good pictures."""
    assert file.info.threshold is not None
    images = labelled_images(data, "val")
    label = f"{file.info.name}@{file.sha256[:12]}"
    policy = default_policy(sum(image.defective for image in images))
    empty = Reference(label, tuple(images), np.zeros(0), policy, None, file.info.threshold)
    scores = score_like(empty, file, file.data)
    if not np.isfinite(scores).all():
        path = images[int(np.argmin(np.isfinite(scores)))].path
        raise DatasetError(f"cannot compare on {str(path)!r}, which the model cannot judge; remove or replace it")
    return dataclasses.replace(empty, scores=scores)


def read_samples(file: ModelFile, data: Path) -> NDArray[np.uint8]:
    """Return up to 128 of the images that a file was trained on, evenly spaced, as the graph takes them.

    Parameters
    ----------
    file
        The model file.
    data
        Dataset folder with these images in its ``train/good``.

    Returns
    -------
    NDArray[np.uint8]
        The images, as `stack_images` returns them.

    Raises
    ------
    DatasetError
        If the folder has no training image of the file.
    """
    known = [path for path in training_images(data) if fingerprint_or_none(path) in file.training_images]
    if not known:
        raise DatasetError(
            f"{str(data)!r} contains no training image of {str(file.path)!r}, and int8 measures the range of each "
            f"layer on those; give the dataset that it was trained on, with its train/good"
        )
    chosen = known[:: -(-len(known) // _SAMPLES)]
    return stack_images([prepare(read_image(path), file.info.preprocess) for path in chosen])


def quantize_model(
    file: ModelFile,
    output: Path,
    precision: str,
    data: Path,
    samples: NDArray[np.uint8],
    *,
    max_flips: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Write a model file in memory in a lower precision, as `quantize` does.

    Parameters
    ----------
    file
        The float32 model file.
    output, precision, data, max_flips, progress
        As in `quantize`.
    samples
        Images that the file was trained on, uint8 [n, height, width, channels]; only int8 needs them.

    Returns
    -------
    Quantized
        The file, the precision of each layer and the agreement of verdicts.

    Raises
    ------
    ExportError
        If more verdicts differ, or the graph has no layer to quantise.
    DatasetError
        If the images cannot be used, or are not those of the file's calibration.
    OutputError
        If the output cannot be written.
    """
    _check(file, output, precision)
    reference = find_reference(file, data)
    allowed = allowed_flips(len(reference.images), precision, max_flips)
    model = _read_graph(file)
    if not find_layers(model.graph):
        raise ExportError(f"the graph of {str(file.path)!r} has no layer whose precision could be lowered; keep it")
    tries = _try_networks(model, file, precision, samples, reference, progress or no_progress)
    return _write_smaller(tries, file, output, precision, data, reference, allowed)


def _read_graph(file: ModelFile) -> onnx.ModelProto:
    model = onnx.load_from_string(file.data)
    del model.metadata_props[:]
    return model


def _check(file: ModelFile, output: Path, precision: str) -> None:
    if precision not in PRECISIONS:
        raise ChoiceError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if file.info.provenance.precision != "fp32":
        raise ExportError(
            f"{str(file.path)!r} is already in {file.info.provenance.precision}; give the float32 file that it was "
            f"made from"
        )
    spec = SCORES.get(file.info.score.name)
    if spec is None or not spec.quantizes:
        raise ExportError(
            f"{str(file.path)!r} has the score {file.info.score.name!r}, whose layers this release does not convert; "
            "convert it with the release that made it, or train again"
        )
    check_name(output)
    if output.exists() and file.path.exists() and output.samefile(file.path):
        raise OutputError(f"{str(output)!r} is the file to be converted; give another name with -o")


def _try_networks(
    model: onnx.ModelProto,
    file: ModelFile,
    precision: str,
    samples: NDArray[np.uint8],
    reference: Reference,
    progress: Progress,
) -> Generator[Smaller]:
    """Yield the float16 graph; or in int8 all layers, then all but the most harmful, all but the two, and so on."""
    if precision == "fp16":
        layers = find_layers(model.graph)
        yield _serialize(convert_to_float16(model)), _list_choices(layers, layers), file.info
        return
    quantizer = Quantizer(model, samples)
    harms = _measure_harms(quantizer, file, reference, progress)
    ranked = sorted(quantizer.layers, key=lambda layer: harms[layer])
    for count in progress(range(len(ranked), 0, -1), len(ranked), "searching the layers"):
        kept = ranked[:count]
        layer_choices = tuple(LayerChoice(layer, harms[layer], layer in kept) for layer in quantizer.layers)
        yield _serialize(quantizer.quantize(kept)), layer_choices, file.info


def _measure_harms(
    quantizer: Quantizer, file: ModelFile, reference: Reference, progress: Progress
) -> dict[Layer, float]:
    """Return for each layer the shift of the scores nearest the threshold with this layer alone quantised."""
    nearest = np.sort(np.argsort(np.abs(reference.scores - reference.threshold.score), kind="stable")[:_PROBES])
    probes = dataclasses.replace(
        reference, images=tuple(reference.images[index] for index in nearest), scores=reference.scores[nearest]
    )
    spread = float(reference.scores.std()) or 1.0
    harms = {}
    for layer in progress(quantizer.layers, len(quantizer.layers), "measuring the layers"):
        scores = score_like(probes, file, _serialize(quantizer.quantize([layer])))
        harm = float(np.sqrt(np.mean((scores - probes.scores) ** 2))) / spread
        harms[layer] = harm if np.isfinite(harm) else np.inf
    return harms


def _serialize(model: onnx.ModelProto) -> bytes:
    model.producer_name, model.producer_version = "onspect", ""
    return serialize(model, "the converted graph is not valid ONNX")


def _recalibrate(content: bytes, file: ModelFile, data: Path, reference: Reference) -> bytes:
    """Return a model file's bytes with a threshold from its own scores, by the policy of the source."""
    old = file.info.calibration
    assert old is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, file.path.name)
        path.write_bytes(content)
        calibrate(
            path,
            data,
            policy=reference.policy,
            band=reference.band,
            regions=RegionDemand(old.map_rule, old.area_rule),
            training="allow" if old.training_images else "skip",
        )
        return path.read_bytes()


def _describe(
    info: ModelInfo, name: str, precision: str, layers: Sequence[LayerChoice], agreement: Agreement
) -> ModelInfo:
    versions = info.provenance.versions | {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    provenance = dataclasses.replace(
        info.provenance,
        versions=versions,
        exported=now(),
        precision=precision,
        reduced_layers=tuple(choice.layer.name for choice in layers if choice.reduced),
        float_layers=tuple(choice.layer.name for choice in layers if not choice.reduced),
        agreement=agreement,
    )
    return dataclasses.replace(info, name=name, provenance=provenance)


def _measure_speed(file: ModelFile, reduced: ModelFile) -> float:
    """Return the ratio of the median processor times of a run of one image, taken in turns."""
    preprocess = file.info.preprocess
    image = np.random.default_rng(0).integers(
        0, 256, (1, preprocess.height, preprocess.width, preprocess.channels), np.uint8
    )
    inspectors = [Inspector(model, provider="cpu") for model in (file, reduced)]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TIMED_RUNS):
        for inspector, found in zip(inspectors, times, strict=True):
            started = time.thread_time()  # processor time does not depend on other processes
            inspector.infer(image)
            found.append(time.thread_time() - started)
    before, after = (statistics.median(found[5:]) for found in times)
    return before / max(after, 1e-9)  # the clock may be too coarse for a tiny model
