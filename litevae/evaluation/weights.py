"""Where do the weights of evaluation's networks come from, and are they the published ones?

A file is looked for by its published name: in the folder of --weights, then in torch hub's cache. Nothing is downloaded
unless --download asks for it.
"""

import hashlib
import http.client
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from litevae import torchvision_shim
from litevae.losses.vgg import VGG16
from litevae.losses.weight_files import DAMAGE, WeightsError, hub_folder, mismatch, read_weights, reason
from litevae_kernels.checks import wrong_value


class MissingWeightsError(WeightsError):
    """A file of weights is not there, or could not be downloaded."""


class WrongWeightsError(WeightsError):
    """A file of weights is damaged, another network's, or not the published one."""


@contextmanager
def needed_packages(metric: str) -> Iterator[None]:
    """Imports of torchvision, or of what imports it, succeed within or are a WeightsError that names the package."""
    torchvision_shim.install()
    try:
        yield
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{metric} needs {error.name}, which is not installed; pip install 'litevae[train]'"
        ) from None


@dataclass(frozen=True)
class WeightFile:
    """The published weights of a network."""

    network: str
    publisher: str
    url: str
    megabytes: int

    @property
    def name(self) -> str:
        """The file's name, as published."""
        return self.url.rpartition("/")[2]

    @property
    def hash_prefix(self) -> str | None:
        """How the SHA-256 of the file begins, where its name says so."""
        found = re.search(r"-([0-9a-f]{8,})\.pth$", self.name)
        return found[1] if found else None


_TORCHVISION = "https://download.pytorch.org/models"
INCEPTION_FILE = WeightFile(
    "the Inception of 2015-12-05",
    "torch-fidelity",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    96,
)
DINOV2_FILE = WeightFile(
    "DINOv2 ViT-L/14",
    "DINOv2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    1218,
)
VGG16_FILE = WeightFile("VGG16", "torchvision", VGG16.url, 553)
ALEXNET_FILE = WeightFile("AlexNet", "torchvision", f"{_TORCHVISION}/alexnet-owt-7be5be79.pth", 244)


@dataclass(frozen=True)
class WeightSource:
    """What the command line says of weights."""

    folder: Path | None = None
    """--weights DIR."""
    download: bool = False
    """--download: a missing file may be fetched, into `folder` or else torch hub's cache."""
    random: bool = False
    """--random-weights: the same random weights every time, from no file; results are named so."""
    check_hash: bool = True
    """False, for tests: any values of the right names and shapes; results are named so."""

    options: str = ", or name the folder that holds it with --weights DIR"
    """The ways out that a command has beside torch hub's cache, as messages say them."""

    def __post_init__(self) -> None:
        if self.folder is not None and not self.folder.expanduser().is_dir():
            raise wrong_value("--weights", "be a folder that exists", str(self.folder), "name the one with the files")

    def label(self, metric: str) -> str:
        """What a result is called: by the metric's own name only with the published weights."""
        if self.random:
            return f"{metric}-random-weights"
        return metric if self.check_hash else f"{metric}-unchecked-weights"


def find_weights(file: WeightFile, metric: str, source: WeightSource) -> Path:
    """The path of a file of weights, downloaded if `source` asks for that.

    Args:
        metric: what needs it, for the message.

    Raises:
        MissingWeightsError: it is not there, or the download failed.
    """
    folders = [hub_folder()] if source.folder is None else [source.folder.expanduser(), hub_folder()]
    for folder in folders:
        if (folder / file.name).exists():
            return folder / file.name
    way_out = f"put it there from {file.url}{source.options}"
    needed = f"{metric} needs {file.name}, the weights of {file.network} ({file.megabytes} MB)"
    if not source.download:
        fetch = ", or let --download fetch it" if source.options else ""
        places = " or ".join(str(folder) for folder in folders)
        raise MissingWeightsError(f"{needed}, which is not in {places}; {way_out}{fetch}")
    path = folders[0] / file.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(file.url, str(path), hash_prefix=file.hash_prefix)
    except (*DAMAGE, http.client.HTTPException) as error:
        raise MissingWeightsError(
            f"{needed}, which cannot be downloaded to {path.parent}: {reason(error)}; {way_out}"
        ) from error
    return path


def load_weights(
    file: WeightFile,
    metric: str,
    source: WeightSource,
    expected: Mapping[str, Tensor],
    ignored: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The tensors of a file of weights, on the CPU.

    Args:
        expected: tensors of the right shapes, by the file's names; all must be there, and finite.
        ignored: how the names of what else the file may hold begin.

    Raises:
        MissingWeightsError: as `find_weights`.
        WrongWeightsError: it cannot be read, a tensor is missing, surplus, of another shape or not finite, or the
            file's SHA-256 does not begin as published.
    """
    path = find_weights(file, metric, source)
    must_be = f"it must be {file.publisher}'s file {file.name}, from {file.url}"
    try:
        weights = read_weights(path)
    except DAMAGE as error:
        raise WrongWeightsError(
            f"{path} cannot be read as the weights of {file.network}: {reason(error)}; {must_be}"
        ) from error
    problem = mismatch(weights, expected, ignored)
    if problem is not None:
        raise WrongWeightsError(f"{path} holds other weights than those of {file.network}: {problem}; {must_be}")
    if source.check_hash and file.hash_prefix is not None:
        found = file_hash(path)
        if not found.startswith(file.hash_prefix):
            raise WrongWeightsError(
                f"{path} holds other weights than those of {file.network}: its SHA-256 must begin with "
                f"{file.hash_prefix}, got {found[: len(file.hash_prefix)]}; {must_be}"
            )
    return dict(weights)


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
