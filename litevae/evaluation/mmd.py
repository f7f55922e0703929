"""How far are latents from a standard Gaussian? Maximum mean discrepancy, the paper's Table 6.

image -> DWT -> feature extraction -> aggregation -> [latent measured] -> decoder -> losses
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from litevae.evaluation.latents import finite, posterior_of
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.seeds import derive_seed
from litevae_kernels.checks import check_choice, check_flag, check_int, check_number, wrong_value

PRINTED: dict[float, tuple[tuple[float, float], tuple[float, float]]] = {
    25: ((8.67, 0.10), (1.44, 0.28)),
    50: ((28.90, 0.49), (7.94, 0.19)),
    100: ((10.77, 0.29), (5.14, 0.19)),
    250: ((1.78, 0.06), (1.09, 0.04)),
    500: ((0.44, 0.02), (0.28, 0.01)),
}
"""Table 6: sigma -> (mean, +-) of SD-VAE and of LiteVAE."""
NORMALISATIONS = {
    "overall": "divided by the standard deviation of all elements, LDM's scaling factor",
    "channel": "each channel with mean 0 and standard deviation 1",
    "none": "as the model has them",
}
LATENTS = {"mean": "the posterior's mean", "sample": "a sample of the posterior"}
FEWEST = 1000
"""Below so many images `warnings` says that there are few."""


@dataclass(frozen=True)
class MMDOptions:
    """What Table 6 leaves open; the defaults give its order of magnitude and its shape.

    The table states RBF kernels, five bandwidths and a standard Gaussian. That its numbers are 100 MMD^2 between
    flattened latents of 4096 elements is inferred: MMD^2 is at most 2, the rows fall as 1 / sigma^2 at the end, and
    two independent draws of N(0, I) in 4096 dimensions are 90.5 apart, the middle of the sigmas.
    """

    sigmas: tuple[float, ...] = tuple(PRINTED)
    """Bandwidths of the kernel."""
    denominator: int = 2
    """k(x, y) = exp(-|x - y|^2 / (denominator sigma^2)): 2, or 1, which is as usual."""
    biased: bool = False
    """With the pairs of an element with itself (Gretton et al. 2012, eq. 5), or without (eq. 3), then unbiased."""
    normalisation: str = "overall"
    """`overall`, `channel` or `none`: what is done to the latents first."""
    latent: str = "mean"
    """`mean` or `sample`."""
    images: int = 2000
    """Latents at most, of the first images, and as many draws of the Gaussian."""
    draws: int = 10
    """Times that the Gaussian is drawn anew: +- is their standard deviation."""
    seed: int = 0
    """Of the draws, and of the samples of posteriors."""

    def __post_init__(self) -> None:
        for index, sigma in enumerate(self.sigmas):
            check_number(f"sigmas[{index}]", sigma, above=0)
        check_int("denominator", self.denominator, at_least=1, at_most=2)
        check_flag("biased", self.biased)
        check_choice("normalisation", self.normalisation, NORMALISATIONS)
        check_choice("latent", self.latent, LATENTS)
        check_int("images", self.images, at_least=2)
        check_int("draws", self.draws, at_least=2)
        check_int("seed", self.seed, at_least=0)


class MMD(SetMetric):
    """100 MMD^2 between latents and N(0, I) for the RBF kernels of Table 6, in float64 on the CPU.

    Latents are kept in float32. The time is that of products of matrices: it grows with the square of the images, and
    with the elements of a latent.
    """

    name: ClassVar[str] = "mmd"

    def __init__(self, options: MMDOptions | None = None) -> None:
        super().__init__()
        self.options = options or MMDOptions()
        self.most_images = self.most_kept = self.options.images

    def add(self, batch: Batch) -> None:
        means, stds = posterior_of(batch)
        for index, mean, std in zip(batch.indices, means.float().cpu(), stds.float().cpu(), strict=True):
            if self.options.latent == "sample":
                generator = torch.Generator().manual_seed(derive_seed(self.options.seed, "mmd posterior", index))
                mean = mean + std * torch.randn(mean.shape, generator=generator)
            if index < self.options.images:
                self.keep(index, mean.clone())  # [C, h, w], without the rest of its batch

    def warnings(self) -> list[str]:
        few = f"mmd: {len(self.kept)} latents are few, {FEWEST} and more make a number"
        return [few] if len(self.kept) < FEWEST else []

    def values(self) -> dict[str, Any]:
        """{"mmd": ...}, with a row for each sigma.

        "mmd" and "mmd_plus_minus" are mean and standard deviation over draws of the Gaussian; "gaussian" and
        "gaussian_plus_minus" are those of one draw against another, which is what 0 looks like with so many images;
        "paper" the printed ones. Only the Gaussian is drawn anew, so +- is far below the printed one, which does not
        say what it is the spread of: other images, or fewer, make more.

        Raises:
            ValueError: fewer than two latents.
        """
        options = self.options
        if len(self.kept) < 2:
            raise wrong_value("images of mmd", "be at least two", len(self.kept))
        latents = torch.stack([self.kept[index] for index in sorted(self.kept)]).double()  # [N, C, h, w]
        latents = normalised(latents, options.normalisation).flatten(1)  # [N, d]
        found, zero = compared_with_gaussians(latents, options)  # [draws, sigmas] each
        result = {
            "unit": "100 MMD^2",
            "kernel": f"exp(-|x - y|^2 / ({options.denominator} sigma^2))",
            "estimator": "biased" if options.biased else "unbiased",
            "latents": f"{LATENTS[options.latent]}, {NORMALISATIONS[options.normalisation]}",
            "images": len(latents),
            "draws": options.draws,
            "dimension": latents.shape[1],
            "median_distance": torch.pdist(latents).median().item(),
            "rows": [_row(*numbers) for numbers in zip(options.sigmas, found.unbind(1), zero.unbind(1), strict=True)],
        }
        return {self.name: finite(result)}


def normalised(latents: Tensor, normalisation: str) -> Tensor:
    """Latents [N, C, h, w] as a key of `NORMALISATIONS` says."""
    if normalisation == "overall":
        return latents / latents.std(correction=0)
    if normalisation == "channel":
        std, mean = torch.std_mean(latents, dim=(0, 2, 3), correction=0, keepdim=True)
        return (latents - mean) / std
    return latents


def compared_with_gaussians(latents: Tensor, options: MMDOptions) -> tuple[Tensor, Tensor]:
    """MMD^2 of latents [N, d] and draws of N(0, I), and of each draw and the one before: [draws, sigmas] each."""
    own = within(latents, options)
    before = _gaussian(latents, options.seed, 0)
    own_before = within(before, options)
    found, zero = [], []
    for index in range(options.draws):
        gaussian = _gaussian(latents, options.seed, index + 1)
        own_gaussian = within(gaussian, options)
        found.append(own + own_gaussian - 2 * kernels(latents, gaussian, options).mean((1, 2)))
        zero.append(own_before + own_gaussian - 2 * kernels(before, gaussian, options).mean((1, 2)))
        before, own_before = gaussian, own_gaussian
    return torch.stack(found), torch.stack(zero)


def within(x: Tensor, options: MMDOptions) -> Tensor:
    """The mean kernel of pairs of x [N, d], of one with itself too where it is biased: [sigmas]."""
    k, count = kernels(x, x, options), len(x)
    if options.biased:
        return k.mean((1, 2))
    return (k.sum((1, 2)) - k.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))


def kernels(x: Tensor, y: Tensor, options: MMDOptions) -> Tensor:
    """k(x, y) for every sigma: [N, d], [M, d] -> [sigmas, N, M]."""
    squares = torch.cdist(x, y).square()
    return torch.stack([torch.exp(-squares / (options.denominator * sigma**2)) for sigma in options.sigmas])


def _gaussian(like: Tensor, seed: int, index: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "mmd", index))
    return torch.randn(like.shape, generator=generator, dtype=like.dtype)


def _row(sigma: float, found: Tensor, zero: Tensor) -> dict[str, Any]:
    row: dict[str, Any] = {"sigma": sigma}
    for name, values in (("mmd", found), ("gaussian", zero)):
        row[name], row[f"{name}_plus_minus"] = (100 * values.mean()).item(), (100 * values.std()).item()
    if sigma in PRINTED:
        row["paper"] = {"sd-vae": list(PRINTED[sigma][0]), "litevae": list(PRINTED[sigma][1])}
    return row
