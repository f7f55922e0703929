"""How far is the student's posterior from the teacher's, and its picture from the image? Every term by name.

image -> [teacher's posterior, student's posterior -> teacher's decoder -> losses]

This is the only place of a distillation where a weight meets a loss.
"""

from torch import Tensor, nn

from litevae.checks import full_precision
from litevae.distillation.config import DistillationLossConfig
from litevae.losses.l1 import l1_loss
from litevae.models.latent import DiagonalGaussian
from litevae_kernels.checks import wrong_value

Terms = dict[str, Tensor]


class DistillationLoss(nn.Module):
    """The sum of weight * term over the terms whose weight is not 0.

    Args:
        stds: standard deviations [C] of the teacher's means, by channel.
        perceptual: a frozen network (litevae/losses/perceptual.py); it must be given with `perceptual_weight`.
    """

    stds: Tensor

    def __init__(self, config: DistillationLossConfig, stds: Tensor, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        if (perceptual is None) != (config.perceptual_weight == 0):
            rule = f"be {'a network' if config.perceptual_weight else 'None'} for loss.perceptual_weight="
            raise wrong_value("perceptual", f"{rule}{config.perceptual_weight}", perceptual)
        self.config, self.perceptual = config, perceptual
        self.register_buffer("stds", stds.float().view(1, -1, 1, 1))

    def forward(
        self, student: DiagonalGaussian, teacher: DiagonalGaussian, image: Tensor, decoded: Tensor | None = None
    ) -> tuple[Tensor, Terms]:
        """The weighted sum, with its graph; every term without its weight and graph, "total" among them.

        Args:
            student, teacher: posteriors of [B, C, h, w].
            image: [B, 3, H, W] in [-1, 1].
            decoded: what the decoder makes of the student's mean, the same shape; None without a term that needs it.
        """
        config = self.config
        terms: Terms = {}
        if config.mean_weight:
            terms["mean"] = mean_error(student, teacher, self.stds)
        if config.logvar_weight:
            terms["logvar"] = logvar_error(student, teacher)
        if config.kl_weight:
            terms["kl"] = kl_per_element(teacher, student)
        if decoded is not None and config.reconstruction_weight:
            terms["reconstruction"] = l1_loss(decoded, image)
        if decoded is not None and self.perceptual is not None:
            terms[str(self.perceptual.name)] = self.perceptual(decoded, image)
        weights = {**config.weights, getattr(self.perceptual, "name", "perceptual"): config.perceptual_weight}
        total = sum((weights[name] * term for name, term in terms.items()), image.new_zeros(()))
        return total, {"total": total.detach(), **{name: term.detach() for name, term in terms.items()}}


def mean_error(student: DiagonalGaussian, teacher: DiagonalGaussian, stds: Tensor) -> Tensor:
    """Mean of ((mean - mean') / std)^2 over all elements, a scalar; `stds` [1, C, 1, 1]."""
    return ((full_precision(student.mean) - teacher.mean) / stds).square().mean()


def logvar_error(student: DiagonalGaussian, teacher: DiagonalGaussian) -> Tensor:
    """Mean of (logvar - logvar')^2 over all elements, a scalar; log-variances in [-30, 20]."""
    return (student.logvar - teacher.logvar).square().mean()


def kl_per_element(first: DiagonalGaussian, second: DiagonalGaussian) -> Tensor:
    """KL(first || second) in closed form, in nats, mean over all elements: a scalar.

    >>> near, far = (DiagonalGaussian(torch.full((1, 2, 4, 4), value)) for value in (0.0, 1.0))
    >>> round(kl_per_element(near, far).item(), 4)  # (1 + 1) / e / 2 - 1 / 2 + 1 / 2
    0.3679
    """
    return first.kl(second).mean() / first.mean[0].numel()
