"""VGG without its classifier, the feature extractor of the perceptual losses, and how its weights are found.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import http.client
import importlib.util
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TRUNKS = ("pretrained", "random")
RANDOM_SEED = 0

# ImageNet's mean and standard deviation, of images in [0, 1].
_MEAN = (0.485, 0.456, 0.406)
_STANDARD_DEVIATION = (0.229, 0.224, 0.225)
_WIDTHS = (64, 128, 256, 512, 512)
# What torch.load raises for a file that is absent, empty, cut off, or holds more than plain tensors and values.
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile)


class TrunkError(Exception):
    """The weights of a perceptual loss cannot be had; the message is one line and names the way out."""


@dataclass(frozen=True)
class Architecture:
    """A VGG (Simonyan and Zisserman 2015): how many convolutions each of its five stages has, and where weights are."""

    name: str
    depths: tuple[int, ...]
    url: str

    @property
    def file(self) -> str:
        """What torchvision calls its weights."""
        return self.url.rpartition("/")[2]

    def layers(self) -> Iterator[str]:
        """torchvision's names of the convolutions. Between them it counts activations and poolings."""
        index = 0
        for depth in self.depths:
            for _ in range(depth):
                yield f"features.{index}"
                index += 2
            index += 1


VGG16 = Architecture("VGG16", (2, 2, 3, 3, 3), "https://download.pytorch.org/models/vgg16-397923af.pth")
VGG19 = Architecture("VGG19", (2, 2, 4, 4, 4), "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth")


