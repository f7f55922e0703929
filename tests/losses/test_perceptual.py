"""Are LPIPS and ESRGAN's loss what lpips and torchvision compute, with a gradient for the reconstruction alone?"""

import copy
import functools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litevae import torchvision_shim
from litevae.losses.perceptual import KINDS, PerceptualConfig, PerceptualLoss, build_perceptual

torchvision_shim.install()  # for lpips and torchvision


@functools.cache
def built(kind: str) -> PerceptualLoss:
    return build_perceptual(PerceptualConfig(kind=kind, trunk="random"))


def random_trunk(kind: str) -> PerceptualLoss:
    """One of its own for every test."""
    return copy.deepcopy(built(kind))


def pictures(height: int = 32, width: int = 32, batch: int = 2) -> tuple[Tensor, Tensor]:
    """A reconstruction and its image, float32 in [-1, 1]; the second pair is more alike."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 3, height, width, generator=generator) * 1.6 - 0.8
    noise = torch.linspace(0.2, 0.05, batch).view(-1, 1, 1, 1)
    return image + noise * torch.randn(image.shape, generator=generator).clamp(-1, 1), image


@pytest.fixture(scope="module")
def package() -> Any:
    """The package's LPIPS with a random trunk of its own."""
    lpips = pytest.importorskip("lpips")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        return lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)


@pytest.fixture(scope="module")
def ours(package: Any, tmp_path_factory: pytest.TempPathFactory) -> PerceptualLoss:
    """Our LPIPS, that has read the package's trunk from a file."""
    path = tmp_path_factory.mktemp("trunk") / "vgg16.pth"
    slices = [module for name, module in package.net.named_children() if name.startswith("slice")]
    torch.save({f"features.{key}": x for one in slices for key, x in one.state_dict().items()}, path)
    return build_perceptual(PerceptualConfig(path=str(path)))


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (37, 51)])
def test_lpips_equals_the_package(ours: PerceptualLoss, package: Any, size: tuple[int, int]) -> None:
    pair = pictures(*size, batch=3)
    expected = package(*pair).flatten()
    torch.testing.assert_close(ours.distances(*pair), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours(*pair), expected.mean(), rtol=1e-5, atol=1e-7)
    assert expected[0] > 2 * expected[2] > 0


