"""Losses of the paper's equations 2 to 5, and the loss of the predicted error.

Each function sums over one image or one latent vector. The trainer takes the mean over images.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error of each image, summed over pixels and channels (Eq. 2 times H * W * C).

    The sum is the Gaussian log-likelihood that Eq. 3 weighs against the KL term. With the mean, the KL term of a 28 x
    28 image weighs 784 times as much, and every image is reconstructed as the same blur.

    Parameters
    ----------
    image, reconstruction
        float32 [n, channels, height, width], 0 to 1.

    Returns
    -------
    Tensor
        Loss of each image, [n], 0 or more.
    """
    return (image - reconstruction).square().sum(dim=(1, 2, 3))


def expectation_loss(image: Tensor, reconstruction: Tensor, log_expected: Tensor) -> Tensor:
    """Return a loss that is smallest where the predicted squared error equals the mean squared error.

    The gradient is that of a Gaussian's negative log-likelihood, with each pixel weighted by the predicted error
    (beta-NLL with beta = 1, Seitzer et al., 2022). The reconstruction gets no gradient from it. With the plain
    likelihood, badly reconstructed pixels count as unpredictable, and the network learns them least.

    Parameters
    ----------
    image, reconstruction
        float32 [n, channels, height, width], 0 to 1.
    log_expected
        float32 [n, 1, height, width], logarithm of the predicted squared error, a mean over channels.

    Returns
    -------
    Tensor
        Loss of each image, [n].
    """
    error = (image - reconstruction.detach()).square()
    return (log_expected.exp() - error * log_expected).sum(dim=(1, 2, 3))


def kl_divergence(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Return the divergence of N(mean, sigma^2) from N(0, 1), summed over the latent vector (Eq. 4).

    Parameters
    ----------
    mean, log_sigma
        float32 [n, n_z], mean and logarithm of the standard deviation.

    Returns
    -------
    Tensor
        Divergence of each image, [n], 0 or more.
    """
    return -0.5 * (1.0 + 2.0 * log_sigma - mean.square() - (2.0 * log_sigma).exp()).sum(dim=1)


def reparametrise(mean: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """Return z = mean + sigma * noise (Eq. 5).

    Parameters
    ----------
    mean, log_sigma
        float32 [n, n_z], mean and logarithm of the standard deviation.
    noise
        float32 [n, n_z], drawn from N(0, 1).

    Returns
    -------
    Tensor
        Latent vectors, [n, n_z].
    """
    return mean + torch.exp(log_sigma) * noise


def critic_loss(score_of_prior: Tensor, score_of_code: Tensor) -> Tensor:
    """Return the loss of the critic: the negative Wasserstein estimate (section 2.3).

    Parameters
    ----------
    score_of_prior, score_of_code
        float32 [n, 1], the critic's scores of draws from the prior and of latent vectors.

    Returns
    -------
    Tensor
        Loss of each image, [n].
    """
    return (score_of_code - score_of_prior).squeeze(1)


def regularization_loss(score_of_code: Tensor) -> Tensor:
    """Return the loss of the encoder against the critic (section 2.3).

    Parameters
    ----------
    score_of_code
        float32 [n, 1], the critic's scores of latent vectors.

    Returns
    -------
    Tensor
        Loss of each image, [n].
    """
    return -score_of_code.squeeze(1)
