"""Are rFID and KID torchmetrics', with the same network; is the network asked once, and the reference kept apart?"""

import re
import warnings

import pytest
import torch
from torch import Tensor, nn

from litevae import torchvision_shim
from litevae.evaluation.feature_distances import KID, DinoV2Distance, FrechetFeatureDistance, ImageFeatures
from litevae.evaluation.set_metric import Batch, SetMetric
from litevae.pixels import to_float, to_uint8

torchvision_shim.install()  # for torchmetrics

DIMENSION = 6


class RandomNetwork(nn.Module):
    """uint8 [B, 3, H, W] to float64 [B, 6]; counts the images it has seen."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(DIMENSION, 3, 5, 5, generator=generator, dtype=torch.float64))
        self.seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        assert pixels.dtype == torch.uint8
        assert not self.training
        self.seen += len(pixels)
        maps = nn.functional.conv2d(pixels.double() / 255, self.weight)
        return maps.relu().mean((2, 3))


def pairs(count: int = 60) -> tuple[Tensor, Tensor]:
    """Images and reconstructions [count, 3, 16, 16], that are not 8 bits."""
    images = torch.rand(count, 3, 16, 16) * torch.rand(count, 1, 1, 1) * 2 - 1
    return images, (0.9 * images + 0.1 * torch.randn_like(images)).clamp(-1, 1)


def batches(images: Tensor, reconstructions: Tensor, size: int = 16, first: int = 0) -> list[Batch]:
    starts = range(0, len(images), size)
    parts = [(start, images[start : start + size], reconstructions[start : start + size]) for start in starts]
    return [Batch(tuple(range(first + start, first + start + len(x))), x, y) for start, x, y in parts]


def add_all(some: list[Batch], *metrics: SetMetric) -> None:
    for batch in some:
        for metric in metrics:
            metric.add(batch)


def test_rfid_equals_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    images, reconstructions = pairs()
    ours = FrechetFeatureDistance(ImageFeatures(RandomNetwork()))
    add_all(batches(images, reconstructions), ours)
    theirs = FrechetInceptionDistance(feature=RandomNetwork().eval(), input_img_size=(3, 16, 16))
    theirs.update(to_uint8(images), real=True)
    theirs.update(to_uint8(reconstructions), real=False)
    expected = theirs.compute()
    assert expected.dtype == torch.float64
    assert ours.values()["rfid"] == pytest.approx(expected.item(), rel=1e-8)  # theirs: eigenvalues of S1 S2
    assert ours.name == "rfid"
    assert DinoV2Distance.name == "fid-dinov2"


def of_torchmetrics(images: Tensor, reconstructions: Tensor, subsets: int, size: int) -> tuple[float, float]:
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kid = KernelInceptionDistance(feature=RandomNetwork().eval(), subsets=subsets, subset_size=size)
    kid.update(to_uint8(images), real=True)
    kid.update(to_uint8(reconstructions), real=False)
    mean, std = kid.compute()
    return mean.item(), std.item()


def test_kid_of_few_images_equals_torchmetrics() -> None:
    images, reconstructions = pairs()
    ours = KID(ImageFeatures(RandomNetwork()))
    add_all(batches(images, reconstructions), ours)
    values = ours.values()
    assert values["kid"] == pytest.approx(of_torchmetrics(images, reconstructions, 1, 60)[0], rel=1e-9)
    assert values["kid_std"] == 0


def test_kid_of_subsets_agrees_with_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KID, "subset_size", 30)
    images, reconstructions = pairs(90)
    features = ImageFeatures(RandomNetwork())
    first, again, other = KID(features), KID(features), KID(features, seed=1)
    add_all(batches(images, reconstructions), first, other)
    add_all(batches(images, reconstructions)[::-1], again)  # the order of batches does not count
    mean, std = of_torchmetrics(images, reconstructions, 400, 30)
    values = first.values()
    assert values == again.values() != other.values()
    assert abs(values["kid"] - mean) < 5 * std * (1 / 100 + 1 / 400) ** 0.5  # both draw their subsets
    assert values["kid_std"] == pytest.approx(std, rel=0.4)


def test_kid_keeps_the_first_images(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KID.most_images == KID.most_kept == 10_000
    monkeypatch.setattr(KID, "most_kept", 20)
    images, reconstructions = pairs()
    features = ImageFeatures(RandomNetwork())
    some, first = KID(features), KID(features)
    add_all(batches(images, reconstructions)[::-1], some)
    add_all(batches(images[:20], reconstructions[:20]), first)
    assert sorted(some.kept) == list(range(20))
    assert some.values() == first.values()


def test_two_halves_are_one() -> None:
    images, reconstructions = pairs()
    features = ImageFeatures(RandomNetwork())
    whole, half, other = ([FrechetFeatureDistance(features), KID(features)] for _ in range(3))
    add_all(batches(images, reconstructions), *whole)
    add_all(batches(images[:25], reconstructions[:25], size=7), *half)
    add_all(batches(images[25:], reconstructions[25:], first=25), *other)
    for metric, part in zip(half, other, strict=True):
        metric.merge(part.sums, part.kept)
    for metric, expected in zip(half, whole, strict=True):
        name = metric.name
        assert metric.values()[name] == pytest.approx(expected.values()[name], rel=1e-9)


def test_the_network_sees_each_image_once() -> None:
    network = RandomNetwork()
    features = ImageFeatures(network)
    images, reconstructions = pairs(40)
    add_all(batches(images, reconstructions), FrechetFeatureDistance(features), KID(features))
    assert network.seen == 80


def test_a_reference_is_kept_apart() -> None:
    network = RandomNetwork()
    features = ImageFeatures(network)
    images, reconstructions = pairs()
    first = FrechetFeatureDistance(features)
    assert first.reference == {}
    add_all(batches(images, reconstructions), first)
    network.seen = 0

    shares = [FrechetFeatureDistance(features, first.reference) for _ in range(2)]
    for share, indices in zip(shares, (slice(0, 32), slice(32, 60)), strict=True):
        add_all(batches(images[indices], reconstructions[indices]), share)
    shares[0].merge(shares[1].sums, shares[1].kept)
    assert network.seen == 60  # reconstructions alone
    assert not any(name.startswith("originals") for name in shares[0].sums)
    assert shares[0].values()["rfid"] == pytest.approx(first.values()["rfid"], rel=1e-9)
    assert shares[1].reference.keys() == first.reference.keys()


def test_a_reference_that_is_missing_is_named() -> None:
    features = ImageFeatures(RandomNetwork())
    with pytest.raises(ValueError, match=re.escape("reference must hold the sums of at least one image, got ['mean']")):
        FrechetFeatureDistance(features, {"mean": torch.zeros(2)})
    earlier = FrechetFeatureDistance(features)
    add_all(batches(*pairs(10)), earlier)
    stopped = FrechetFeatureDistance(features, earlier.reference)
    add_all(batches(*pairs(10)), stopped)
    goes_on = FrechetFeatureDistance(features)
    goes_on.merge(stopped.sums, stopped.kept)
    add_all(batches(*pairs(5)), goes_on)
    with pytest.raises(ValueError, match="reference must be given again to go on, got '5 originals, 15 reconstruct"):
        goes_on.values()


def test_pixels_are_rounded_to_the_nearest() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    seen: list[Tensor] = []
    features = ImageFeatures(RandomNetwork())
    features.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = Batch((0, 1), to_float(pixels) - 0.49 / 127.5, to_float(pixels) + 0.49 / 127.5)
    add_all([batch], FrechetFeatureDistance(features))
    assert len(seen) == 2
    assert all(torch.equal(images, pixels) for images in seen)
    assert to_uint8(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


def test_few_images() -> None:
    features = ImageFeatures(RandomNetwork())
    for metric in (FrechetFeatureDistance(features), DinoV2Distance(features), KID(features)):
        assert metric.warnings() == []
        with pytest.raises(ValueError, match=f"images for {metric.name} must be at least 2, got 0"):
            metric.values()
        add_all(batches(*pairs(1)), metric)
        with pytest.raises(ValueError, match=f"images for {metric.name} must be at least 2, got 1"):
            metric.values()
    rfid = FrechetFeatureDistance(features)
    add_all(batches(*pairs(DIMENSION)), rfid)
    (warning,) = rfid.warnings()
    assert warning.startswith("rfid: 6 images are too few for Gaussians of 6 numbers")
    add_all(batches(*pairs(1), first=DIMENSION), rfid)
    assert rfid.warnings() == []


def test_features_of_another_shape_are_named() -> None:
    with pytest.raises(ValueError, match=re.escape("the network's features must have shape [B, D], got")):
        ImageFeatures(nn.Identity())(torch.zeros(1, 3, 8, 8))
