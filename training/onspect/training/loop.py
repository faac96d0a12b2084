"""The training loop: learning rate, forward and backward, step, log, evaluate and save; read it top to bottom."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from onspect.runtime.errors import TrainingError
from onspect.runtime.files import write_atomically
from onspect.runtime.model_file import parse_dataclass
from onspect.training.augment import augment
from onspect.training.checkpoint import (
    CHECKPOINT,
    CONFIG,
    LOG,
    WEIGHTS,
    RunRecord,
    pack_optimizer,
    read_tensors,
    select,
    unpack_optimizer,
    write_tensors,
)
from onspect.training.config import TrainConfig
from onspect.training.losses import (
    critic_loss,
    kl_divergence,
    reconstruction_loss,
    regularization_loss,
    reparametrise,
)
from onspect.training.networks import Critic, Decoder, Encoder

_REGULARIZATION_SHARE = 0.1
"""Learning rate of the AAE's regularization phase as a share of the others'.

Adam's steps are as long whatever the loss, so at the full rate fooling the critic undoes as much of the encoder as the
reconstruction phase learns: on textured parts the error after 12 epochs was 1.4 times the CAE's, at a tenth 1.02 times.
"""

_ORDER, _NOISE, _AUGMENT = 1, 2, 3  # streams of random numbers under one seed


@dataclass(frozen=True)
class Moment:
    """Where training stands: steps done and in all, epoch from 1, and the latest mean squared errors (Eq. 2)."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    held_out: float | None


@dataclass(frozen=True)
class Outcome:
    """How training ended: ``finished``, ``stopped early`` or ``interrupted``.

    best_loss: the mean squared error of the held_out images, or of the training images where there are none.
    """

    reason: str
    epoch: int
    best_epoch: int
    best_loss: float
    held_out: int
    seconds: float