class Trunk(nn.Module):
    """A VGG without its classifier, in stages, for images in [-1, 1]. Frozen.

    A stage halves the image first (all but the first one), then convolves and activates. `last_activation=False` ends
    with the last convolution. Weights have no values yet; they are channels_last, which convolutions prefer.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, architecture: Architecture, *, last_activation: bool) -> None:
        super().__init__()
        self.architecture = architecture
        stages: list[list[nn.Module]] = []
        channels = 3
        for depth, width in zip(architecture.depths, _WIDTHS, strict=True):
            stages.append([nn.MaxPool2d(2)] if stages else [])
            for _ in range(depth):
                convolution = nn.Conv2d(channels, width, 3, padding=1, device="meta")  # draws no random numbers
                stages[-1] += [convolution, nn.ReLU(inplace=True)]
                channels = width
        if not last_activation:
            stages[-1].pop()
        self.stages = nn.ModuleList([nn.Sequential(*layers) for layers in stages])
        self.to_empty(device="cpu").requires_grad_(False)
        for convolution in self.convolutions.values():
            convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its types
        # x -> (x + 1) / 2 -> (x - mean) / deviation, in one step
        mean, deviation = (torch.tensor(x, device="cpu").view(1, 3, 1, 1) for x in (_MEAN, _STANDARD_DEVIATION))
        self.register_buffer("shift", 2 * mean - 1)
        self.register_buffer("scale", 2 * deviation)

    @property
    def convolutions(self) -> dict[str, nn.Conv2d]:
        """The convolutions, under torchvision's names."""
        found = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        return dict(zip(self.architecture.layers(), found, strict=True))

    def normalize(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1], any float dtype, as ImageNet's networks want it, in the trunk's dtype."""
        return (image.to(self.shift.dtype) - self.shift) / self.scale


def build_trunk(architecture: Architecture, trunk: str, path: str | None, *, last_activation: bool) -> Trunk:
    """A frozen trunk on the CPU; a TrunkError if its weights cannot be read, downloaded, or are another network's.

    Args:
        architecture: VGG16 or VGG19.
        trunk: "pretrained", or "random": the same random weights every time; the global generators stay as they are.
        path: "pretrained": torchvision's file of weights. None: torch hub's cache, filled by a download if need be.
        last_activation: whether the last stage ends with its ReLU.
    """
    built = Trunk(architecture, last_activation=last_activation)
    if trunk == "random":
        _randomize(built)
    elif path is not None:
        _copy(_read(Path(path).expanduser(), architecture), built, f"perceptual.path={path}")
    else:
        _copy(_download(architecture), built, str(_cached_file(architecture)))
    return built


def load_lpips_weights() -> list[Tensor]:
    """How much each channel counts in LPIPS v0.1 on VGG16: five tensors [C], one a stage, that the package lpips ships.

    The package is not imported: with it would come torchvision, and modules whose Dropout a parent's train() enables.
    """
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        raise TrunkError("LPIPS needs the weights in the package lpips, which is not installed; pip install lpips")
    path = Path(package.origin).parent / "weights" / "v0.1" / "vgg.pth"
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return [weights[f"lin{stage}.model.1.weight"].view(width) for stage, width in enumerate(_WIDTHS)]
    except _DAMAGE as error:
        raise TrunkError(f"{path} cannot be read: {_reason(error)}; pip install --force-reinstall lpips") from error


def _randomize(trunk: Trunk) -> None:
    """Weights whose features keep their size from layer to layer (He et al. 2015), as torchvision draws them."""
    generator = torch.Generator(device="cpu").manual_seed(RANDOM_SEED)
    for convolution in trunk.convolutions.values():
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        assert convolution.bias is not None
        nn.init.zeros_(convolution.bias)


def _read(path: Path, architecture: Architecture) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise TrunkError(
            f"perceptual.path={path} cannot be read as {architecture.name}'s weights: {_reason(error)}; it must be "
            f"torchvision's file {architecture.file}, from {architecture.url}"
        ) from error


def _download(architecture: Architecture) -> Any:
    """torch hub's way: its cache or, with a check of the file's hash, the network."""
    try:
        return torch.hub.load_state_dict_from_url(
            architecture.url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (*_DAMAGE, http.client.HTTPException) as error:
        cached = _cached_file(architecture)
        if cached.exists():
            raise TrunkError(
                f"{cached} cannot be read: {_reason(error)}; delete it to have it downloaded again"
            ) from error
        raise TrunkError(
            f"{architecture.name}'s weights cannot be downloaded: {_reason(error)}; on a machine with internet "
            f"download {architecture.url} (about 550 MB), and either put it into {cached.parent} here or name it with "
            f"perceptual.path=FILE (perceptual.trunk=random needs no file, but is for tests)"
        ) from error


def _cached_file(architecture: Architecture) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / architecture.file


def _copy(weights: Any, trunk: Trunk, source: str) -> None:
    """Fill the trunk; every convolution of both must be in both. The classifier stays behind."""
    architecture = trunk.architecture
    expected = {
        f"{name}.{kind}": parameter
        for name, convolution in trunk.convolutions.items()
        for kind, parameter in convolution.named_parameters()
    }
    problem = _mismatch(weights, expected)
    if problem is not None:
        raise TrunkError(
            f"{source} holds other weights than {architecture.name}'s: {problem}; it must be torchvision's file "
            f"{architecture.file}, from {architecture.url}"
        )
    with torch.no_grad():
        for key, parameter in expected.items():
            parameter.copy_(weights[key])


def _mismatch(weights: Any, expected: dict[str, nn.Parameter]) -> str | None:
    """The first thing that is wrong with a file's content."""
    if not isinstance(weights, dict):
        return f"it holds a {type(weights).__name__} instead of tensors by name"
    for key, parameter in expected.items():
        found = weights.get(key)
        if not isinstance(found, Tensor):
            return f"{key} is missing"
        if found.shape != parameter.shape:
            return f"{key} must have the shape {tuple(parameter.shape)}, got {tuple(found.shape)}"
        if not found.isfinite().all():
            return f"{key} holds a NaN or an infinity"
    surplus = [key for key in weights if key not in expected and not str(key).startswith("classifier.")]
    return f"it has {surplus[0]} besides" if surplus else None


def _reason(error: BaseException) -> str:
    """An error in half a line. What PyTorch says of a foreign file is a page, about trusting it."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, pickle.UnpicklingError):
        return "it is not a file of plain tensors"
    return str(error).strip().partition("\n")[0] or type(error).__name__
