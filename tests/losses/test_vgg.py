"""Are the trunks torchvision's VGGs, found where they should be, and refused by name where they are not?"""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from litevae import torchvision_shim
from litevae.losses.perceptual import PerceptualConfig, build_perceptual
from litevae.losses.vgg import VGG16, VGG19, Architecture, Trunk, TrunkError, build_trunk

# Of VGG's widths, but quick to write and read.
SMALL = Architecture("VGG8", (1, 1, 1, 1, 1), "https://example.org/vgg8-0123abcd.pth")

torchvision_shim.install()  # for lpips and torchvision


def state(architecture: Architecture = SMALL) -> dict[str, Tensor]:
    """Weights as torchvision's files have them, each tensor of another value."""
    convolutions = Trunk(architecture, last_activation=True).convolutions
    shapes = {f"{name}.{kind}": x.shape for name, layer in convolutions.items() for kind, x in layer.named_parameters()}
    weights = {key: torch.full(shape, float(value)) for value, (key, shape) in enumerate(shapes.items())}
    return {**weights, "classifier.0.weight": torch.zeros(8, 8), "classifier.0.bias": torch.zeros(8)}


def assert_holds(trunk: Trunk, weights: dict[str, Tensor]) -> None:
    for name, layer in trunk.convolutions.items():
        for kind, parameter in layer.named_parameters():
            torch.testing.assert_close(parameter.data, weights[f"{name}.{kind}"], rtol=0, atol=0)


@pytest.mark.parametrize("architecture", [VGG16, VGG19], ids=lambda architecture: architecture.name)
def test_layers_shapes_url_and_normalization_are_torchvision_s(architecture: Architecture) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = getattr(models, architecture.name.lower())(weights=None).features
    expected = {f"features.{key}": tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    assert {k: tuple(x.shape) for k, x in state(architecture).items() if "classifier" not in k} == expected

    published = getattr(models, f"{architecture.name}_Weights").IMAGENET1K_V1
    assert architecture.url == published.url
    image = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    preset = published.transforms()
    mean, deviation = (torch.tensor(x, dtype=torch.float64).view(1, 3, 1, 1) for x in (preset.mean, preset.std))
    normalized = Trunk(architecture, last_activation=True).double().normalize(2 * image - 1)
    torch.testing.assert_close(normalized, (image - mean) / deviation, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_file_is_loaded_without_its_classifier(tmp_path: Path, dtype: torch.dtype) -> None:
    weights = state()
    torch.save({key: tensor.to(dtype) for key, tensor in weights.items()}, tmp_path / "weights.pth")
    trunk = build_trunk(SMALL, "pretrained", str(tmp_path / "weights.pth"), last_activation=True)
    assert_holds(trunk, weights)
    assert sum(parameter.numel() for parameter in trunk.parameters()) == 3_910_784  # no classifier


def test_torchvision_s_oldest_files_are_read_too(tmp_path: Path) -> None:
    """vgg16-397923af.pth is from before torch.save wrote zip archives."""
    torch.save(state(), tmp_path / "weights.pth", _use_new_zipfile_serialization=False)
    assert_holds(build_trunk(SMALL, "pretrained", str(tmp_path / "weights.pth"), last_activation=True), state())


def without(weights: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name != key}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: without(s, "features.3.bias"), "features.3.bias is missing"),
        (
            lambda s: {**s, "features.6.weight": torch.zeros(256, 64, 3, 3)},
            "features.6.weight must have the shape (256, 128, 3, 3), got (256, 64, 3, 3)",
        ),
        (lambda s: {**s, "features.99.weight": torch.zeros(1)}, "it has features.99.weight besides"),
        (
            lambda s: {**s, "features.0.bias": torch.full((64,), torch.nan)},
            "features.0.bias holds a NaN or an infinity",
        ),
        (lambda s: {"state_dict": s}, "features.0.weight is missing"),
        (lambda s: list(s.values()), "it holds a list instead of tensors by name"),
    ],
)
def test_a_file_of_other_weights(tmp_path: Path, change: Callable[[dict[str, Tensor]], object], problem: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(change(state()), path)
    with pytest.raises(TrunkError) as error:
        build_trunk(SMALL, "pretrained", str(path), last_activation=True)
    assert str(error.value) == (
        f"perceptual.path={path} holds other weights than VGG8's: {problem}; it must be torchvision's file "
        "vgg8-0123abcd.pth, from https://example.org/vgg8-0123abcd.pth"
    )


class Hostile:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def saved(content: object) -> bytes:
    """What torch.save makes of it."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["absent", "folder", "empty", "text", "cut off", "hostile"])
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    path, harm = tmp_path / "weights.pth", tmp_path / "harm"
    hostile = saved({**state(), "more": Hostile(harm)})
    contents = {"empty": b"", "text": b"not weights", "cut off": saved(state())[:1000], "hostile": hostile}
    if kind == "folder":
        path.mkdir()
    elif kind != "absent":
        path.write_bytes(contents[kind])
    with pytest.raises(TrunkError) as error:
        build_trunk(SMALL, "pretrained", str(path), last_activation=True)
    text = str(error.value)
    assert text.startswith(f"perceptual.path={path} cannot be read as VGG8's weights: ")
    assert text.endswith("torchvision's file vgg8-0123abcd.pth, from https://example.org/vgg8-0123abcd.pth")
    assert "\n" not in text
    assert not harm.exists()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch hub's folder for files, empty, in a world without network."""

    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("kind", "file"), [("lpips", "vgg16-397923af.pth"), ("vgg19", "vgg19-dcbb9e9d.pth")], ids=["lpips", "vgg19"]
)
def test_offline_the_error_says_which_file_to_put_where(hub: Path, kind: str, file: str) -> None:
    with pytest.raises(TrunkError) as error:
        build_perceptual(PerceptualConfig(kind=kind))
    text = str(error.value)
    assert "cannot be downloaded: <urlopen error Name or service not known>" in text
    assert f"download https://download.pytorch.org/models/{file}" in text
    assert f"put it into {hub} here" in text
    assert "perceptual.path=FILE" in text
    assert "perceptual.trunk=random" in text
    assert "\n" not in text
    assert list(hub.iterdir()) == []


