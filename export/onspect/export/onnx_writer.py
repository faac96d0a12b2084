"""Export of a trained run as one checked ONNX model file; the Python interface of ``onspect export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onspect.calibration.scores import find_images
from onspect.export.agreement import allowed_flips, compare, describe_flips, make_reference
from onspect.export.features import convert_features, design_features
from onspect.export.fitted_scores import fit_measures
from onspect.export.graph import InspectionGraph, fit_normal_error
from onspect.export.layers import FillIgnored, to_planes
from onspect.export.memory import add_memory
from onspect.export.parity import Parity, check_parity
from onspect.export.precision.search import Quantized, quantize_model
from onspect.export.scores import MEMORY, SCORES, ScoreSpec, choose_score, find_score, own_score
from onspect.runtime.atomic import write_atomically, write_together
from onspect.runtime.dataset.folder import LabelledImage
from onspect.runtime.errors import ChoiceError, DatasetError, ImageError
from onspect.runtime.fingerprints import fingerprint_set
from onspect.runtime.images.decode import read_image
from onspect.runtime.images.preprocess import prepare
from onspect.runtime.images.region import RegionFile
from onspect.runtime.images.roi_mask import read_inspected
from onspect.runtime.inspection.verdict import now
from onspect.runtime.model.file import check_name, parse_model_file, stamp
from onspect.runtime.model.schema import Agreement, ModelInfo, Network, Preprocess, Provenance, Score, Tiling
from onspect.runtime.progress import Progress
from onspect.training.autoencoder.networks import Decoder, Encoder, count_parameters
from onspect.training.checkpoint import TrainedModel, load_trained
from onspect.training.datasets import TrainingSet
from onspect.training.session import read_training_set, split_as_recorded
from onspect.training.tiles import Cut, Stitching
from onspect.training.to_onnx import convert


@dataclass(frozen=True)
class Exported:
    """Result of an export."""

    paths: tuple[Path, ...]
    """The files that were written, the model file first."""
    info: ModelInfo
    """Metadata of the model file."""
    parity: Parity
    """Agreement of the file's scores with those of the trained model."""


@dataclass(frozen=True)
class Built:
    """A model file in memory whose scores agree with those of its trained model."""

    content: bytes
    """The model file."""
    info: ModelInfo
    """Its metadata."""
    parity: Parity
    """Agreement of its scores with those of the trained model."""


