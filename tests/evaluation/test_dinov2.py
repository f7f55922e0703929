"""Does torchvision's ViT with folded weights compute what DINOv2 is defined to, in float64 by hand?"""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.evaluation.dinov2 import (
    LARGE,
    Dinov2,
    VisionTransformerSize,
    _published_shapes,
    _unfilled,
    build_dinov2,
)
from litevae.evaluation.weights import DINOV2_FILE, MissingWeightsError, WeightSource, WrongWeightsError

SMALL = VisionTransformerSize(width=24, depth=2, heads=3)


def published(size: VisionTransformerSize) -> dict[str, Tensor]:
    """Random weights by the names and in the shapes of the published file."""
    width = size.width
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + 37 * 37, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(size.depth):
        layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in layers.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "ls1.gamma", "norm2.weight", "norm2.bias", "ls2.gamma"):
            shapes[f"blocks.{block}.{name}"] = (width,)
    generator = torch.Generator().manual_seed(0)
    return {name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def by_hand(images: Tensor, weights: dict[str, Tensor], size: VisionTransformerSize) -> Tensor:
    """The class token [B, width] of uint8 images [B, 3, 224, 224], block by block in float64."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    mean, deviation = (torch.tensor(x).double().view(3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (images.double() / 255 - mean) / deviation
    patches = x.unfold(2, 14, 14).unfold(3, 14, 14).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)  # [B, 256, 588]
    x = patches @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + positions(w["pos_embed"])  # [B, 257, width]
    for block in range(size.depth):
        own = {name.removeprefix(f"blocks.{block}."): tensor for name, tensor in w.items()}
        normal = F.layer_norm(x, (size.width,), own["norm1.weight"], own["norm1.bias"], eps=1e-6)
        q, k, v = (normal @ own["attn.qkv.weight"].T + own["attn.qkv.bias"]).chunk(3, -1)
        heads = []
        for one in range(size.heads):
            part = slice(one * size.width // size.heads, (one + 1) * size.width // size.heads)
            scores = q[..., part] @ k[..., part].mT / math.sqrt(size.width // size.heads)
            heads.append(scores.softmax(-1) @ v[..., part])
        x = x + own["ls1.gamma"] * (torch.cat(heads, -1) @ own["attn.proj.weight"].T + own["attn.proj.bias"])
        normal = F.layer_norm(x, (size.width,), own["norm2.weight"], own["norm2.bias"], eps=1e-6)
        hidden = normal @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"]
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2  # GELU
        x = x + own["ls2.gamma"] * (hidden @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"])
    return F.layer_norm(x, (size.width,), w["norm.weight"], w["norm.bias"], eps=1e-6)[:, 0]


def positions(embedding: Tensor) -> Tensor:
    """[1, 1370, C] to [1, 257, C]: bicubic (a = -0.75), output i at (i + 0.5) * 37 / 16.1 - 0.5, borders repeated."""
    matrix = torch.zeros(16, 37, dtype=torch.float64)
    for i in range(16):
        centre = (i + 0.5) * 37 / 16.1 - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            t = abs(centre - j)
            near = 1.25 * t**3 - 2.25 * t**2 + 1
            far = -0.75 * t**3 + 3.75 * t**2 - 6 * t + 3
            matrix[i, min(max(j, 0), 36)] += near if t <= 1 else far
    grid = embedding[0, 1:].view(37, 37, -1)
    resized = torch.einsum("ia,jb,abc->ijc", matrix, matrix, grid)
    return torch.cat([embedding[:, :1], resized.flatten(0, 1)[None]], 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(published(SMALL), folder / DINOV2_FILE.name)
    return folder


@pytest.fixture(scope="module")
def network(folder: Path) -> Dinov2:
    return build_dinov2("fd-dinov2", WeightSource(folder), SMALL)


def pictures(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_features_are_the_definition_s(network: Dinov2) -> None:
    images = pictures(224, 224)
    features = network(images)
    assert features.dtype == torch.float32
    assert features.shape == (2, network.width) == (2, SMALL.width)
    # float32's rounding (6e-8) of sums over 588 numbers, through two blocks
    torch.testing.assert_close(features.double(), by_hand(images, published(SMALL), SMALL), rtol=0, atol=2e-5)


def test_images_are_resized_by_antialiased_bicubic(network: Dinov2) -> None:
    images = pictures(448, 300)
    resized = F.interpolate(images.double(), (224, 224), mode="bicubic", antialias=True)
    inputs: list[Tensor] = []
    hook = network.network.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    network(images)
    hook.remove()
    preset = pytest.importorskip("torchvision.transforms.functional")
    expected = preset.normalize(resized / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(inputs[0].double(), expected, rtol=0, atol=1e-4)
    plain = F.interpolate(images.double(), (224, 224), mode="bicubic")
    assert (plain - resized).abs().mean() > 1


def test_the_published_network_has_its_304_million_parameters() -> None:
    """304,368,640 in DINOv2's own code; 1,024 of them are the mask token's, which is left out."""
    expected = _published_shapes(_unfilled("fd-dinov2", LARGE), LARGE)
    assert sum(tensor.numel() for tensor in expected.values()) == 304_368_640 - 1024


def test_random_weights_tell_images_apart_and_leave_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, other = (build_dinov2("fd-dinov2", WeightSource(random=True), SMALL) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert one.weights_hash == other.weights_hash
    assert one.label("fd-dinov2") == "fd-dinov2-random-weights"
    features = one(pictures(32, 32))
    assert (features[0] - features[1]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"blocks.1.ls2.gamma": None}, r"blocks\.1\.ls2\.gamma is missing"),
        ({"pos_embed": torch.zeros(1, 257, 24)}, r"pos_embed must have the shape \(1, 1370, 24\), got \(1, 257, 24\)"),
        ({"register_tokens": torch.zeros(1, 4, 24)}, r"it has register_tokens besides"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: dict[str, Tensor | None], problem: str) -> None:
    weights = {name: tensor for name, tensor in {**published(SMALL), **change}.items() if tensor is not None}
    torch.save(weights, tmp_path / DINOV2_FILE.name)
    with pytest.raises(WrongWeightsError, match=rf"DINOv2 ViT-L/14: {problem}; it must be DINOv2's file dinov2_vitl14"):
        build_dinov2("fd-dinov2", WeightSource(tmp_path), SMALL)


def test_the_one_file_that_is_needed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(MissingWeightsError) as error:
        build_dinov2("fd-dinov2", WeightSource(), SMALL)
    assert "fd-dinov2 needs dinov2_vitl14_pretrain.pth" in str(error.value)
    assert "from https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth, or" in str(error.value)
