import math

import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as exact_divergence

from onspect.training.autoencoder.losses import (
    critic_loss,
    expectation_loss,
    kl_divergence,
    reconstruction_loss,
    regularization_loss,
    reparametrise,
)


def test_reconstruction_is_the_summed_squared_error() -> None:
    """Equation 2 times H * W * C: half an error on each of 2 * 3 * 4 values is 6."""
    image = torch.zeros(5, 2, 3, 4)
    assert torch.equal(reconstruction_loss(image, image + 0.5), torch.full((5,), 6.0))


def test_expected_error_is_drawn_to_the_mean_error_alone() -> None:
    """Its gradient is its difference from the squared error, in each channel; the reconstruction has none."""
    image, reconstruction = torch.zeros(2, 3, 4, 5), torch.full((2, 3, 4, 5), 0.5, requires_grad=True)
    log_expected = torch.full((2, 1, 4, 5), math.log(0.3), requires_grad=True)
    loss = expectation_loss(image, reconstruction, log_expected)
    assert loss.shape == (2,)
    loss.sum().backward()
    assert reconstruction.grad is None
    torch.testing.assert_close(log_expected.grad, torch.full((2, 1, 4, 5), 3 * (0.3 - 0.25)))


def test_divergence_agrees_with_torch() -> None:
    """Equation 4 is the divergence of a Gaussian from the standard one, as torch.distributions has it."""
    mean, log_sigma = torch.randn(7, 20), torch.randn(7, 20)
    exact = exact_divergence(Normal(mean, log_sigma.exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mean, log_sigma), exact, rtol=1e-4, atol=1e-4)


def test_divergence_of_the_prior_is_zero() -> None:
    """A code that is the prior costs nothing."""
    assert float(kl_divergence(torch.zeros(1, 20), torch.zeros(1, 20))) == 0.0


def test_reparametrise_scales_and_shifts_noise() -> None:
    """Equation 5: z = mu + sigma * epsilon, with the logarithm of sigma given."""
    z = reparametrise(torch.tensor([[1.0]]), torch.tensor([[math.log(3.0)]]), torch.tensor([[2.0]]))
    torch.testing.assert_close(z, torch.tensor([[7.0]]))


def test_critic_and_encoder_pull_apart() -> None:
    """The critic gains where the prior scores higher than codes; the encoder gains where its codes score high."""
    prior, code = torch.tensor([[2.0]]), torch.tensor([[0.5]])
    assert float(critic_loss(prior, code)) == -1.5
    assert float(regularization_loss(code)) == -0.5
