"""Is MMD^2 what a double loop, a closed form and the order of magnitude of Table 6 say?"""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torch import Tensor
from torch.nn import functional as F

from litevae.evaluation.mmd import MMD, PRINTED, MMDOptions, compared_with_gaussians, kernels, normalised, within
from litevae.evaluation.set_metric import Batch


def batch_of(means: Tensor, stds: Tensor | None = None, first: int = 0) -> Batch:
    images = torch.zeros(len(means), 3, 8, 8)
    indices = tuple(range(first, first + len(means)))
    return Batch(indices, images, images, means, means, torch.zeros_like(means) if stds is None else stds)


def latents(count: int = 12, scale: float = 2.0, mean: float = 1.0) -> Tensor:
    return torch.randn(count, 2, 3, 4, generator=torch.Generator().manual_seed(0)) * scale + mean


def looped(x: np.ndarray, y: np.ndarray, sigma: float, options: MMDOptions) -> float:
    """MMD^2 by Gretton et al. 2012, pair by pair."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return math.exp(-float(((a - b) ** 2).sum()) / (options.denominator * sigma**2))

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        pairs = [k(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if options.biased or not same or i != j]
        return sum(pairs) / len(pairs)

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize("options", [{}, {"biased": True}, {"denominator": 1}])
def test_rows_are_those_of_a_double_loop(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = MMDOptions(sigmas=(2.0, 5.0), draws=3, **options)
    drawn: list[Tensor] = []
    randn = torch.randn

    def recorded(*args: Any, **named: Any) -> Tensor:
        drawn.append(randn(*args, **named))
        return drawn[-1]

    metric = MMD(chosen)
    metric.add(batch_of(latents()))
    monkeypatch.setattr(torch, "randn", recorded)
    result = metric.values()["mmd"]
    monkeypatch.undo()
    x = latents().double().numpy()
    x = (x / x.std()).reshape(12, -1)
    gaussians = [gaussian.numpy() for gaussian in drawn]
    assert [gaussian.shape for gaussian in gaussians] == [x.shape] * 4
    for row, sigma in zip(result["rows"], chosen.sigmas, strict=True):
        found = [100 * looped(x, gaussian, sigma, chosen) for gaussian in gaussians[1:]]
        zero = [100 * looped(*pair, sigma, chosen) for pair in itertools.pairwise(gaussians)]
        for name, values in (("mmd", found), ("gaussian", zero)):
            assert row[name] == pytest.approx(np.mean(values), rel=1e-10)
            assert row[f"{name}_plus_minus"] == pytest.approx(np.std(values, ddof=1), rel=1e-8)
    assert result["median_distance"] == pytest.approx(np.sort(pdist(x))[(66 - 1) // 2], rel=1e-12)
    assert (result["images"], result["dimension"], result["draws"]) == (12, 24, 3)


def test_kernels_are_scipys_distances() -> None:
    x, y = latents(5).flatten(1).double(), latents(7, mean=-1.0).flatten(1).double()
    expected = np.exp(-cdist(x, y, "sqeuclidean") / (2 * 3.0**2))
    np.testing.assert_allclose(kernels(x, y, MMDOptions(sigmas=(3.0,)))[0], expected, rtol=1e-12)


def expected_kernel(sigma: float, mean: Tensor, variance: Tensor) -> float:
    """E exp(-|d|^2 / (2 sigma^2)) of d ~ N(mean, diag(variance)), a Gaussian integral."""
    total = sigma**2 + variance
    return float((sigma**2 / total).sqrt().prod() * torch.exp(-0.5 * (mean.square() / total).sum()))


def test_it_is_unbiased_between_two_gaussians_and_the_biased_one_is_not() -> None:
    """The mean over 200 sets of 20, within five standard errors of the closed form; the biased one is far above."""
    sigma, elements = 2.0, 6
    mean, std = torch.full((elements,), 0.3), torch.linspace(0.5, 1.5, elements)
    zero, one = torch.zeros(elements), torch.ones(elements)
    same, own = expected_kernel(sigma, zero, 2 * std**2), expected_kernel(sigma, zero, 2 * one)
    truth = same + own - 2 * expected_kernel(sigma, mean, std**2 + 1)
    generator = torch.Generator().manual_seed(0)
    errors = {}
    for biased in (False, True):
        found = []
        for seed in range(200):
            x = mean + std * torch.randn(20, elements, generator=generator)
            options = MMDOptions(sigmas=(sigma,), biased=biased, draws=2, seed=seed)
            found.append(compared_with_gaussians(x.double(), options)[0][0, 0])
        values = torch.stack(found)
        errors[biased] = ((values.mean() - truth) / (values.std() / 200**0.5)).item()
    assert abs(errors[False]) < 5
    assert errors[True] > 15


def photographs(count: int) -> Tensor:
    """Random crops shrunk to [count, 4, 32, 32]: the colours and their mean."""
    import skimage.data

    rng = np.random.default_rng(0)
    names = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")
    shrunk = []
    for index in range(count):
        photo = torch.from_numpy(getattr(skimage.data, names[index % len(names)])()).double().permute(2, 0, 1)
        side = int(rng.integers(128, min(photo.shape[1:])))
        top, left = (int(rng.integers(length - side + 1)) for length in photo.shape[1:])
        crop = F.adaptive_avg_pool2d(photo[None, :, top : top + side, left : left + side], 32)[0]
        shrunk.append(torch.cat([crop, crop.mean(0, keepdim=True)]))
    return torch.stack(shrunk)


def test_shrunk_photographs_are_of_the_order_and_the_shape_of_table_6() -> None:
    """Image-like latents of 4,096 elements with unit variance and the mean 0.5, between half and four times the print.

    The scale of raw Stable Diffusion latents, 5.5, is another order at 25 and at 500.
    """
    x = photographs(60)
    x = (x - x.mean()) / x.std()
    found, zero = compared_with_gaussians((x + 0.5).flatten(1), MMDOptions(draws=2))
    rows = (100 * found.mean(0)).tolist()
    printed = [litevae for _, litevae in PRINTED.values()]
    assert all(0.5 * mean < row < 4 * mean for row, (mean, _) in zip(rows, printed, strict=True)), rows
    assert rows[2] / rows[3] == pytest.approx(5.14 / 1.09, rel=0.2)
    assert rows[3] / rows[4] == pytest.approx(1.09 / 0.28, rel=0.1)
    assert (100 * zero).abs().max() < 0.2
    raw = 100 * compared_with_gaussians((5.5 * x).flatten(1), MMDOptions(draws=2))[0].mean(0)
    assert raw[0] < 0.5 * printed[0][0]
    assert raw[4] > 10 * printed[4][0]


def test_latents_are_normalised() -> None:
    x = latents(40, scale=3.0).double() * torch.tensor([1.0, 4.0]).view(2, 1, 1) + 2
    assert normalised(x, "overall").std(correction=0).item() == pytest.approx(1)
    assert normalised(x, "overall").mean() / normalised(x, "none").mean() == pytest.approx(1 / x.std(correction=0))
    std, mean = torch.std_mean(normalised(x, "channel"), dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(std, torch.ones(2).double())
    torch.testing.assert_close(mean, torch.zeros(2).double(), rtol=0, atol=1e-12)
    assert normalised(x, "none") is x


def test_samples_have_the_posterior_s_noise_whatever_the_batches() -> None:
    stds = torch.full_like(latents(), 0.5)
    metrics = [MMD(MMDOptions(latent="sample", images=10)) for _ in range(2)]
    metrics[0].add(batch_of(latents(), stds))
    for first in (5, 0):  # also out of order
        part = slice(first, first + 7 if first else 5)
        metrics[1].add(batch_of(latents()[part], stds[part], first))
    assert sorted(metrics[0].kept) == list(range(10))
    noise = torch.stack([metrics[0].kept[index] for index in range(10)]) - latents()[:10]
    assert noise.std().item() == pytest.approx(0.5, rel=0.25)  # five standard errors of 240 numbers
    assert metrics[0].values() == metrics[1].values()


def test_state_is_what_is_kept() -> None:
    whole, part, other = (MMD(MMDOptions(draws=2, images=12)) for _ in range(3))
    whole.add(batch_of(latents()))
    part.add(batch_of(latents()[:5]))
    other.add(batch_of(latents()[5:], first=5))
    part.merge(other.sums, other.kept)
    assert part.values() == whole.values()
    json.dumps(whole.values(), allow_nan=False)
    assert whole.kept[0].dtype == torch.float32
    assert whole.warnings() == ["mmd: 12 latents are few, 1000 and more make a number"]


def test_printed_values_stand_beside_their_sigmas() -> None:
    metric = MMD(MMDOptions(sigmas=(25, 30.0), draws=2))
    metric.add(batch_of(latents()))
    rows = metric.values()["mmd"]["rows"]
    assert rows[0]["paper"] == {"sd-vae": [8.67, 0.10], "litevae": [1.44, 0.28]}
    assert "paper" not in rows[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigmas": (0.0,)}, r"sigmas\[0\] must be finite and above 0, got 0.0"),
        ({"denominator": 3}, "denominator must be from 1 to 2, got 3"),
        ({"biased": 1}, "biased must be True or False, got 1"),
        ({"normalisation": "std"}, "normalisation must be one of 'overall', 'channel', 'none', got 'std'"),
        ({"latent": "mode"}, "latent must be one of 'mean', 'sample', got 'mode'"),
        ({"images": 1}, "images must be at least 2, got 1"),
        ({"draws": 1}, "draws must be at least 2, got 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        MMDOptions(**options)


def test_one_latent_has_no_mmd() -> None:
    metric = MMD()
    metric.add(batch_of(latents(1)))
    with pytest.raises(ValueError, match="images of mmd must be at least two, got 1"):
        metric.values()
    assert torch.isnan(within(latents(1).flatten(1).double(), MMDOptions())).all()
