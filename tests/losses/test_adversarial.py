"""Are the adversarial losses what PyTorch and NumPy compute, Eq. (2) the ratio of the gradients, R1 their length?"""

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn
from torch.nn import functional as F

from litevae.losses.adversarial import (
    ADVERSARIAL_LOSSES,
    adaptive_weight,
    discriminator_loss,
    generator_loss,
    r1_penalty,
)

Heads = tuple[torch.Tensor, ...]


def heads(dtype: torch.dtype = torch.float64) -> Heads:
    """A map and a logit for each image, as the UNet's, of very different sizes."""
    return 2 * torch.randn(3, 1, 6, 5, dtype=dtype), 2 * torch.randn(3, 1, dtype=dtype) + 1


@pytest.fixture
def real() -> Heads:
    torch.manual_seed(0)
    return heads()


@pytest.fixture
def fake() -> Heads:
    torch.manual_seed(1)
    return heads()


def test_hinge_is_numpys_and_torchs(real: Heads, fake: Heads) -> None:
    loss = discriminator_loss(real, fake, "hinge").item()
    real_logits = np.mean([np.maximum(0, 1 - x.numpy()).mean() for x in real])
    fake_logits = np.mean([np.maximum(0, 1 + x.numpy()).mean() for x in fake])
    assert loss == pytest.approx(0.5 * (real_logits + fake_logits), rel=1e-12)
    torchs = [
        F.hinge_embedding_loss(sign * x, -torch.ones_like(x), margin=1.0).item()
        for sign, logits in ((1, real), (-1, fake))
        for x in logits
    ]
    assert loss == pytest.approx(0.5 * sum(torchs) / 2, rel=1e-12)
    assert generator_loss(fake, "hinge").item() == pytest.approx(-np.mean([x.numpy().mean() for x in fake]), rel=1e-12)


def test_logistic_is_the_likelihood(real: Heads, fake: Heads) -> None:
    loss = discriminator_loss(real, fake, "logistic").item()
    real_loss = np.mean([-np.log(expit(x.numpy())).mean() for x in real])
    fake_loss = np.mean([-np.log(1 - expit(x.numpy())).mean() for x in fake])
    assert loss == pytest.approx(real_loss + fake_loss, rel=1e-10)
    torchs = [
        F.binary_cross_entropy_with_logits(x, torch.full_like(x, target)).item()
        for target, logits in ((1.0, real), (0.0, fake))
        for x in logits
    ]
    assert loss == pytest.approx(sum(torchs) / 2, rel=1e-12)
    cheated = [F.binary_cross_entropy_with_logits(x, torch.ones_like(x)).item() for x in fake]
    assert generator_loss(fake, "logistic").item() == pytest.approx(sum(cheated) / 2, rel=1e-12)


def test_heads_count_alike(fake: Heads) -> None:
    """However many elements one has."""
    for kind in ADVERSARIAL_LOSSES:
        alone = [generator_loss((head,), kind) for head in fake]
        torch.testing.assert_close(generator_loss(fake, kind), (alone[0] + alone[1]) / 2)
        several = generator_loss((fake[0].repeat(1, 1, 2, 2), fake[1]), kind)
        torch.testing.assert_close(several, generator_loss(fake, kind))


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_gradients(kind: str) -> None:
    torch.manual_seed(0)
    real, fake = (tuple(x.requires_grad_() for x in heads()) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b, c, d: discriminator_loss((a, b), (c, d), kind), (*real, *fake))
    assert torch.autograd.gradcheck(lambda a, b: generator_loss((a, b), kind), fake)


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    real, fake = heads(dtype), heads(dtype)
    for loss in (
        lambda real, fake: discriminator_loss(real, fake, kind),
        lambda real, fake: generator_loss(fake, kind),
    ):
        half = loss(real, fake)
        assert half.dtype == torch.float32
        full = loss(tuple(x.float() for x in real), tuple(x.float() for x in fake))
        torch.testing.assert_close(half, full, rtol=1e-6, atol=0)


def test_logistic_does_not_overflow() -> None:
    large = (torch.tensor([3e4], dtype=torch.float16),)
    assert discriminator_loss((-large[0],), large, "logistic").item() == pytest.approx(2 * 30000)


