"""A run's folder: config.json, weights.safetensors, checkpoint.safetensors, samples.safetensors, log.jsonl.

The run of an autoencoder of features also has features.onnx, the graph from an image to the features of its places.

Tensors are safetensors and the rest is JSON, so a stranger's run can be read without running their code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from onspect.runtime.atomic import describe_os_error, write_atomically
from onspect.runtime.errors import TrainingError
from onspect.runtime.model.schema import Appearance, Looks, Preprocess
from onspect.runtime.records import parse_dataclass
from onspect.training.autoencoder.networks import Critic, Decoder, Encoder
from onspect.training.config import TrainConfig
from onspect.training.presets import PRESETS

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"
SAMPLES = "samples.safetensors"
LOG = "log.jsonl"
EXTRACTOR = "features.onnx"


@dataclass(frozen=True)
class DataRecord:
    """The data that a run was trained on."""

    folder: str
    """Absolute path of the dataset folder."""
    recipe: Preprocess
    """How a frame becomes an input of the networks."""
    images: tuple[str, ...]
    """Fingerprints of the images that gave gradients."""
    held_out: tuple[str, ...]
    """Fingerprints of the images that were kept for early stopping."""
    mean_pixel: tuple[float, ...]
    """Mean of each channel over the training images, 0 to 1."""
    appearance: Appearance | None = None
    """Range of brightness and sharpness of all images; None for runs of older releases."""
    looks: Looks | None = None
    """Description for the search for near duplicates; None for runs of older releases or too few images."""


@dataclass(frozen=True)
class RunRecord:
    """Content of config.json."""

    config: TrainConfig
    """Every choice of the run."""
    data: DataRecord
    """The images."""
    versions: dict[str, str]
    """Versions of the packages that trained, by name."""
    started: str
    """Time of the start, ISO 8601 in UTC."""


@dataclass(frozen=True)
class TrainedModel:
    """A run, loaded on the CPU in evaluation mode."""

    record: RunRecord
    """Content of config.json."""
    encoder: Encoder
    """The best encoder."""
    decoder: Decoder
    """The best decoder."""
    critic: Critic | None
    """The critic of an AAE; None for CAE and VAE."""
    samples: Tensor
    """Good images of the run, uint8 [n, height, width, channels]."""
    extractor: bytes | None = None
    """ONNX graph from an image to the features that are reconstructed; None for an autoencoder of pixels."""


def write_record(run: Path, record: RunRecord) -> None:
    """Write config.json.

    Parameters
    ----------
    run
        Folder of the run.
    record
        Content of the file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_atomically(run / CONFIG, (json.dumps(asdict(record), indent=1) + "\n").encode())


def read_record(run: Path) -> RunRecord:
    """Read config.json.

    Parameters
    ----------
    run
        Folder of the run.

    Returns
    -------
    RunRecord
        Content of the file.

    Raises
    ------
    TrainingError
        If the folder is not a run, the file is damaged, or the run has a head of onspect 0.1.0.
    """
    try:
        content = json.loads((run / CONFIG).read_bytes())
        record = parse_dataclass(RunRecord, content)
        if record.config.preset not in PRESETS:
            raise ValueError(f"preset is {record.config.preset!r}")  # noqa: TRY301 - one error for a bad file
    except OSError as error:
        raise TrainingError(
            f"{str(run)!r} is not a training run ({CONFIG}: {describe_os_error(error)}); give the folder that "
            "'onspect train DATA -o RUN' wrote"
        ) from error
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{str(run / CONFIG)!r} is damaged ({error}); train again") from error
    if content["config"].get("head") is not None:
        raise TrainingError(
            f"the run {str(run)!r} was trained with a head by onspect 0.1.0, which this release does not support: "
            "train again into another folder; model files that 0.1.0 exported still work"
        )
    return record


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> None:
    """Write tensors and notes into one safetensors file. An error leaves the old file unchanged.

    Parameters
    ----------
    path
        The file.
    tensors
        Tensors by name.
    notes
        Values that JSON can represent; None for no notes.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    detached = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, safetensors.torch.save(detached, {"notes": json.dumps(notes or {})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of `write_tensors`.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    tuple[dict[str, Tensor], dict[str, Any]]
        Tensors by name, and the notes.

    Raises
    ------
    TrainingError
        If the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(  # noqa: SIM118 - it is not a dict
                (file.metadata() or {}).get("notes", "{}")
            )
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise TrainingError(f"cannot read {str(path)!r} ({error}); train again or resume another run") from error


def pack_optimizer(name: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of an optimizer as named tensors.

    Parameters
    ----------
    name
        Prefix of the names.
    state
        State dict of the optimizer.

    Returns
    -------
    dict[str, Tensor]
        Tensors named ``NAME.INDEX.KEY``.
    """
    return {
        f"{name}.{index}.{key}": torch.as_tensor(value)
        for index, values in state["state"].items()
        for key, value in values.items()
    }


