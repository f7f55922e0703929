"""What can be told of a model beside its architecture: its license, how it was trained, what was measured of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from litevae_kernels.checks import wrong_kind, wrong_value


@dataclass(frozen=True)
class Measurement:
    """One number of an evaluation."""

    data: str
    """What was measured on, without the path of a machine: "photographs, held out"."""
    images: int
    size: str
    """"256x256", or "whole"."""
    metric: str
    """"psnr", as `litevae.evaluate` calls them."""
    value: float
    source: str = "litevae.evaluate"
    """What measured it, and how."""


@dataclass(frozen=True)
class ModelFacts:
    """What a card says of a model beside its architecture; of what is left out it says that nobody has told.

    >>> ModelFacts(license="cc-by-4.0", training={"Data": "ImageNet, 128x128 crops"}).license
    'cc-by-4.0'
    """

    license: str | None = None
    """An identifier of the Hub's, "apache-2.0" say, for the weights. None: the card says that it is not chosen."""
    training: Mapping[str, str] = field(default_factory=dict)
    """Rows of a table: what, and its value in words."""
    measurements: tuple[Measurement, ...] = ()
    datasets: tuple[str, ...] = ()
    """Names of data sets on the Hub that it was trained on."""

    def __post_init__(self) -> None:
        if self.license is not None and not isinstance(self.license, str):
            raise wrong_kind("license", "be an identifier of the Hub's or None", self.license)
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            way_out = "https://huggingface.co/docs/hub/repositories-licenses lists them"
            raise wrong_value("license", "be an identifier of the Hub's, such as 'apache-2.0'", self.license, way_out)
        if not isinstance(self.training, Mapping):
            raise wrong_kind("training", "map what was chosen to its value, both in words", self.training)
        for word in (*self.training.keys(), *self.training.values()):
            if not isinstance(word, str):
                raise wrong_kind("training", "map what was chosen to its value, both in words", word, "take str(...)")
        for name, kind in (("measurements", Measurement), ("datasets", str)):
            told = getattr(self, name)
            if not isinstance(told, (tuple, list)) or not all(isinstance(one, kind) for one in told):
                raise wrong_kind(name, f"be a tuple of {kind.__name__}", told)

    def over(self, other: "ModelFacts") -> "ModelFacts":
        """These facts, and those of `other` where these say nothing."""
        return ModelFacts(
            self.license or other.license,
            self.training or other.training,
            self.measurements or other.measurements,
            self.datasets or other.datasets,
        )

    def with_measurements(self, measurements: tuple[Measurement, ...]) -> "ModelFacts":
        """Also with these, which replace earlier ones of the same data, size and metric, measured alike."""
        by_what = {(one.data, one.size, one.metric, one.source): one for one in (*self.measurements, *measurements)}
        return replace(self, measurements=tuple(by_what.values()))


@dataclass(frozen=True)
class CardPlace:
    """Where a card will stand, as far as its example depends on it."""

    name: str = "."
    """What `from_pretrained` is given: a name on the Hub, or the folder."""
    variant: str | None = None
    """In the file names of the weights."""
    subfolder: str | None = None


def public_name(data: str) -> str:
    """The name of data without the place where a machine has it: the last part of a path or address.

    >>> public_name("/home/somebody/imagenet/val/"), public_name("ILSVRC/imagenet-1k")
    ('val', 'ILSVRC/imagenet-1k')
    """
    is_hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", data) is not None and not Path(data).exists()
    place = data.partition("?")[0] if "://" in data else data  # what follows may be a token
    return data if is_hub_name else place.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or "unnamed"