def test_adaptive_weight_by_hand() -> None:
    """|(3, 4)| = 5, |(0.6, 0.8)| = 1: 5 / 1.0001 / 2. At most 10,000 / 2, where the adversary says nothing."""
    reconstruction, adversary = torch.tensor([[3.0], [4.0]]), torch.tensor([[0.6], [0.8]])
    assert adaptive_weight(reconstruction, adversary).item() == pytest.approx(2.5 / 1.0001, rel=1e-6)
    assert adaptive_weight(reconstruction, 0 * adversary).item() == 5000
    assert adaptive_weight(0 * reconstruction, adversary).item() == 0
    large = torch.full((10,), 6e4, dtype=torch.float16)  # of a norm above float16's largest number
    assert adaptive_weight(large, large).item() == pytest.approx(0.5)
    small = adaptive_weight(reconstruction.half() / 100, adversary.half() / 10_000)  # squares below its smallest
    assert small.item() == pytest.approx(0.5 * 0.05 / 2e-4, rel=1e-3)


def test_adaptive_weight_balances_autograds_gradients() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    output = F.conv2d(x, weight)
    reconstruction, adversary = output.abs().mean(), output.sin().mean()
    gradients = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (reconstruction, adversary)]
    factor = adaptive_weight(*gradients)
    assert not factor.requires_grad
    (balanced,) = torch.autograd.grad(factor * adversary, weight)
    norm = gradients[1].norm()
    torch.testing.assert_close(balanced.norm() * (norm + 1e-4) / norm, gradients[0].norm() / 2)


class TinyDiscriminator(nn.Module):
    """Smooth, with two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 2, 3, padding=1)
        self.of_pixels = nn.Conv2d(2, 1, 1)
        self.of_image = nn.Linear(2, 1)

    def forward(self, image: torch.Tensor) -> Heads:
        hidden = torch.tanh(self.features(image))
        return self.of_pixels(hidden), self.of_image(hidden.square().mean((2, 3)))


def test_r1_of_a_linear_discriminator() -> None:
    """D(x) = w.x has the gradient w at every image: gamma / 2 |w|^2."""
    torch.manual_seed(0)
    weight = torch.randn(3 * 4 * 4)
    image = torch.rand(5, 3, 4, 4, requires_grad=True)
    logits = (image.flatten(1) @ weight)[:, None]
    assert r1_penalty((logits,), image).item() == pytest.approx(0.5 * float(weight.square().sum()), rel=1e-6)


def test_r1_is_the_mean_over_images() -> None:
    """Each image by itself, and each head by the mean of its elements."""
    torch.manual_seed(0)
    network = TinyDiscriminator().double()
    images = torch.rand(3, 3, 4, 5, dtype=torch.float64)
    lengths = []
    for image in images.split(1):
        image.requires_grad_()
        of_pixels, of_image = network(image)
        score = (of_pixels.sum() / 20 + of_image.sum()) / 2
        (gradient,) = torch.autograd.grad(score, image)
        lengths.append(gradient.square().sum().item())
    images.requires_grad_()
    penalty = r1_penalty(network(images), images)
    assert penalty.item() == pytest.approx(0.5 * np.mean(lengths), rel=1e-12)


def test_r1_gradcheck() -> None:
    torch.manual_seed(0)
    network = TinyDiscriminator().double()
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in network.named_parameters()]

    def penalty(*parameters: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (image,))
        return r1_penalty(logits, image)

    assert torch.autograd.gradcheck(penalty, tuple(network.parameters()))


def test_r1_survives_float16() -> None:
    """The gradient of a mean over 256x256 pixels is 1.5e-5 times something: below float16 without a scale."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, 1, 3, padding=1)
    with torch.no_grad():
        network.weight.mul_(0.02)
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    exact = r1_penalty((network(image),), image)
    with torch.autocast("cpu", torch.float16):
        penalty = r1_penalty((network(image),), image)
    assert penalty.dtype == torch.float32
    torch.testing.assert_close(penalty, exact, rtol=0.01, atol=0)


def test_wrong_arguments(real: Heads, fake: Heads) -> None:
    with pytest.raises(ValueError, match="kind must be one of 'hinge', 'logistic', got 'wasserstein'"):
        discriminator_loss(real, fake, "wasserstein")
    with pytest.raises(ValueError, match="kind must be one of"):
        generator_loss(fake, "wasserstein")
    with pytest.raises(ValueError, match="the same number, got 2 and 1"):
        discriminator_loss(real, fake[:1], "hinge")
    with pytest.raises(ValueError, match=r"at least one head, .* got 0"):
        generator_loss((), "hinge")
    with pytest.raises(ValueError, match="real_image must require a gradient before"):
        r1_penalty(real, torch.zeros(3, 3, 6, 5))
    with pytest.raises(ValueError, match="real_logits must hold at least one head, got none"):
        r1_penalty((), torch.zeros(3, 3, 6, 5))
