"""VGG without its classifier, the feature extractor of the perceptual losses, and how its weights are found.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import http.client
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from litevae.losses.weight_files import DAMAGE, WeightsError, hub_folder, mismatch, read_weights, reason

TRUNKS = ("pretrained", "random")
RANDOM_SEED = 0

# ImageNet's mean and standard deviation, of images in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class TrunkError(WeightsError):
    """The weights of a perceptual loss cannot be had; the message is one line and names the way out."""


@dataclass(frozen=True)
class Architecture:
    """A VGG (Simonyan and Zisserman 2015): how many convolutions each of its five stages has, and where weights are."""

    name: str
    depths: tuple[int, ...]
    url: str
    widths: ClassVar[tuple[int, ...]] = (64, 128, 256, 512, 512)
    """Channels of each stage."""
    smallest: ClassVar[int] = 16
    """The least height and width of an image: four poolings."""
    lpips_file: ClassVar[str] = "vgg.pth"
    """Its weights in the package lpips."""

    @property
    def file(self) -> str:
        """What torchvision calls its weights."""
        return self.url.rpartition("/")[2]

    def stages(self) -> list[list[nn.Module]]:
        """Layers in torchvision's order; those of a stage end where features are compared."""
        stages: list[list[nn.Module]] = []
        channels = 3
        for depth, width in zip(self.depths, self.widths, strict=True):
            stages.append([nn.MaxPool2d(2)] if stages else [])
            for _ in range(depth):
                stages[-1] += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
        return stages


VGG16 = Architecture("VGG16", (2, 2, 3, 3, 3), "https://download.pytorch.org/models/vgg16-397923af.pth")
VGG19 = Architecture("VGG19", (2, 2, 4, 4, 4), "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth")


class Trunk(nn.Module):
    """A VGG without its classifier, in stages, for images in [-1, 1]. Frozen.

    A stage pools first (all but the first one), then convolves and activates. `last_activation=False` ends with the
    last convolution. Weights have no values yet; they are channels_last, which convolutions prefer.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, architecture: Architecture, *, last_activation: bool) -> None:
        super().__init__()
        self.architecture = architecture
        with torch.device("meta"):  # draws no random numbers
            stages = architecture.stages()
        if not last_activation:
            stages[-1].pop()
        self.stages = nn.ModuleList([nn.Sequential(*layers) for layers in stages])
        self.to_empty(device="cpu").requires_grad_(False)
        for convolution in self.convolutions.values():
            convolution.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in its types
        # x -> (x + 1) / 2 -> (x - mean) / deviation, in one step
        mean, deviation = (torch.tensor(x, device="cpu").view(1, 3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        self.register_buffer("shift", 2 * mean - 1)
        self.register_buffer("scale", 2 * deviation)

    @property
    def convolutions(self) -> dict[str, nn.Conv2d]:
        """The convolutions, under torchvision's names, which count activations and poolings too."""
        layers = enumerate(layer for stage in self.stages for layer in stage.children())
        return {f"features.{index}": layer for index, layer in layers if isinstance(layer, nn.Conv2d)}

    def tensors(self) -> dict[str, nn.Parameter]:
        """All weights, under torchvision's names. What else its files hold is the "classifier."."""
        return {
            f"{name}.{kind}": parameter
            for name, convolution in self.convolutions.items()
            for kind, parameter in convolution.named_parameters()
        }

    @torch.no_grad()
    def fill(self, weights: dict[str, Tensor]) -> None:
        """Copy the values of a file that has all `tensors`."""
        for name, parameter in self.tensors().items():
            parameter.copy_(weights[name])

    @torch.no_grad()
    def randomize(self) -> None:
        """Weights whose features keep their size from layer to layer (He et al. 2015), as torchvision draws them.

        They are the same every time; the global generators stay as they are.
        """
        generator = torch.Generator(device="cpu").manual_seed(RANDOM_SEED)
        for convolution in self.convolutions.values():
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)

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
        built.randomize()
    elif path is not None:
        _fill(built, _read(Path(path).expanduser(), architecture), f"perceptual.path={path}")
    else:
        _fill(built, _download(architecture), str(hub_folder() / architecture.file))
    return built


def load_lpips_weights(architecture: Architecture = VGG16) -> list[Tensor]:
    """How much each channel counts in LPIPS v0.1: five tensors [C], one a stage, that the package lpips ships.

    The package is not imported: with it would come torchvision, and modules whose Dropout a parent's train() enables.
    """
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        raise TrunkError("LPIPS needs the weights in the package lpips, which is not installed; pip install lpips")
    path = Path(package.origin).parent / "weights" / "v0.1" / architecture.lpips_file
    try:
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return [weights[f"lin{stage}.model.1.weight"].view(width) for stage, width in enumerate(architecture.widths)]
    except DAMAGE as error:
        raise TrunkError(f"{path} cannot be read: {reason(error)}; pip install --force-reinstall lpips") from error


def _read(path: Path, architecture: Architecture) -> Any:
    try:
        return read_weights(path)
    except DAMAGE as error:
        raise TrunkError(
            f"perceptual.path={path} cannot be read as {architecture.name}'s weights: {reason(error)}; it must be "
            f"torchvision's file {architecture.file}, from {architecture.url}"
        ) from error


def _download(architecture: Architecture) -> Any:
    """torch hub's way: its cache or, with a check of the file's hash, the network."""
    try:
        return torch.hub.load_state_dict_from_url(
            architecture.url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (*DAMAGE, http.client.HTTPException) as error:
        cached = hub_folder() / architecture.file
        if cached.exists():
            raise TrunkError(
                f"{cached} cannot be read: {reason(error)}; delete it to have it downloaded again"
            ) from error
        raise TrunkError(
            f"{architecture.name}'s weights cannot be downloaded: {reason(error)}; on a machine with internet "
            f"download {architecture.url} (about 550 MB), and either put it into {cached.parent} here or name it with "
            f"perceptual.path=FILE (perceptual.trunk=random needs no file, but is for tests)"
        ) from error


def _fill(trunk: Trunk, weights: Any, source: str) -> None:
    """Every convolution of both must be in both. The classifier stays behind."""
    architecture = trunk.architecture
    problem = mismatch(weights, trunk.tensors(), ignored=("classifier.",))
    if problem is not None:
        raise TrunkError(
            f"{source} holds other weights than {architecture.name}'s: {problem}; it must be torchvision's file "
            f"{architecture.file}, from {architecture.url}"
        )
    trunk.fill(weights)
