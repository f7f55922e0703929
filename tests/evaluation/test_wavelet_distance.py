"""Is FWD what ptwt's packets and SciPy make of the same pixels, and does it grow with every kind of damage?"""

from collections.abc import Callable

import numpy as np
import ptwt
import pytest
import scipy.linalg
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from litevae.evaluation.set_metric import Batch
from litevae.evaluation.wavelet_distance import FWD, check_size, state_gigabytes, wavelet_packets
from litevae.pixels import to_float

from .damages import DAMAGES, crops


def random_images(count: int, height: int = 32, width: int = 48) -> Tensor:
    """float32 [count, 3, H, W] that are 8 bits exactly, with detail on every scale."""
    coarse = torch.nn.functional.interpolate(torch.rand(count, 3, height // 8, width // 8), (height, width))
    return to_float((200 * coarse + 55 * torch.rand(count, 3, height, width)).to(torch.uint8))


def batches(images: Tensor, reconstructions: Tensor, size: int, first: int = 0) -> list[Batch]:
    return [
        Batch(tuple(range(first + start, first + start + len(part))), part, reconstructions[start : start + size])
        for start, part in ((start, images[start : start + size]) for start in range(0, len(images), size))
    ]


def measured(images: Tensor, reconstructions: Tensor, size: int = 64) -> FWD:
    metric = FWD()
    for batch in batches(images, reconstructions, size):
        metric.add(batch)
    return metric


def fwd(images: Tensor, reconstructions: Tensor) -> float:
    value: float = measured(images, reconstructions).values()["fwd"]
    return value


def packets_of_ptwt(images: Tensor) -> np.ndarray:
    """[256, N, D], float64, of images in [-1, 1] as 8 bits in [0, 1]."""
    pixels = torch.round((images + 1) * 127.5).double() / 255
    tree = ptwt.WaveletPacket2D(pixels, "haar", mode="zero", maxlevel=4)
    nodes = [node for row in tree.get_natural_order(4) for node in ([row] if isinstance(row, str) else row)]
    return np.stack([tree[node].flatten(1).numpy() for node in nodes])


def test_equals_ptwt_and_scipy() -> None:
    images = random_images(60)
    reconstructions = (0.8 * images + 0.1 * torch.randn_like(images)).clamp(-1, 1)  # not 8 bits: they are rounded
    distances = []
    for x, y in zip(packets_of_ptwt(images), packets_of_ptwt(reconstructions), strict=True):
        a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        root = scipy.linalg.sqrtm(a @ b).real
        distances.append(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root))
    assert len(distances) == 256
    assert fwd(images, reconstructions) == pytest.approx(np.mean(distances), rel=1e-10)


def test_packets_are_orthonormal() -> None:
    images = torch.randn(7, 2, 16, 32, dtype=torch.float64)
    packets = wavelet_packets(images)
    assert packets.shape == (256, 7, 4)
    torch.testing.assert_close(packets.square().sum((0, 2)), images.square().sum((1, 2, 3)))
    assert torch.equal(wavelet_packets(images.to(memory_format=torch.channels_last)), packets)
    torch.testing.assert_close(packets[0], 16 * images.unfold(2, 16, 16).unfold(3, 16, 16).mean((4, 5)).flatten(1))


def test_any_split_gives_the_same_bits() -> None:
    images = random_images(300, 16, 16)
    reconstructions = images.roll(1, 0)
    whole, first, second = measured(images, reconstructions, 300), FWD(), FWD()
    for batch in batches(images[:101], reconstructions[:101], 7):
        first.add(batch)
    for batch in batches(images[101:], reconstructions[101:], 130):
        second.add(batch)
    for metric in (whole, first, second):
        metric.flush()
    first.merge(second.sums, second.kept)
    assert first.sums.keys() == whole.sums.keys()
    assert all(torch.equal(first.sums[name], value) for name, value in whole.sums.items())
    assert first.values() == whole.values()
    assert whole.kept == {}


def test_the_size_of_the_state_is_what_is_said() -> None:
    metric = measured(*random_images(4, 128, 144).chunk(2))
    metric.flush()
    stated = sum(value.nbytes for name, value in metric.sums.items() if "outer" in name)
    assert state_gigabytes(128, 144) == stated / 1e9
    assert 1.5 < state_gigabytes(256, 256) < 1.52


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("photograph", [skimage.data.astronaut, lambda: skimage.data.coffee()[:384, :512]])
def test_grows_with_damage_of_photographs(damage: str, photograph: Callable[[], np.ndarray]) -> None:
    photo = Image.fromarray(photograph())
    amounts, apply = DAMAGES[damage]
    distances = [fwd(crops(photo), crops(apply(photo, amount))) for amount in amounts]
    assert distances == sorted(distances)
    assert distances[0] > 1e-9


def test_equal_images_have_no_distance() -> None:
    images = random_images(40, 32, 32)
    assert fwd(images, images) == pytest.approx(0, abs=1e-12)


def test_bad_images_are_named() -> None:
    metric = FWD()
    with pytest.raises(ValueError, match=r"images for fwd must have sides that 16 divides, got \(32, 40\); crop them"):
        metric.add(Batch((0,), torch.zeros(1, 3, 32, 40), torch.zeros(1, 3, 32, 40)))
    with pytest.raises(ValueError, match=r"sums of fwd for 512x512 must take at most 8 GB, got 20\.5; measure smaller"):
        metric.add(Batch((0,), torch.zeros(1, 3, 1, 1).expand(1, 3, 512, 512), torch.zeros(1, 3, 512, 512)))
    check_size(512, 512, most_gigabytes=21)
    with pytest.raises(ValueError, match="images for fwd must be at least 2, got 0"):
        metric.values()
    metric.add(Batch((0,), torch.zeros(1, 3, 32, 16), torch.zeros(1, 3, 32, 16)))
    with pytest.raises(
        ValueError, match=r"all have the size of the first, \(32, 16\), got \(16, 32\); measure each size apart"
    ):
        metric.add(Batch((1,), torch.zeros(1, 3, 16, 32), torch.zeros(1, 3, 16, 32)))
    with pytest.raises(ValueError, match="images for fwd must be at least 2, got 1"):
        metric.values()


def test_few_images_are_warned_of() -> None:
    assert FWD().warnings() == []
    images = random_images(13, 32, 32)  # 12 numbers in a packet
    assert measured(images, images).warnings() == []
    (warning,) = measured(images[:12], images[:12]).warnings()
    assert warning.startswith("fwd: 12 images are too few for Gaussians of 12 numbers")
