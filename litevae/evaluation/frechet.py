"""How far apart are two Gaussians, and which Gaussian do sums over vectors describe?

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [reconstruction measured]
"""

import torch
from torch import Tensor

from litevae.evaluation.set_metric import add_to
from litevae_kernels.checks import wrong_value

ROWS = 192
"""Sums of outer products are kept as block rows of so many rows, each up to its end on the diagonal."""


def add_vectors(sums: dict[str, Tensor], side: str, vectors: Tensor) -> None:
    """Add vectors to the sums of one side: their number, their sum, and the lower triangle of their outer products.

    Sums are kept without a shift. A variance then has a relative error of about 1e-16 * (1 + mean^2 / variance) times
    the number of additions: 1e-9 or less for 50,000 images and a mean of 10 standard deviations.

    Args:
        sums: `SetMetric.sums`; entries "<side>/images" (int64, []), "<side>/sum" [P, D] and "<side>/outer<row>"
            [P, rows, D'] are made or added to, in place.
        vectors: float64 [P, N, D]: N vectors of each of P Gaussians. Many at once are faster than few.
    """
    dimension = vectors.shape[2]
    add_to(sums, f"{side}/images", torch.tensor(vectors.shape[1], device=vectors.device))
    add_to(sums, f"{side}/sum", vectors.sum(1))  # [P, D]
    for start in range(0, dimension, ROWS):
        end, name = min(start + ROWS, dimension), f"{side}/outer{start}"
        if name not in sums:
            sums[name] = vectors.new_zeros(len(vectors), end - start, end)
        sums[name] = sums[name].to(vectors.device)
        sums[name].baddbmm_(vectors[:, :, start:end].mT, vectors[:, :, :end])


def count_images(sums: dict[str, Tensor], side: str) -> int:
    """How many vectors were added to each Gaussian."""
    return int(sums[f"{side}/images"]) if f"{side}/images" in sums else 0


def check_images(metric: str, images: int) -> None:
    """Raise a ValueError for fewer images than a covariance needs."""
    if images < 2:
        raise wrong_value(f"images for {metric}", "be at least 2", images, "one image has no covariance")


def few_images(metric: str, images: int, dimension: int) -> list[str]:
    """The warning of a covariance without full rank, if it is one.

    The distance is convex in both covariances together, so those of a sample make it too large on average.
    """
    if images > dimension:
        return []
    reason = f"{images} images are too few for Gaussians of {dimension} numbers, which biases the distance upwards"
    return [f"{metric}: {reason}; compare it only with results of as many images"]


def gaussian(sums: dict[str, Tensor], side: str, first: int = 0, last: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of one side, of the Gaussians from `first` up to `last`.

    Args:
        sums: what `add_vectors` made of at least 2 vectors.

    Returns:
        Means [P, D] and covariances [P, D, D], symmetric, float64.
    """
    images = count_images(sums, side)
    mean = sums[f"{side}/sum"][first:last] / images  # [P, D]
    covariance = mean.new_empty(*mean.shape, mean.shape[1])  # [P, D, D]
    for start in range(0, mean.shape[1], ROWS):
        rows = sums[f"{side}/outer{start}"][first:last]  # [P, rows, end]
        end = rows.shape[2]
        covariance[:, start:end, :end] = rows
        covariance[:, :start, start:end] = rows[:, :, :start].mT
    covariance.baddbmm_(mean[:, :, None], mean[:, None, :], alpha=-images)
    return mean, covariance.div_(images - 1)


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    """|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), the squared 2-Wasserstein distance of two Gaussians.

    Heusel et al. 2017, Eq. 6. With S1 = B B^T the symmetric B^T S2 B has the eigenvalues of S1 S2 that are not 0, and
    the trace of its root is real, whatever the rank. Eigenvalues below 0, which rounding makes, count as 0.

    Args:
        mean1, mean2: float64 [..., D].
        covariance1, covariance2: float64 [..., D, D], symmetric.

    Returns:
        float64 [...]; not clamped: of equal Gaussians it is 0 within the rounding of the traces.

    >>> import torch
    >>> zero, one = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    >>> round(frechet_distance(zero, one, zero + 3, 4 * one).item(), 12)  # 2 * 3^2 + 2 * (2 - 1)^2
    20.0
    """
    factor = _factor(covariance1)  # B, [..., D, r]
    product = factor.mT @ covariance2 @ factor  # [..., r, r]
    trace_of_root = torch.linalg.eigvalsh(product).clamp_min(0).sqrt().sum(-1)
    traces = (covariance1.diagonal(dim1=-2, dim2=-1) + covariance2.diagonal(dim1=-2, dim2=-1)).sum(-1)
    return (mean1 - mean2).square().sum(-1) + traces - 2 * trace_of_root


def _factor(covariance: Tensor) -> Tensor:
    """B with B B^T = S, of symmetric S without eigenvalues below 0: [..., D, D] -> [..., D, r], r at least the rank.

    Cholesky's, where S is regular. Else, as of few images, Cholesky's with pivots, which ends at the rank. Eigenvectors
    would take ten times as long, and lose half of the digits where the rank is low.
    """
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not failed.any():
        return factor
    size = covariance.shape[-1]
    rest = covariance.diagonal(dim1=-2, dim2=-1).clone()  # of S - B B^T, [..., D]
    nothing = size * torch.finfo(rest.dtype).eps * rest.amax(-1, keepdim=True)
    factor = covariance.new_zeros(*covariance.shape[:-1], size)
    for column in range(factor.shape[-1]):
        largest, pivot = rest.max(-1, keepdim=True)  # [..., 1]
        if (largest <= nothing).all():
            return factor[..., :column]
        row = pivot[..., None].expand(*pivot.shape[:-1], 1, size)
        found = factor[..., :column]
        new = covariance.gather(-2, row).squeeze(-2)  # the pivot's row, [..., D]
        new = new - (found @ found.gather(-2, row[..., :column]).mT).squeeze(-1)
        new = torch.where(largest > nothing, new * largest.clamp_min(nothing).rsqrt(), 0.0)
        factor[..., column] = new
        rest -= new.square()
        rest.scatter_(-1, pivot, 0.0)
    return factor