@dataclass
class _State:
    """What a checkpoint must hold beside weights and optimizers. sums: of this epoch's losses over images."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)


def fit(
    record: RunRecord,
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    run: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    watch: Callable[[Moment], None] | None = None,
    after_epoch: Callable[[int, Encoder, Decoder], None] | None = None,
) -> Outcome:
    """Train as the record says and leave weights.safetensors (the best on held_out), a checkpoint and log.jsonl in run.

    images, held_out: uint8 [n, height, width, channels]. With resume, goes on from the checkpoint to the very weights
    that an uninterrupted run gets on the same machine. The first Ctrl-C (or SIGTERM) saves and returns
    ``interrupted``. watch sees every step, after_epoch every epoch, both on the first device only.

    Raises TrainingError where the loss is not finite (the last epoch's checkpoint stays) or the checkpoint does not
    fit, OutputError where the run cannot be written.
    """
    trainer = _Trainer(record, fabric)
    state = trainer.load(run) if resume else _State()
    config = record.config
    if not resume:
        _write_log(fabric, run, [])
    log = _read_log(run, state.epoch)
    steps = math.ceil(len(images) / config.batch_size)
    total = steps * config.epochs
    watched = held_out if len(held_out) else images[: config.batch_size]
    started = time.perf_counter() - state.seconds
    with _interruption(fabric) as interrupted:
        while state.epoch < config.epochs and not _patience_is_spent(state, config):
            order = np.random.default_rng([config.seed, _ORDER, state.epoch]).permutation(len(images))
            for step in range(state.step, steps):
                rate = learning_rate(config, state.epoch * steps + step, total)
                chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
                batch = _prepare(images, chosen, config, state.epoch)
                losses = trainer.step(batch, state.epoch, step, rate)
                _check_finite(losses, state.epoch, step + 1, rate, run)
                for name, value in losses.items():
                    state.sums[name] = state.sums.get(name, 0.0) + value * len(chosen)
                state.step = step + 1
                if watch is not None and fabric.is_global_zero:
                    watch(_moment(state, config, steps, total, losses, images, log))
                if interrupted():
                    state.seconds = time.perf_counter() - started
                    trainer.save(run, state)
                    return _outcome("interrupted", state, held_out)
            state.seconds = time.perf_counter() - started
            rate = learning_rate(config, (state.epoch + 1) * steps - 1, total)
            error = trainer.evaluate(watched)
            _check_finite({"held-out" if len(held_out) else "training": error}, state.epoch, state.step, rate, run)
            log.append(_close_epoch(state, images, error if len(held_out) else None, rate))
            loss = log[-1]["held_out"] if len(held_out) else log[-1]["loss"]
            if loss < state.best_loss or not len(held_out):  # without held-out images, the last weights are taken
                state.best_epoch, state.best_loss = state.epoch, loss
                trainer.save_weights(run)
            _write_log(fabric, run, log)
            trainer.save(run, state)
            if after_epoch is not None and fabric.is_global_zero:
                after_epoch(state.epoch, trainer.plain_encoder, trainer.plain_decoder)
    return _outcome("finished" if state.epoch == config.epochs else "stopped early", state, held_out)


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Return the learning rate of a step (from 0): constant, or half a cosine from the full rate to 1% of it."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / total)))


class _Trainer:
    """Networks and optimizers on their devices, and one step of each variant's training."""

    def __init__(self, record: RunRecord, fabric: Fabric) -> None:
        self.config = record.config
        self.fabric = fabric
        network = self.config.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.plain_encoder = Encoder(network)
            self.plain_decoder = Decoder(network, torch.tensor(record.data.mean_pixel))
            self.plain_critic = Critic(network) if network.variant == "aae" else None
        self.encoder = fabric.setup_module(self.plain_encoder)
        self.decoder = fabric.setup_module(self.plain_decoder)
        self.optimizers = {
            "reconstruction": self._optimizer([*self.encoder.parameters(), *self.decoder.parameters()]),
        }
        if self.plain_critic is not None:
            self.critic = fabric.setup_module(self.plain_critic)
            self.optimizers["critic"] = self._optimizer(list(self.critic.parameters()))
            self.optimizers["regularization"] = self._optimizer(list(self.encoder.parameters()))

    def _optimizer(self, parameters: list[Tensor]) -> Any:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.config.optimizer]
        return self.fabric.setup_optimizers(kind(parameters, lr=self.config.learning_rate))

    def step(self, batch: NDArray[np.uint8], epoch: int, step: int, rate: float) -> dict[str, float]:
        """Train on one batch (of all devices together) and return its losses, means over its images."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * (_REGULARIZATION_SHARE if name == "regularization" else 1.0)
        config, network = self.config, self.config.network
        noise = torch.Generator().manual_seed(_mix(config.seed, epoch, step))
        draws = torch.randn(1 + config.critic_steps, len(batch), network.latent, generator=noise)
        mine = slice(self.fabric.global_rank, None, self.fabric.world_size)
        image = self._to_image(batch[mine])
        draws = self.fabric.to_device(draws[:, mine])
        # each device sees its share of the batch; so weighed, the devices' mean gradient is the batch's
        share = self.fabric.world_size / len(batch)

        latent, log_sigma = self.encoder(image)
        mean = latent.float()
        losses = {}
        if log_sigma is not None:
            latent = reparametrise(mean, log_sigma.float(), draws[0])
            losses["kl"] = config.kl_weight * kl_divergence(mean, log_sigma.float())
        losses["reconstruction"] = reconstruction_loss(image, self.decoder(latent).float())
        self._descend("reconstruction", sum(losses.values()).sum() * share)  # type: ignore[union-attr]  # never empty
        if self.plain_critic is not None:
            losses |= self._regularise(image, mean.detach(), draws[1:], share)
        return {name: self._sum_over_devices(loss.detach().sum()) / len(batch) for name, loss in losses.items()}

    def _regularise(self, image: Tensor, codes: Tensor, prior: Tensor, share: float) -> dict[str, Tensor]:
        """Do the AAE's second phase (section 2.3): the critic learns prior from codes, then the encoder to fool it."""
        assert self.plain_critic is not None
        clip = self.config.critic_clip
        for real in prior:
            of_prior, of_codes = self.critic(torch.cat([real, codes])).float().split(len(codes))
            critic = critic_loss(of_prior, of_codes)
            self._descend("critic", critic.sum() * share)
            with torch.no_grad():
                for parameter in self.plain_critic.parameters():
                    parameter.clamp_(-clip, clip)
        regularization = regularization_loss(self.critic(self.encoder(image)[0]).float())
        self._descend("regularization", regularization.sum() * share)
        return {"critic": critic, "regularization": regularization}

    def _descend(self, name: str, loss: Tensor) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizers[name].step()

    def evaluate(self, images: NDArray[np.uint8]) -> float:
        """Return the mean squared error over pixels (Eq. 2) of images, uint8 [n, height, width, channels]."""
        self.encoder.eval()
        self.decoder.eval()
        total = torch.zeros((), device=self.fabric.device, dtype=torch.float64)
        with torch.no_grad():
            for start in range(0, len(images), self.config.batch_size):
                batch = images[start : start + self.config.batch_size]
                image = self._to_image(batch[self.fabric.global_rank :: self.fabric.world_size])
                if len(image):
                    reconstruction = self.decoder(self.encoder(image)[0]).float()
                    total += reconstruction_loss(image, reconstruction).double().sum()
        self.encoder.train()
        self.decoder.train()
        return self._sum_over_devices(total) / images.size

    def _sum_over_devices(self, value: Tensor) -> float:
        total = self.fabric.all_reduce(value, reduce_op="sum")
        assert isinstance(total, Tensor)
        return float(total)

    def _to_image(self, batch: NDArray[np.uint8]) -> Tensor:
        pixels: Tensor = self.fabric.to_device(torch.from_numpy(np.ascontiguousarray(batch)))
        return pixels.float().mul(1.0 / 255.0).permute(0, 3, 1, 2).contiguous()

    def _modules(self) -> dict[str, torch.nn.Module]:
        modules = {"encoder": self.plain_encoder, "decoder": self.plain_decoder, "critic": self.plain_critic}
        return {name: module for name, module in modules.items() if module is not None}

    def save_weights(self, run: Path) -> None:
        """Write the weights that export takes: encoder and decoder as they are now."""
        if self.fabric.is_global_zero:
            modules = {"encoder": self.plain_encoder, "decoder": self.plain_decoder}
            write_tensors(run / WEIGHTS, _named_tensors(modules))

    def save(self, run: Path, state: _State) -> None:
        """Write the checkpoint; every device waits for it."""
        if self.fabric.is_global_zero:
            tensors = _named_tensors(self._modules())
            for name, optimizer in self.optimizers.items():
                tensors |= pack_optimizer(f"optimizer-{name}", optimizer.state_dict())
            known = {key: value for key, value in vars(state).items() if value != math.inf}
            write_tensors(run / CHECKPOINT, tensors, {"state": known, "config": asdict(self.config)})
        self.fabric.barrier()

    def load(self, run: Path) -> _State:
        """Read the checkpoint into networks and optimizers and return the rest of it."""
        if not (run / CHECKPOINT).exists():
            raise TrainingError(
                f"there is nothing to go on from: {str(run)!r} holds no {CHECKPOINT}, as where a run was killed in its "
                "first epoch; train again into another folder"
            )
        tensors, notes = read_tensors(run / CHECKPOINT)
        try:
            config, state = parse_dataclass(TrainConfig, notes["config"]), parse_dataclass(_State, notes["state"])
            for name, module in self._modules().items():
                module.load_state_dict(select(tensors, name))
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(unpack_optimizer(f"optimizer-{name}", tensors, optimizer.state_dict()))
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise _misfit(run, " ".join(str(error).split())) from error
        if config != self.config:
            raise _misfit(run, "it was made with other choices")
        return state


