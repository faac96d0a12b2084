"""Networks and optimizers on their devices: one training step of each variant, and its checkpoint."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from onspect.runtime.errors import TrainingError
from onspect.runtime.records import parse_dataclass
from onspect.training.autoencoder.losses import (
    critic_loss,
    expectation_loss,
    kl_divergence,
    reconstruction_loss,
    regularization_loss,
    reparametrise,
)
from onspect.training.autoencoder.networks import Critic, Decoder, Encoder
from onspect.training.checkpoint import (
    CHECKPOINT,
    CONFIG,
    WEIGHTS,
    RunRecord,
    pack_optimizer,
    read_tensors,
    select,
    unpack_optimizer,
    write_tensors,
)
from onspect.training.config import TrainConfig
from onspect.training.tiles import Batch, Images

_REGULARIZATION_SHARE = 0.1
"""Learning rate of the AAE's regularization phase, as a share of that of the other phases.

The length of Adam's steps does not depend on the loss. At the full rate, the regularization phase undoes much of
the encoder's training in the reconstruction phase.
"""

_NOISE = 2  # number of the random stream under the run's seed; the loop has others


@dataclass
class State:
    """Progress that a checkpoint saves beside weights and optimizers."""

    epoch: int = 0
    """Number of complete epochs."""
    step: int = 0
    """Number of steps that are done."""
    best_epoch: int = 0
    """Epoch with the least loss, 0 before the first evaluation."""
    best_loss: float = math.inf
    """Loss of that epoch; infinite before the first evaluation."""
    seconds: float = 0.0
    """Duration of training in seconds."""
    sums: dict[str, float] = field(default_factory=dict)
    """Losses of the current epoch by name, summed over images."""


class Trainer:
    """Networks and optimizers of one device. With several devices it trains on its share of each batch.

    Parameters
    ----------
    record
        Configuration and data of the run.
    fabric
        Devices and precision.
    """

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
        self.decoder.mark_forward_method("expect")  # which precision plugins and several devices need
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

    def step(self, batch: Batch, epoch: int, step: int, rate: float) -> dict[str, float]:
        """Train on one batch.

        Parameters
        ----------
        batch
            The batch of all devices together: uint8 [n, height, width, channels] or float16 [n, 1, 1, channels].
        epoch, step
            Position in the run; with the seed they give the random numbers.
        rate
            Learning rate, above 0.

        Returns
        -------
        dict[str, float]
            Losses by name, means over the images of the batch.
        """
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * (_REGULARIZATION_SHARE if name == "regularization" else 1.0)
        config, network = self.config, self.config.network
        noise = torch.Generator().manual_seed(_mix(config.seed, epoch, step))
        draws = torch.randn(1 + config.critic_steps, len(batch), network.latent, generator=noise)
        mine = slice(self.fabric.global_rank, None, self.fabric.world_size)
        image = self._to_image(batch[mine])
        draws = self.fabric.to_device(draws[:, mine])
        # each device has its share of the batch; with this factor the devices' mean gradient is that of the batch
        share = self.fabric.world_size / len(batch)

        latent, log_sigma = self.encoder(image)
        mean = latent.float()
        losses = {}
        if log_sigma is not None:
            latent = reparametrise(mean, log_sigma.float(), draws[0])
            losses["kl"] = config.kl_weight * kl_divergence(mean, log_sigma.float())
        reconstruction, log_expected = self.decoder.expect(latent)
        losses["reconstruction"] = reconstruction_loss(image, reconstruction.float())
        if log_expected is not None:
            losses["expectation"] = expectation_loss(image, reconstruction.float(), log_expected.float())
        self._descend("reconstruction", sum(losses.values()).sum() * share)  # type: ignore[union-attr]  # never empty
        if self.plain_critic is not None:
            losses |= self._regularise(image, mean.detach(), draws[1:], share)
        return {name: self._sum_over_devices(loss.detach().sum()) / len(batch) for name, loss in losses.items()}

    def _regularise(self, image: Tensor, codes: Tensor, prior: Tensor, share: float) -> dict[str, Tensor]:
        """Do the AAE's second phase (section 2.3): train the critic, then the encoder against it."""
        assert self.plain_critic is not None
        clip = self.config.critic_clip
        for real in prior:
            scores = self.critic(torch.cat([real, codes])).float()
            critic = critic_loss(scores[: len(real)], scores[len(real) :])
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

    def evaluate(self, images: Images) -> float:
        """Return the mean squared error over all pixels (Eq. 2).

        Parameters
        ----------
        images
            Images, tiles or places, as in `fit`.

        Returns
        -------
        float
            The error, 0 or more.
        """
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

    def _to_image(self, batch: Batch) -> Tensor:
        pixels: Tensor = self.fabric.to_device(torch.from_numpy(np.ascontiguousarray(batch)))
        scale = 1.0 / 255.0 if pixels.dtype == torch.uint8 else 1.0
        return pixels.float().mul(scale).permute(0, 3, 1, 2).contiguous()

    def _modules(self) -> dict[str, torch.nn.Module]:
        modules = {"encoder": self.plain_encoder, "decoder": self.plain_decoder, "critic": self.plain_critic}
        return {name: module for name, module in modules.items() if module is not None}

    def save_weights(self, run: Path) -> None:
        """Write the current weights for export; only the first device writes.

        Parameters
        ----------
        run
            Folder of the run.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        if self.fabric.is_global_zero:
            write_tensors(run / WEIGHTS, _named_tensors(self._modules()))

    def save(self, run: Path, state: State) -> None:
        """Write the checkpoint; every device waits until it is written.

        Parameters
        ----------
        run
            Folder of the run.
        state
            Progress to save.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        if self.fabric.is_global_zero:
            tensors = _named_tensors(self._modules())
            for name, optimizer in self.optimizers.items():
                tensors |= pack_optimizer(f"optimizer-{name}", optimizer.state_dict())
            known = {key: value for key, value in vars(state).items() if value != math.inf}
            write_tensors(run / CHECKPOINT, tensors, {"state": known, "config": asdict(self.config)})
        self.fabric.barrier()

    def load(self, run: Path) -> State:
        """Read the checkpoint into networks and optimizers.

        Parameters
        ----------
        run
            Folder of the run.

        Returns
        -------
        State
            Progress of the run.

        Raises
        ------
        TrainingError
            If there is no checkpoint, or it does not match the run.
        """
        if not (run / CHECKPOINT).exists():
            raise TrainingError(
                f"there is nothing to resume: {str(run)!r} has no {CHECKPOINT}; the run ended in its first epoch; "
                f"train again into another folder"
            )
        tensors, notes = read_tensors(run / CHECKPOINT)
        try:
            config, state = parse_dataclass(TrainConfig, notes["config"]), parse_dataclass(State, notes["state"])
            for name, module in self._modules().items():
                module.load_state_dict(select(tensors, name))
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(unpack_optimizer(f"optimizer-{name}", tensors, optimizer.state_dict()))
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise _misfit(run, " ".join(str(error).split())) from error
        if config != self.config:
            raise _misfit(run, "it was made with other options")
        return state


def _misfit(run: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{str(run / CHECKPOINT)!r} does not fit {CONFIG} ({reason}); put back the {CONFIG} that it was made with, or "
        "train again into another folder"
    )


def _named_tensors(modules: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}


def _mix(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, _NOISE, epoch, step]).generate_state(1, np.uint64)[0] >> 1)
