"""Is Inception torch-fidelity's and torchmetrics', with its resize, and never mistaken for another?"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from litevae import torchvision_shim
from litevae.evaluation.feature_networks import Inception, build_inception
from litevae.evaluation.weights import INCEPTION_FILE, MissingWeightsError, WeightSource, WrongWeightsError

torchvision_shim.install()  # for torchmetrics and torch-fidelity


@pytest.fixture(scope="module")
def random() -> Inception:
    return build_inception("rfid", WeightSource(random=True))


@pytest.fixture(scope="module")
def folder(random: Inception, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as torch-fidelity's, with random values everywhere: norms that do something."""
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for name, tensor in random.network.state_dict().items():
        if tensor.ndim == 1:
            tensor = tensor + 0.3 * torch.rand(tensor.shape, generator=generator)
        weights[name] = tensor
    folder = tmp_path_factory.mktemp("weights")
    torch.save(weights, folder / INCEPTION_FILE.name)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Inception:
    return build_inception("rfid", WeightSource(folder, check_hash=False))


def pictures(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def test_features_are_torch_fidelity_s(loaded: Inception, folder: Path) -> None:
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = str(folder / INCEPTION_FILE.name)
    theirs = fidelity.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    for images in (pictures(64, 48), pictures(320, 310)):
        features = loaded(images)
        assert features.shape == (2, loaded.width) == (2, 2048)
        torch.testing.assert_close(features, theirs(images)[0], rtol=0, atol=0)  # the same arithmetic
        assert (features[0] - features[1]).abs().mean() > 0.001 * features.mean() > 0


def test_features_are_torchmetrics_without_antialias_and_not_with_it(loaded: Inception, folder: Path) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    theirs = fid.NoTrainInceptionV3("inception", ["2048"], str(folder / INCEPTION_FILE.name), antialias=False)
    images = pictures(320, 310)[:1]
    features = loaded(images)
    torch.testing.assert_close(features, theirs(images), rtol=1e-5, atol=0)
    theirs.use_antialias = True
    assert not torch.allclose(features, theirs(images), rtol=1e-2)


def test_autocast_gradients_and_training_leave_it_alone(loaded: Inception) -> None:
    images = pictures(32, 32)[:1]
    expected = loaded(images)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        assert torch.equal(loaded.train()(images), expected)
    assert not loaded(images).requires_grad
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_random_weights_are_the_same_every_time_and_tell_images_apart(random: Inception) -> None:
    before = torch.get_rng_state()
    again = build_inception("rfid", WeightSource(random=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert again.weights_hash == random.weights_hash
    weight = random.network.state_dict()["Mixed_7c.branch3x3dbl_2.conv.weight"]
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (448 * 9)), rel=0.01)  # He et al. 2015
    flat, noise = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8), pictures(32, 32)[:1]
    features = random(torch.cat([flat, noise]))
    assert (features[1] - features[0]).abs().mean() > 0.1


def test_a_result_says_which_weights(random: Inception, loaded: Inception) -> None:
    assert random.label("rfid") == "rfid-random-weights"
    assert loaded.label("kid") == "kid-unchecked-weights"
    assert random.weights_hash != loaded.weights_hash


def test_counters_of_training_may_be_missing(folder: Path, loaded: Inception, tmp_path: Path) -> None:
    """The published file was converted from TensorFlow, which has none."""
    weights = torch.load(folder / INCEPTION_FILE.name, weights_only=True)
    converted = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(converted) < len(weights)
    torch.save(converted, tmp_path / INCEPTION_FILE.name)
    assert build_inception("rfid", WeightSource(tmp_path, check_hash=False)).weights_hash == loaded.weights_hash
    del converted["Mixed_5b.branch_pool.bn.running_var"]
    torch.save(converted, tmp_path / INCEPTION_FILE.name)
    with pytest.raises(
        WrongWeightsError, match=r"Mixed_5b\.branch_pool\.bn\.running_var is missing; it must be torch-"
    ):
        build_inception("rfid", WeightSource(tmp_path, check_hash=False))


def test_a_file_of_another_content_is_refused(folder: Path) -> None:
    with pytest.raises(WrongWeightsError, match="its SHA-256 must begin with 6726825d, got "):
        build_inception("rfid", WeightSource(folder))


def test_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(
        MissingWeightsError, match=r"^kid needs weights-inception-2015-12-05-6726825d\.pth, the weights"
    ):
        build_inception("kid", WeightSource())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        (
            torch.zeros(1, 3, 8, 8),
            TypeError,
            "images must be a uint8 tensor [B, 3, H, W], got a torch.float32 tensor of shape [1, 3, 8, 8]; round "
            "images in [-1, 1] with ((x + 1) * 127.5).round().to(torch.uint8)",
        ),
        (
            torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
            ValueError,
            "images must have shape [B, 3, H, W], got a torch.uint8 tensor of shape [1, 1, 8, 8]",
        ),
    ],
)
def test_wrong_images(random: Inception, images: Tensor, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        random(images)
    assert str(error.value) == message