def _misfit(run: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{str(run / CHECKPOINT)!r} does not fit {CONFIG} ({reason}); put back the {CONFIG} that it was made with, or "
        "train again into another folder"
    )


def _named_tensors(modules: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}


def _prepare(
    images: NDArray[np.uint8], chosen: NDArray[np.int64], config: TrainConfig, epoch: int
) -> NDArray[np.uint8]:
    if not config.augment:
        return images[chosen]
    changed = [
        augment(images[index], config.augment, np.random.default_rng([config.seed, _AUGMENT, epoch, index]))
        for index in chosen
    ]
    return np.stack(changed)


def _mix(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, _NOISE, epoch, step]).generate_state(1, np.uint64)[0] >> 1)


def _check_finite(losses: dict[str, float], epoch: int, batch: int, rate: float, run: Path) -> None:
    for name, value in losses.items():
        if not math.isfinite(value):
            kept = (
                f"the last epoch's checkpoint stays in {str(run)!r}"
                if (run / CHECKPOINT).exists()
                else "no epoch was completed"
            )
            raise TrainingError(
                f"training diverged: the {name} loss is {value} in epoch {epoch + 1}, batch {batch}, at learning "
                f"rate {rate:g}; train again with a lower --learning-rate ({kept})"
            )


def _close_epoch(state: _State, images: NDArray[np.uint8], held_out: float | None, rate: float) -> dict[str, Any]:
    """Turn the epoch's sums into a line of the log and begin the next."""
    means = {name: total / len(images) for name, total in state.sums.items()}
    state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
    return {
        "epoch": state.epoch,
        "loss": means["reconstruction"] / images[0].size,
        "held_out": held_out,
        "learning_rate": rate,
        **{name: value for name, value in means.items() if name != "reconstruction"},
        "seconds": round(state.seconds, 3),
    }