def export(
    run: str | Path,
    output: str | Path,
    *,
    score: str | None = None,
    parts: bool = False,
    data: str | Path | None = None,
    max_flips: int | None = None,
    mask: str | Path | None = None,
    region: RegionFile | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write a run's best weights as an uncalibrated model file. If a check fails, no file is written.

    The file's scores are compared with the trained model's on the run's sample images. A memory and fitted scores are
    fitted to the images that the run was trained on. Those are read again from where they were.

    Parameters
    ----------
    run
        Folder of the run.
    output
        The model file to write, ending in ``.onnx``.
    score
        A name in `SCORES`; None for ``memory``, or ``features`` for a run on features. With ``memory``, score and error
        map come from a memory of the good images, and the autoencoder gives reconstruction and latent vector.
    parts
        Also write the encoder (image to latent) and the decoder (latent to reconstruction) as separate files.
    data
        Dataset folder. The images of its ``val`` join the comparison, and their verdicts are compared too. None for
        neither.
    max_flips
        Number of these verdicts that may differ; None for 0.
    mask
        Black-and-white image of the inspected places, white is inspected; it becomes part of the graph.
    region
        The same by shapes, for a run on whole frames. A run that was trained on a region has it already.
    progress
        Wraps long work, for a progress bar.

    Returns
    -------
    Exported
        The files, their metadata and the agreement of scores.

    Raises
    ------
    TrainingError
        If `run` is not a run.
    ExportError
        If the file does not compute the same as the model.
    OutputError
        If the file cannot be written.
    DatasetError
        If images cannot be used.
    ChoiceError
        If the score is unknown, or the mask cannot be used, with this score or at all.
    """
    run, output = Path(run), Path(output)
    check_name(output)
    model = load_trained(run)
    if parts and model.extractor is not None:
        raise ChoiceError("--parts is for autoencoders of pixels; leave it out for an autoencoder of features")
    spec = choose_score(score, model.record.config)
    inspected = _read_mask(mask, region, model, spec)
    images = _read_images(model, run, spec, progress)
    data = None if data is None else Path(data)
    built = _build(model, output.stem, spec, images, inspected, data=data, max_flips=max_flips, progress=progress)
    files = {output: built.content}
    if parts:
        files |= _convert_parts(model, output, inspected)
    write_together(files)
    return Exported(tuple(files), built.info, built.parity)


def export_quantized(
    run: str | Path,
    output: str | Path,
    precision: str,
    data: str | Path,
    *,
    score: str | None = None,
    max_flips: int | None = None,
    mask: str | Path | None = None,
    region: RegionFile | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Write a run's best weights as an uncalibrated model file in a lower precision, as `quantize` does.

    The float32 file for comparison is made in memory, and must agree with the trained model as in `export`.

    Parameters
    ----------
    run
        Folder of the run.
    output
        The model file to write, ending in ``.onnx``.
    precision
        ``int8`` or ``fp16``.
    data
        Dataset folder; its ``val`` has the labelled images whose verdicts are compared.
    score
        A name in `SCORES` other than ``memory``; None for the autoencoder's own score.
    max_flips
        Number of verdicts that may differ; None for 0.2% of the images, rounded down.
    mask, region, progress
        As in `export`.

    Returns
    -------
    Quantized
        The file, the precision of each layer and the agreement of verdicts.

    Raises
    ------
    TrainingError
        If `run` is not a run.
    ExportError
        If more verdicts differ, or the float32 file does not compute the same as the model.
    OutputError
        If the file cannot be written.
    DatasetError
        If images cannot be used.
    ChoiceError
        If the score is unknown or not available in this precision, or the mask cannot be used.
    """
    run, output = Path(run), Path(output)
    check_name(output)
    model = load_trained(run)
    spec = own_score(model.record.config) if score is None else choose_score(score, model.record.config)
    inspected = _read_mask(mask, region, model, spec)
    images = _read_images(model, run, spec, progress)
    built = _build(model, output.stem, spec, images, inspected, progress=progress)
    file, samples = parse_model_file(output, built.content), model.samples.numpy()
    return quantize_model(file, output, precision, Path(data), samples, max_flips=max_flips, progress=progress)


def export_scores(run: Path, outputs: Mapping[str, Path], images: TrainingSet) -> None:
    """Write a run's best weights as one model file for each score.

    Parameters
    ----------
    run
        Folder of the run.
    outputs
        Path of the file for each score.
    images
        All good images of the run's dataset; fitted scores are fitted to those of the run.

    Raises
    ------
    ChoiceError
        If the run does not have a score.
    TrainingError
        If `run` is not a run, or images of it are missing.
    ExportError
        If a file does not compute the same as the model.
    OutputError
        If a file cannot be written.
    """
    model = load_trained(run)
    for score in outputs:
        find_score(score).check(model.record.config)
    split = split_as_recorded(images, run, model.record)
    fitted = [score for score in outputs if SCORES[score].is_fitted]
    measures = fit_measures(model, fitted, *split) if fitted else {}
    for score, output in outputs.items():
        check_name(output)
        write_atomically(output, _build(model, output.stem, SCORES[score], split, measure=measures.get(score)).content)


Images = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Training and held-out images of a run, uint8 [n, height, width, channels]."""


def _read_images(model: TrainedModel, run: Path, spec: ScoreSpec, progress: Progress | None) -> Images | None:
    """Read the images that a run was trained on, if the score needs them."""
    if not spec.needs_images:
        return None
    return split_as_recorded(read_training_set(run, model.record, progress), run, model.record)


def _build(
    model: TrainedModel,
    name: str,
    spec: ScoreSpec,
    images: Images | None,
    mask: Tensor | None = None,
    *,
    measure: nn.Module | None = None,
    data: Path | None = None,
    max_flips: int | None = None,
    progress: Progress | None = None,
) -> Built:
    """Make a model file in memory. Its scores agree with those of the trained model, or an ExportError is raised.

    A score that is fitted or has a memory needs `images`; `measure` is its module if that is known. `data` is a dataset
    whose ``val`` joins the comparison.
    """
    if spec.is_fitted and measure is None:
        assert images is not None
        measure = fit_measures(model, [spec.name], *images)[spec.name]
    own = own_score(model.record.config) if spec.name == MEMORY else spec
    graph, definition, content = _convert(model, own, measure, mask)
    labelled = [] if data is None else find_images(data, "val")
    samples = model.samples.numpy()
    checked = np.concatenate([samples, prepare_all(labelled, model.record.data.recipe)]) if labelled else samples
    parity = check_parity(content, graph, checked)
    agreement = None
    if labelled:
        count = len(labelled)
        trained, exported = (scores[-count:].astype(np.float64) for scores in (parity.trained, parity.exported))
        agreement = compare(make_reference("the trained model", labelled, trained, None), exported)
        if agreement.flips > (allowed := allowed_flips(count, "fp32", max_flips)):
            raise describe_flips(agreement, allowed)
    info, known = _describe(model, name, definition, parity, agreement), model.record.data
    if spec.name == MEMORY:
        assert images is not None
        inspected = None if mask is None else mask.numpy()
        content, info = add_memory(content, info, images[0], known.images, mask=inspected, progress=progress)
    return Built(stamp(content, info, known.images, known.looks), info, parity)


def _read_mask(
    mask: str | Path | None, region: RegionFile | None, model: TrainedModel, spec: ScoreSpec
) -> Tensor | None:
    """Return the inspected places of a mask, as `InspectionGraph` takes them; None for all.

    Raises ChoiceError if the run does not have the score, or the score does not work with a mask.
    """
    spec.check(model.record.config, masked=mask is not None)  # checked before a file is read
    inspected = read_inspected(None if mask is None else Path(mask), model.record.data.recipe, region)
    spec.check(model.record.config, masked=inspected is not None)
    return None if inspected is None else torch.from_numpy(inspected)


def _convert(
    model: TrainedModel, spec: ScoreSpec, measure: nn.Module | None, mask: Tensor | None
) -> tuple[nn.Module, Score, bytes]:
    """Return the module from image to score and error map, its score, and its graph as the bytes of an ONNX file."""
    example = model.samples[:2].numpy()
    if model.extractor is not None:
        features, definition = design_features(model)
        return features, definition, convert_features(features, example)
    config, network = model.record.config, model.record.config.network
    definition = spec.define(max(network.height, network.width))
    graph = InspectionGraph(model.encoder, model.decoder, network, definition, measure, mask, config.tiling).eval()
    if spec.is_relative:
        fit_normal_error(graph, model.samples)
    if graph.inspected is not None:
        definition = replace(definition, inspected=graph.inspected.share)
    return graph, definition, convert(graph, example, "image", ["score", "error_map", "reconstruction", "latent"])


def _convert_parts(model: TrainedModel, output: Path, mask: Tensor | None) -> dict[Path, bytes]:
    example = model.samples[:2].numpy()
    tiling = model.record.config.tiling
    encoder = _EncoderGraph(model.encoder, mask, tiling).eval()
    decoder = model.decoder if tiling is None else _DecoderGraph(model.decoder, tiling).eval()
    with torch.no_grad():
        latent = encoder(torch.from_numpy(example))
    return {
        output.with_name(f"{output.stem}.encoder.onnx"): convert(encoder, example, "image", ["latent"]),
        output.with_name(f"{output.stem}.decoder.onnx"): convert(decoder, latent, "latent", ["reconstruction"]),
    }


class _EncoderGraph(nn.Module):
    """The first half of the graph: uint8 image to latent."""

    def __init__(self, encoder: Encoder, mask: Tensor | None, tiling: Tiling | None) -> None:
        super().__init__()
        self.cut = nn.Identity() if tiling is None else Cut(tiling)
        self.tiles = 1 if tiling is None else tiling.count
        self.surroundings = nn.Identity() if mask is None else FillIgnored(mask)
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        codes: Tensor = self.encoder(self.cut(self.surroundings(to_planes(image))))[0]
        return codes if self.tiles == 1 else codes.reshape(-1, self.tiles * codes.shape[1])


class _DecoderGraph(nn.Module):
    """The second half for tiles: from their latent vectors, one after the other, to the image's reconstruction."""

    def __init__(self, decoder: Decoder, tiling: Tiling) -> None:
        super().__init__()
        self.decoder = decoder
        self.stitch = Stitching(tiling)
        self.tiles = tiling.count

    def forward(self, latent: Tensor) -> Tensor:
        reconstruction: Tensor = self.stitch(self.decoder(latent.reshape(-1, latent.shape[1] // self.tiles)))
        return reconstruction


def prepare_all(images: Sequence[LabelledImage], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Read labelled images as a model takes them.

    Parameters
    ----------
    images
        The labelled images.
    preprocess
        How a frame becomes an input of the model.

    Returns
    -------
    NDArray[np.uint8]
        Images [n, height, width, channels], in the order of `images`.

    Raises
    ------
    DatasetError
        If an image cannot be used.
    """
    prepared = []
    for image in images:
        try:
            prepared.append(prepare(read_image(image.path), preprocess))
        except ImageError as error:
            raise DatasetError(f"cannot compare on {str(image.path)!r}: {error}; remove or replace it") from error
    return np.stack(prepared)


def _describe(model: TrainedModel, name: str, score: Score, parity: Parity, agreement: Agreement | None) -> ModelInfo:
    config, data = model.record.config, model.record.data
    network = config.network
    return ModelInfo(
        name=name,
        preprocess=data.recipe,
        network=Network(
            variant=network.variant,
            filters=network.filters,
            strides=network.strides,
            hidden=network.hidden,
            latent=network.latent,
            parameters=count_parameters(model.encoder, model.decoder),
            tiling=config.tiling,
            backbone=config.backbone,
        ),
        score=score,
        provenance=Provenance(
            versions=model.record.versions | {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
            seed=config.seed,
            data=Path(data.folder).name,
            training_images=len(data.images),
            training_fingerprint=fingerprint_set(data.images),
            trained=model.record.started,
            exported=now(),
            parity=parity.difference,
            parity_images=parity.images,
            agreement=agreement,
        ),
        appearance=data.appearance,
    )
