"""Are the Gaussians of sums NumPy's, and is the distance SciPy's, for full rank and without it?"""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from litevae.evaluation.frechet import (
    ROWS,
    add_vectors,
    check_images,
    count_images,
    few_images,
    frechet_distance,
    gaussian,
)


def sums_of(vectors: Tensor, parts: int = 1) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    for part in vectors.chunk(parts, dim=1):
        add_vectors(sums, "side", part)
    return sums


def covariances(dimension: int, images: int, count: int = 2) -> Tensor:
    vectors = torch.randn(count, images, dimension, dtype=torch.float64) @ torch.randn(dimension, dimension).double()
    return gaussian(sums_of(vectors), "side")[1]  # [count, D, D]


@pytest.mark.parametrize("dimension", [1, ROWS, 2 * ROWS + 5])
def test_gaussian_equals_numpy(dimension: int) -> None:
    vectors = torch.randn(3, 50, dimension, dtype=torch.float64)
    sums = sums_of(vectors, parts=4)
    assert count_images(sums, "side") == 50
    assert count_images(sums, "another side") == 0
    for first, last in ((0, None), (1, 3)):
        mean, covariance = gaussian(sums, "side", first, last)
        for index, one in enumerate(vectors[first:last].numpy()):
            np.testing.assert_allclose(mean[index], one.mean(0), rtol=0, atol=1e-14)
            np.testing.assert_allclose(covariance[index], np.cov(one, rowvar=False), rtol=0, atol=1e-13)


def test_a_large_mean_costs_no_more_digits_than_documented() -> None:
    images, ratio = 2000, 1000.0  # mean / standard deviation
    vectors = torch.randn(1, images, 5, dtype=torch.float64) + ratio
    _, covariance = gaussian(sums_of(vectors, parts=20), "side")
    bound = images * 2.0**-53 * (1 + ratio**2) * 1.1  # 1.1: the sample's own deviation is not 1
    np.testing.assert_allclose(covariance[0], np.cov(vectors[0].numpy(), rowvar=False), rtol=0, atol=bound)


def test_merged_sums_are_those_of_all() -> None:
    vectors = torch.randn(2, 40, ROWS + 3, dtype=torch.float64)
    merged, other = sums_of(vectors[:, :15]), sums_of(vectors[:, 15:])
    for name, value in other.items():
        merged[name] += value
    for name, value in sums_of(vectors).items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=1e-13)


def test_distance_equals_scipy() -> None:
    first, second = covariances(20, 200), covariances(20, 150)
    means = torch.randn(2, 2, 20, dtype=torch.float64)
    distances = frechet_distance(means[0], first, means[1], second)
    for index, distance in enumerate(distances.tolist()):
        root = scipy.linalg.sqrtm(first[index].numpy() @ second[index].numpy()).real
        traces = np.trace(first[index]) + np.trace(second[index]) - 2 * np.trace(root)
        difference = (means[0, index] - means[1, index]).numpy()
        assert distance == pytest.approx(difference @ difference + traces, rel=1e-10)


def test_distance_of_commuting_covariances_has_a_closed_form() -> None:
    rotation = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64))[0]
    variances = torch.rand(2, 30, dtype=torch.float64)
    first, second = rotation @ variances[:, :, None].mul(torch.eye(30)) @ rotation.mT
    mean = torch.zeros(30, dtype=torch.float64)
    expected = (variances[0].sqrt() - variances[1].sqrt()).square().sum().item()
    assert frechet_distance(mean, first, mean, second).item() == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(mean, first, mean, first).item() == pytest.approx(0, abs=1e-13)


def test_distance_with_fewer_images_than_numbers() -> None:
    """With S = A^T A, tr (S1 S2)^(1/2) is the sum of the singular values of A1 A2^T, which has full rank."""
    vectors = torch.randn(2, 12, 60, dtype=torch.float64)
    factors = (vectors - vectors.mean(1, keepdim=True)) / 11**0.5  # [2, 12, 60]
    first, second = gaussian(sums_of(vectors), "side")[1]
    mean = torch.zeros(60, dtype=torch.float64)
    expected = factors.square().sum() - 2 * torch.linalg.svdvals(factors[0] @ factors[1].mT).sum()
    assert frechet_distance(mean, first, mean, second).item() == pytest.approx(expected.item(), rel=1e-11)


def test_distance_of_points() -> None:
    """Covariances of 0, of some or all Gaussians."""
    mean, covariance = torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 3, 3, dtype=torch.float64)
    assert frechet_distance(mean, covariance, mean + 2, covariance).tolist() == [12, 12]
    covariance[1] = torch.eye(3)
    assert frechet_distance(mean, covariance, mean, covariance.flip(0)).tolist() == [3, 3]


def test_images_that_are_too_few_are_named() -> None:
    check_images("fwd", 2)
    with pytest.raises(ValueError, match="images for fwd must be at least 2, got 1; one image has no covariance"):
        check_images("fwd", 1)
    assert few_images("rfid", 2049, 2048) == []
    (warning,) = few_images("rfid", 2048, 2048)
    assert warning.startswith("rfid: 2048 images are too few for Gaussians of 2048 numbers, which biases")


def test_few_images_bias_upwards() -> None:
    """What the warning says: of one Gaussian, the distance of two samples grows as they shrink."""
    mean = torch.zeros(1, 20, dtype=torch.float64)
    few, many = (frechet_distance(mean, *covariances_of_unit(n)).item() for n in (25, 400))
    assert few > 4 * many > 0


def covariances_of_unit(images: int) -> tuple[Tensor, Tensor, Tensor]:
    first, second = (gaussian(sums_of(torch.randn(1, images, 20).double()), "side")[1] for _ in range(2))
    return first, torch.zeros(1, 20, dtype=torch.float64), second