def test_lpips_gradient_equals_the_package_s(ours: PerceptualLoss, package: Any) -> None:
    """In float64, but for the constants of the normalisation, which both round to float32."""
    ours, package = (copy.deepcopy(x).double() for x in (ours, package))
    reconstruction, image = (x.double() for x in pictures())
    reconstruction.requires_grad_()
    (found,) = torch.autograd.grad(ours(reconstruction, image), reconstruction)
    (expected,) = torch.autograd.grad(package(reconstruction, image).mean(), reconstruction)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_vgg19_equals_torchvision_before_the_last_activation() -> None:
    """conv5_4 is torchvision's features.34; its input in [0, 1] is normalised as its own preset does."""
    models = pytest.importorskip("torchvision.models")
    functional = pytest.importorskip("torchvision.transforms.functional")
    loss = random_trunk("vgg19")
    with torch.device("meta"):
        features = models.vgg19(weights=None).features
    weights = {f"{key}.{kind}": x for key, one in loss.trunk.convolutions.items() for kind, x in one.named_parameters()}
    features.load_state_dict({key.removeprefix("features."): x for key, x in weights.items()}, assign=True)
    taken: list[Tensor] = []
    features[34].register_forward_hook(lambda _, __, output: taken.append(output.clone()))  # the ReLU works in place
    preset = models.VGG19_Weights.IMAGENET1K_V1.transforms()
    pair = pictures(37, 51)
    for x in pair:
        features(functional.normalize((x + 1) / 2, preset.mean, preset.std))
    assert (taken[0] < 0).any()
    torch.testing.assert_close(loss(*pair), nn.functional.l1_loss(*taken), rtol=1e-5, atol=0)
    per_image = (taken[0] - taken[1]).abs().mean((1, 2, 3))
    torch.testing.assert_close(loss.distances(*pair), per_image, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_equals_finite_differences_in_float64(kind: str) -> None:
    loss = random_trunk(kind).double()
    reconstruction, image = (x.double() for x in pictures(16, 24, batch=1))
    (gradient,) = torch.autograd.grad(loss(reconstruction.requires_grad_(), image), reconstruction)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            step = 1e-7 * torch.randn(reconstruction.shape, dtype=torch.float64, generator=generator)
            difference = loss(reconstruction + step, image) - loss(reconstruction - step, image)
            assert difference.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_reconstruction_has_a_gradient(kind: str) -> None:
    """A loss under no_grad, as other trainers have it, teaches nothing; a frozen network must still pass it on."""
    loss = random_trunk(kind)
    reconstruction, image = (x.requires_grad_() for x in pictures())
    loss(reconstruction, image).backward()
    assert reconstruction.grad is not None
    assert all(one.abs().sum() > 0 for one in reconstruction.grad)
    assert image.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def silence(loss: PerceptualLoss) -> None:
    """Make all features of the first stage zero."""
    bias = loss.trunk.convolutions["features.2"].bias
    assert bias is not None
    bias.data.fill_(-1000.0)


@pytest.mark.parametrize("case", ["identical", "zero features", "identical zero features"])
def test_lpips_gradient_is_finite_where_the_length_of_features_has_none(case: str) -> None:
    loss = random_trunk("lpips")
    reconstruction, image = pictures()
    if "zero" in case:
        silence(loss)
    if "identical" in case:
        reconstruction = image.clone()
    value = loss(reconstruction.requires_grad_(), image)
    value.backward()
    assert reconstruction.grad is not None
    assert reconstruction.grad.isfinite().all()
    if case != "zero features":
        assert value.item() == 0
        assert (reconstruction.grad == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_parent_s_train_leaves_it_in_eval(kind: str) -> None:
    loss = random_trunk(kind)
    pair = pictures()
    before = loss(*pair)
    parent = nn.Sequential(loss).train()
    assert parent.training
    assert not any(module.training for module in loss.modules())
    assert torch.equal(loss(*pair), before)


def by_hand(loss: PerceptualLoss, features: list[Tensor]) -> Tensor:
    """Distances [B] in float64 of the stages' features, the image's and the reconstruction's in turn."""
    pairs = list(zip(features[::2], features[1::2], strict=True))
    if loss.name.startswith("vgg19"):
        return (pairs[-1][0] - pairs[-1][1]).abs().mean((1, 2, 3))
    units = [[nn.functional.normalize(x, dim=1) for x in pair] for pair in pairs]
    weights = [weight.double().view(-1, 1, 1) for weight in loss.get_submodule("weights").parameters()]
    stages = [((x - y) ** 2 * weight).sum(1).mean((1, 2)) for (x, y), weight in zip(units, weights, strict=True)]
    return torch.stack(stages).sum(0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_only_the_trunk_is_in_half_precision(kind: str, dtype: torch.dtype) -> None:
    loss = random_trunk(kind)
    pair = pictures()
    exact = loss.distances(*pair)
    features: list[Tensor] = []
    for stage in loss.trunk.get_submodule("stages").children():
        stage.register_forward_hook(lambda _, __, output: features.append(output.detach()))
    half = pair[0].to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        found = loss.distances(half, pair[1])
    found.mean().backward()
    assert {x.dtype for x in features} == {dtype}
    assert found.dtype == torch.float32
    expected = by_hand(loss, [x.double() for x in features])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(found, exact, rtol=32 * torch.finfo(dtype).eps, atol=0)  # the layers' roundings add up
    assert half.grad is not None
    assert half.grad.isfinite().all()
    assert half.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(1, 3, 9, 8), (1, 3, 9, 9)], "reconstruction must have the image's shape (1, 3, 9, 9), got (1, 3, 9, 8)"),
        ([(1, 1, 32, 32)] * 2, "image must have 3 channels (RGB), got 1"),
        (
            [(1, 3, 15, 32)] * 2,
            "image must be at least 16x16 pixels for the poolings of VGG16, got 15x32; use larger crops or set "
            "loss.perceptual_weight to 0",
        ),
    ],
)
def test_wrong_shapes(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError) as error:
        random_trunk("lpips")(*(torch.zeros(shape) for shape in shapes))
    assert str(error.value) == message


def test_the_name_says_which_trunk(ours: PerceptualLoss) -> None:
    assert [random_trunk(kind).name for kind in KINDS] == ["lpips_random_trunk", "vgg19_random_trunk"]
    assert ours.name == "lpips"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "vgg"}, "perceptual.kind must be one of 'lpips', 'vgg19', got 'vgg'"),
        ({"trunk": "none"}, "perceptual.trunk must be one of 'pretrained', 'random', got 'none'"),
        ({"path": ""}, "perceptual.path must be a file's name or null, got ''"),
        ({"trunk": "random", "path": "x.pth"}, "perceptual.path must be null for perceptual.trunk=random, got 'x.pth'"),
    ],
)
def test_wrong_config(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        PerceptualConfig(**change)
    assert str(error.value) == message
