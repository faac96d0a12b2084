"""The losses of the paper's equations 2 to 5, and that of an expected error.

All are sums over an image or a latent vector, and means over images.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reconstruction_loss(image: Tensor, reconstruction: Tensor) -> Tensor:
    """Return the squared error summed over pixels and channels, for each image [n] (Eq. 2 times H * W * C).

    The sum, not the mean: it is the Gaussian log-likelihood that Eq. 3 weighs against the KL term. With the mean, the
    KL term of a 28 x 28 image weighs 784 times as much and every image is reconstructed as the same blur.
    """
    return (image - reconstruction).square().sum(dim=(1, 2, 3))


def expectation_loss(image: Tensor, reconstruction: Tensor, log_expected: Tensor) -> Tensor:
    """Return for each image [n] a sum that is least where the expected squared error is the mean one.

    image, reconstruction: [n, channels, height, width]; log_expected: [n, 1, height, width], the logarithm of what is
    expected of the mean over channels. Its gradient is that of a Gaussian's negative log-likelihood with each pixel
    weighed by the expected error (beta-NLL with beta = 1, Seitzer et al., 2022), and the reconstruction, whose gradient
    there is that of Eq. 2, is taken as given: with the likelihood itself, what is reconstructed badly is taken to be
    unpredictable and learned least.
    """
    error = (image - reconstruction.detach()).square()
    return (log_expected.exp() - error * log_expected).sum(dim=(1, 2, 3))


def kl_divergence(mean: Tensor, log_sigma: Tensor) -> Tensor:
    """Return the divergence of N(mean, sigma^2) from N(0, 1), summed over the vector, for each image [n] (Eq. 4)."""
    return -0.5 * (1.0 + 2.0 * log_sigma - mean.square() - (2.0 * log_sigma).exp()).sum(dim=1)


def reparametrise(mean: Tensor, log_sigma: Tensor, noise: Tensor) -> Tensor:
    """Return z = mean + sigma * noise, noise drawn from N(0, 1), all [n, n_z] (Eq. 5)."""
    return mean + torch.exp(log_sigma) * noise


def critic_loss(score_of_prior: Tensor, score_of_code: Tensor) -> Tensor:
    """Return, for each image [n], what the critic lowers: the negative Wasserstein estimate (section 2.3)."""
    return (score_of_code - score_of_prior).squeeze(1)


def regularization_loss(score_of_code: Tensor) -> Tensor:
    """Return, for each image [n], what the encoder lowers so that its codes pass for draws from the prior (2.3)."""
    return -score_of_code.squeeze(1)
