"""The adversarial term of Eq. (1), for the discriminator and for the autoencoder.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]

A discriminator (litevae/models/discriminators) gives a tuple of logits, one tensor for each of its heads. A loss is the
mean over heads of each head's mean. Logits may be in half precision: the arithmetic is float32.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.checks import full_precision
from litevae_kernels.checks import check_choice

ADVERSARIAL_LOSSES = ("hinge", "logistic")

Logits = tuple[Tensor, ...]

# A power of two: R1's gradients of means over many pixels would be 0 in float16.
_R1_SCALE = 256.0


def discriminator_loss(real: Logits, fake: Logits, kind: str) -> Tensor:
    """What the discriminator minimises: it is low where real logits are high and fake ones low.

    "hinge": mean of (relu(1 - real) + relu(1 + fake)) / 2. "logistic": mean of softplus(-real) + softplus(fake), the
    negative log-likelihood of the right answers, not halved. Adam does not see the difference in scale.

    Args:
        real: the heads' logits of images, any shapes.
        fake: of reconstructions that have no history (`.detach()`), as many heads.
        kind: "hinge" or "logistic" (Table 16).

    Returns:
        A scalar tensor, differentiable in both.

    Raises:
        ValueError: an unknown kind, or not the same number of heads.

    >>> discriminator_loss((torch.tensor([0.5]),), (torch.tensor([-2.0]),), "hinge").item()
    0.25
    """
    _check(kind, real, fake)
    real_logits, fake_logits = [full_precision(x) for x in real], [full_precision(x) for x in fake]
    if kind == "hinge":
        return 0.5 * (_mean([F.relu(1 - x) for x in real_logits]) + _mean([F.relu(1 + x) for x in fake_logits]))
    return _mean([F.softplus(-x) for x in real_logits]) + _mean([F.softplus(x) for x in fake_logits])


def generator_loss(fake: Logits, kind: str) -> Tensor:
    """What the autoencoder minimises: it is low where the logits of its reconstructions are high.

    "hinge": the mean of -fake. "logistic": the mean of softplus(-fake), the non-saturating loss.

    Args:
        fake: the heads' logits of reconstructions, with their gradient, any shapes.
        kind: "hinge" or "logistic" (Table 16), that of the discriminator.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: an unknown kind, or no head.

    >>> generator_loss((torch.tensor([1.0, 3.0]), torch.tensor([4.0])), "hinge").item()
    -3.0
    """
    _check(kind, fake)
    if kind == "hinge":
        return -_mean([full_precision(x) for x in fake])
    return _mean([F.softplus(-full_precision(x)) for x in fake])


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """The factor that makes the adversarial gradient half as long as the reconstruction's (Eq. 2, Table 8).

    min(|reconstruction_gradient| / (|adversarial_gradient| + 1e-4), 1e4) / 2: the paper leaves delta open, and
    delta and limit are those of Esser et al. 2021. Both gradients are of the decoder's last weight and of any one
    shape; the arithmetic is float32 (float64 for float64). A scalar tensor without a gradient.

    >>> adaptive_weight(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0])).item()
    5000.0
    """
    reconstruction_norm = full_precision(reconstruction_gradient.detach()).norm()
    adversarial_norm = full_precision(adversarial_gradient.detach()).norm()
    return 0.5 * (reconstruction_norm / (adversarial_norm + 1e-4)).clamp(0.0, 1e4)


def gradient_ratio(reconstruction_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """|adversarial_gradient| / |reconstruction_gradient|, the relative norm of Figure 7; arguments as above.

    >>> gradient_ratio(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 10.0])).item()
    2.0
    """
    return full_precision(adversarial_gradient).norm() / full_precision(reconstruction_gradient).norm()


def r1_penalty(real_logits: Logits, real_image: Tensor) -> Tensor:
    """Half the squared length of the discriminator's gradient at real images (Mescheder et al. 2018, R1).

    mean over the batch of |d score / d image|^2 / 2, where an image's score is the mean over heads of the mean over
    that head's elements, as in the losses above (StyleGAN's: its one logit). The half is in here, so the caller
    multiplies by gamma.

    Args:
        real_logits: the heads' logits of `real_image`, [B, ...] each, with their graph.
        real_image: [B, C, H, W] with `requires_grad`, what the discriminator was given (or what that was made of).

    Returns:
        A scalar tensor in float32 (float64 for float64); its gradient reaches the discriminator's parameters.

    Raises:
        ValueError: no head, or an image that needs no gradient.

    >>> image = torch.ones(1, 3, 2, 2, requires_grad=True)
    >>> r1_penalty(((2 * image).sum((1, 2, 3)),), image).item()  # the gradient is 2, twelve times
    24.0
    """
    if not real_logits:
        raise ValueError("real_logits must hold at least one head, got none")
    if not real_image.requires_grad:
        raise ValueError(
            "real_image must require a gradient before the discriminator sees it, got one that does not; "
            "call real_image.requires_grad_()"
        )
    score = len(real_image) * _mean([full_precision(x) for x in real_logits])  # summed over the batch
    (gradient,) = torch.autograd.grad(_R1_SCALE * score, real_image, create_graph=True)  # [B, C, H, W]
    gradient = full_precision(gradient).flatten(1) / _R1_SCALE  # [B, C * H * W]
    return gradient.square().sum(1).mean() / 2


def _mean(heads: list[Tensor]) -> Tensor:
    """The mean over heads of each one's mean."""
    return torch.stack([head.mean() for head in heads]).mean()


def _check(kind: str, *logits: Logits) -> None:
    check_choice("kind", kind, ADVERSARIAL_LOSSES)
    counts = [len(heads) for heads in logits]
    if 0 in counts or len(set(counts)) > 1:
        rule = "hold at least one head, real and fake the same number"
        raise ValueError(f"logits must {rule}, got {' and '.join(map(str, counts))}")