def unpack_optimizer(name: str, tensors: Mapping[str, Tensor], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict that `pack_optimizer` packed.

    Parameters
    ----------
    name
        Prefix of the names.
    tensors
        Tensors by name; those of other prefixes are ignored.
    fresh
        State dict of the new optimizer, which gives the settings.

    Returns
    -------
    dict[str, Any]
        State dict for ``load_state_dict``.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        if path.startswith(f"{name}."):
            index, key = path[len(name) + 1 :].split(".")
            state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": fresh["param_groups"]}


def load_trained(run: str | Path) -> TrainedModel:
    """Load the best weights of a run.

    Parameters
    ----------
    run
        Folder of the run.

    Returns
    -------
    TrainedModel
        The networks on the CPU in evaluation mode, with the run's record and sample images.

    Raises
    ------
    TrainingError
        If the folder is not a run, its first epoch is not complete, or a file is damaged.
    """
    run = Path(run)
    record = read_record(run)
    encoder, decoder = load_autoencoder(run, record)
    samples, _ = read_tensors(run / SAMPLES)
    if "images" not in samples:
        raise TrainingError(f"{str(run / SAMPLES)!r} contains no images; train again")
    critic = _load_critic(run, record)
    return TrainedModel(record, encoder, decoder, critic, samples["images"], read_extractor(run, record))


def read_extractor(run: Path, record: RunRecord) -> bytes | None:
    """Read features.onnx.

    Parameters
    ----------
    run
        Folder of the run.
    record
        Content of its config.json.

    Returns
    -------
    bytes or None
        The graph; None for an autoencoder of pixels.

    Raises
    ------
    TrainingError
        If the file cannot be read.
    """
    if not record.config.backbone:
        return None
    try:
        return (run / EXTRACTOR).read_bytes()
    except OSError as error:
        raise TrainingError(
            f"cannot read {str(run / EXTRACTOR)!r}, which the run's features come from: {describe_os_error(error)}; "
            "put it back, or train again into another folder"
        ) from error


def load_autoencoder(run: Path, record: RunRecord) -> tuple[Encoder, Decoder]:
    """Load the best encoder and decoder.

    Parameters
    ----------
    run
        Folder of the run.
    record
        Content of its config.json.

    Returns
    -------
    tuple[Encoder, Decoder]
        Both on the CPU in evaluation mode.

    Raises
    ------
    TrainingError
        If there are no weights yet, or they do not match the record.
    """
    if not (run / WEIGHTS).exists():
        raise TrainingError(
            f"{str(run)!r} has no {WEIGHTS} yet: its first epoch was not completed; continue with 'onspect train "
            f"--resume -o {run}'"
        )
    tensors, _ = read_tensors(run / WEIGHTS)
    network = record.config.network
    encoder = Encoder(network)
    decoder = Decoder(network, torch.tensor(record.data.mean_pixel))
    try:
        for name, module in (("encoder", encoder), ("decoder", decoder)):
            module.load_state_dict(select(tensors, name))
            module.eval()
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{str(run / WEIGHTS)!r} does not fit {CONFIG} ({reason}); train again") from error
    return encoder, decoder


def _load_critic(run: Path, record: RunRecord) -> Critic | None:
    """Load the critic of the best epoch, or of the last epoch for runs of older releases; None without a critic."""
    if record.config.network.variant != "aae":
        return None
    for name in (WEIGHTS, CHECKPOINT):
        tensors = select(read_tensors(run / name)[0], "critic") if (run / name).exists() else {}
        if tensors:
            critic = Critic(record.config.network)
            critic.load_state_dict(tensors)
            return critic.eval()
    return None


def select(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``NAME.``, without this prefix.

    Parameters
    ----------
    tensors
        Tensors by name.
    name
        The prefix without its dot.

    Returns
    -------
    dict[str, Tensor]
        The selected tensors.
    """
    return {path[len(name) + 1 :]: tensor for path, tensor in tensors.items() if path.startswith(f"{name}.")}