def _patience_is_spent(state: _State, config: TrainConfig) -> bool:
    return bool(config.patience) and state.epoch - state.best_epoch >= config.patience


def _moment(
    state: _State,
    config: TrainConfig,
    steps: int,
    total: int,
    losses: dict[str, float],
    images: NDArray[np.uint8],
    log: list[dict[str, Any]],
) -> Moment:
    return Moment(
        step=state.epoch * steps + state.step,
        steps=total,
        epoch=state.epoch + 1,
        epochs=config.epochs,
        loss=losses["reconstruction"] / images[0].size,
        held_out=log[-1]["held_out"] if log else None,
    )


def _outcome(reason: str, state: _State, held_out: NDArray[np.uint8]) -> Outcome:
    return Outcome(reason, state.epoch, state.best_epoch, state.best_loss, len(held_out), state.seconds)


def _read_log(run: Path, epochs: int) -> list[dict[str, Any]]:
    """Return the log's lines of the epochs that the checkpoint knows of."""
    if not (run / LOG).exists():
        return []
    try:
        lines = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["epoch"] <= epochs]
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{str(run / LOG)!r} is damaged ({error}); repair its lines, or remove it") from error


def _write_log(fabric: Fabric, run: Path, lines: list[dict[str, Any]]) -> None:
    if fabric.is_global_zero:
        write_atomically(run / LOG, "".join(json.dumps(line) + "\n" for line in lines).encode())


@contextmanager
def _interruption(fabric: Fabric) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether to stop; all devices stop at the same step. A second Ctrl-C stops at once."""
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt(number)
        asked.set()

    def interrupted() -> bool:
        if fabric.world_size == 1:
            return asked.is_set()
        flag = torch.tensor(float(asked.is_set()), device=fabric.device)
        stops = fabric.all_reduce(flag, reduce_op="sum")
        assert isinstance(stops, torch.Tensor)
        return bool(stops > 0)

    previous = {}
    with suppress(ValueError):  # signals belong to the main thread; elsewhere the caller's thread is its own master
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, ask)
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
