"""What do the first crops say of the teacher's latents, and how does the student start from them?

image -> [teacher's latent: its scale]; image -> DWT -> feature extraction -> [aggregation] -> latent -> losses
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.distillation.teacher import Teacher
from litevae.models.encoder import Encoder
from litevae.pixels import to_float

MEASURED_CROPS, CROPS_AT_ONCE = 128, 16
RIDGE = 1e-2
"""Added to the normal equations' diagonal, relative to its mean. With 1e-6 the weights are seven times as large for
10 % less error, and Adam's first steps lose more than that."""


def measure_stds(teacher: Teacher, crops: Iterable[Tensor], device: torch.device) -> list[float]:
    """Standard deviations of the posterior's means, channel by channel, all above 0.

    Args:
        crops: uint8 [B, 3, H, W].

    Raises:
        ValueError: a channel is constant or not finite.
    """
    count, sums, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for pixels in crops:
        means = teacher.posterior(to_float(pixels.to(device)), exact=True).mean.double().cpu()  # [B, C, h, w]
        count += means[:, 0].numel()
        sums = sums + means.sum((0, 2, 3))
        squares = squares + means.square().sum((0, 2, 3))
    mean = sums / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    if not bool(torch.isfinite(std).all()) or bool((std <= 1e-6 * (1 + mean.abs())).any()):
        stds = [f"{value:.3g}" for value in std.tolist()]
        raise ValueError(
            f"teacher.path must name an autoencoder whose latents vary in every channel, got {teacher.name} with "
            f"standard deviations {', '.join(stds)} over {MEASURED_CROPS} crops; train it, or take another one"
        )
    found: list[float] = std.tolist()
    return found


@torch.no_grad()
def fit_last_layer(encoder: Encoder, teacher: Teacher, crops: Iterable[Tensor], device: torch.device) -> None:
    """Set the student's last convolution to the least-squares solution for the teacher's moments, in float64.

    Args:
        encoder: on `device`; the rest of it stays.
        crops: uint8 [B, 3, H, W].
    """
    last = encoder.aggregation.conv_out
    features: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    size = last.in_channels * last.kernel_size[0] * last.kernel_size[1] + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    products = torch.zeros(size, last.out_channels, dtype=torch.float64)
    was_training = encoder.training
    encoder.eval()
    try:
        for pixels in crops:
            image = to_float(pixels.to(device))
            encoder(image)
            patches = F.unfold(features.pop(), last.kernel_size, padding=last.padding)  # type: ignore[arg-type]
            rows = patches.transpose(1, 2).flatten(0, 1).double().cpu()  # [B * h * w, C * 9]
            rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
            wanted = teacher.posterior(image, exact=True)
            moments = torch.cat([wanted.mean, wanted.logvar], dim=1)  # [B, 2C, h, w]
            gram += rows.T @ rows
            products += rows.T @ moments.permute(0, 2, 3, 1).flatten(0, 2).double().cpu()
    finally:
        hook.remove()
        encoder.train(was_training)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, products)  # [C * 9 + 1, 2C]
    last.weight.copy_(solution[:-1].T.reshape(last.weight.shape))
    assert last.bias is not None
    last.bias.copy_(solution[-1])
