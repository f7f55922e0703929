"""Is LPIPS on either trunk the package lpips', and named by its weights?"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from litevae import torchvision_shim
from litevae.evaluation.lpips_networks import ALEXNET, build_lpips
from litevae.evaluation.metrics import lpips_distance
from litevae.evaluation.weights import ALEXNET_FILE, VGG16_FILE, MissingWeightsError, WeightSource, WrongWeightsError
from litevae.losses.vgg import Trunk

torchvision_shim.install()  # for lpips

FILES = {"lpips-vgg": VGG16_FILE, "lpips-alex": ALEXNET_FILE}


def package(trunk: str) -> Any:
    """The package's LPIPS with a random trunk."""
    lpips = pytest.importorskip("lpips")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        return lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)


def write_trunk(theirs: Any, path: Path) -> None:
    """As torchvision's files are, with a bit of a classifier."""
    slices = [module for name, module in theirs.net.named_children() if name.startswith("slice")]
    weights = {f"features.{key}": x for one in slices for key, x in one.state_dict().items()}
    torch.save({**weights, "classifier.1.weight": torch.zeros(2, 2)}, path)


def pictures(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Reconstructions, the second one closer, and images."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    noise = torch.tensor([0.5, 0.1]).view(2, 1, 1, 1)
    return (image + noise * torch.randn(image.shape, generator=generator)).clamp(-1, 1), image


@pytest.mark.parametrize("size", [(31, 31), (37, 51), (64, 128)])
def test_alexnet_equals_the_package(tmp_path: Path, size: tuple[int, int]) -> None:
    theirs = package("alex")
    write_trunk(theirs, tmp_path / ALEXNET_FILE.name)
    ours = build_lpips("lpips-alex", WeightSource(tmp_path, check_hash=False))
    reconstruction, image = pictures(*size)
    with torch.no_grad():
        expected = theirs(reconstruction, image).flatten()
    torch.testing.assert_close(lpips_distance(ours, reconstruction, image), expected, rtol=1e-5, atol=1e-7)
    assert expected[0] > 2 * expected[1] > 0


def test_vgg_equals_the_package(tmp_path: Path) -> None:
    theirs = package("vgg")
    write_trunk(theirs, tmp_path / VGG16_FILE.name)
    ours = build_lpips("lpips-vgg", WeightSource(tmp_path, check_hash=False))
    reconstruction, image = pictures(16, 24)
    with torch.no_grad():
        expected = theirs(reconstruction, image).flatten()
    torch.testing.assert_close(lpips_distance(ours, reconstruction, image), expected, rtol=1e-5, atol=1e-7)


def test_alexnet_s_layers_are_torchvision_s() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = models.alexnet(weights=None).features.state_dict()
    found = {name: tuple(x.shape) for name, x in Trunk(ALEXNET, last_activation=True).tensors().items()}
    assert found == {f"features.{name}": tuple(x.shape) for name, x in theirs.items()}


@pytest.mark.parametrize("metric", sorted(FILES))
def test_a_random_trunk_is_named_and_the_same_every_time(metric: str) -> None:
    before = torch.get_rng_state()
    one, other = (build_lpips(metric, WeightSource(random=True)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.name == f"{metric}-random-weights"
    pair = pictures(32, 32)
    distance = lpips_distance(one, *pair)
    assert torch.equal(distance, lpips_distance(other, *pair))
    assert distance[0] > distance[1] > 0


def test_alexnet_refuses_images_that_end_before_its_poolings() -> None:
    ours = build_lpips("lpips-alex", WeightSource(random=True))
    assert ours.trunk.architecture.smallest == 31
    with pytest.raises(ValueError, match="at least 31x31 pixels for the poolings of AlexNet, got 30x64"):
        lpips_distance(ours, *pictures(30, 64))


@pytest.mark.parametrize("metric", sorted(FILES))
def test_its_file_is_named_and_never_downloaded(metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(MissingWeightsError) as error:
        build_lpips(metric, WeightSource())
    assert str(error.value).startswith(f"{metric} needs {FILES[metric].name}, the weights of {FILES[metric].network} (")
    assert list(tmp_path.iterdir()) == []


def test_another_network_s_file_and_another_hash_are_refused(tmp_path: Path) -> None:
    write_trunk(package("alex"), tmp_path / ALEXNET_FILE.name)
    with pytest.raises(WrongWeightsError, match="its SHA-256 must begin with 7be5be79, got "):
        build_lpips("lpips-alex", WeightSource(tmp_path))
    (tmp_path / ALEXNET_FILE.name).rename(tmp_path / VGG16_FILE.name)
    shapes = r"features\.0\.weight must have the shape \(64, 3, 3, 3\), got \(64, 3, 11, 11\)"
    with pytest.raises(WrongWeightsError, match=rf"those of VGG16: {shapes}; it must be torchvision's file vgg16-397"):
        build_lpips("lpips-vgg", WeightSource(tmp_path))


def test_another_metric() -> None:
    with pytest.raises(ValueError, match="metric must be one of 'lpips-vgg', 'lpips-alex', got 'lpips'"):
        build_lpips("lpips", WeightSource(random=True))