def test_hub_s_cache_needs_no_network(hub: Path) -> None:
    hub.mkdir(parents=True)
    torch.save(state(), hub / SMALL.file)
    assert_holds(build_trunk(SMALL, "pretrained", None, last_activation=True), state())
    torch.save(without(state(), "features.0.weight"), hub / SMALL.file)
    with pytest.raises(TrunkError, match=r"hub.checkpoints.vgg8-0123abcd\.pth holds other weights .* is missing"):
        build_trunk(SMALL, "pretrained", None, last_activation=True)
    (hub / SMALL.file).write_bytes(b"cut off")
    with pytest.raises(TrunkError, match=r"vgg8-0123abcd\.pth cannot be read: .*; delete it"):
        build_trunk(SMALL, "pretrained", None, last_activation=True)


def test_a_download_with_another_hash_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Response(io.BytesIO):
        def info(self) -> "Response":
            return self

        def get_all(self, _: str) -> None:
            return None

    monkeypatch.setattr(torch.hub, "urlopen", lambda _: Response(b"something else"))
    with pytest.raises(TrunkError, match="cannot be downloaded: invalid hash value"):
        build_trunk(SMALL, "pretrained", None, last_activation=True)
    assert list(hub.iterdir()) == []


def test_random_weights_are_the_same_every_time_and_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_trunk(SMALL, "random", None, last_activation=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = build_trunk(SMALL, "random", None, last_activation=True)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    weight = first.convolutions["features.12"].weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)  # He et al. 2015, of what goes out


def test_nothing_is_imported_before_it_is_needed() -> None:
    script = (
        "import sys, litevae.losses, litevae.losses.perceptual as p;"
        "p.build_perceptual(p.PerceptualConfig(trunk='random'));"
        "print(sorted({'lpips', 'torchvision'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
