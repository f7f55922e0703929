"""Which images are trained on, which are held out, and how are crops cut? The `data` section of a run's config.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import os
from dataclasses import dataclass
from pathlib import Path

MIN_EVALUATION_SIZE = 16  # SSIM's window is 11 pixels wide
DEAD_LEAVES = "dead_leaves"
MIXED = "photographs+dead_leaves"
SOURCES = ("auto", "photographs", "folder", "dataset", "webdataset", DEAD_LEAVES, MIXED)
_WITHOUT_PATH = ("photographs", DEAD_LEAVES, MIXED)
_CHOICES = {"source": SOURCES, "crop": ("random", "center"), "small_images": ("upscale", "refuse")}


@dataclass
class DataConfig:
    """The `data` section."""

    source: str = "auto"
    """"photographs": the ones that scikit-image ships. "folder": images below `path`. "dataset": a Hugging Face
    dataset. "webdataset": tar shards. "dead_leaves": drawn at random, without end. "photographs+dead_leaves": both,
    mixed. "auto": "folder" with a `path`, "photographs" without."""
    path: str | None = None
    """"folder": searched with all its sub-folders. "dataset": a name on the hub, a local folder or one written by
    save_to_disk. "webdataset": a folder of shards, or a pattern such as "shards/{000..127}.tar" or "https://...tar"."""
    split: str = "train"
    """"dataset": the split to train on."""
    validation_split: str | None = None
    """"dataset": the split of held-out images. None: see `holdout`."""
    subset: str | None = None
    """"dataset": its configuration, where it has several."""
    image_column: str | None = None
    """"dataset": the column of images. None: the first one. "webdataset": take only members with this ending."""
    streaming: bool = False
    """"dataset" and "webdataset": read from the beginning on instead of in any order. Remote shards always are."""
    shuffle_block: int = 1024
    """Streams: so many examples at a time are read, kept in the memory of each worker, and shuffled."""
    cache_dir: str | None = None
    """"dataset": where the datasets library keeps what it downloads and converts. None: its own cache."""
    dead_leaves_share: float = 0.5
    """"photographs+dead_leaves": the share of samples that are dead leaves."""
    validation_path: str | None = None
    """A folder of held-out images, for any source. None: see `holdout`."""
    holdout: float = 0.05
    """Share of `path` held out when nothing else says what is: its last images (a folder's in name order), at least
    one. A stream, whose end is out of reach, holds out its first `evaluation_images`; the photographs, chelsea and
    coffee; dead leaves, others of their kind."""
    crop_size: int = 128
    """Side of a training crop in pixels, a multiple of 8."""
    resize: int | None = None
    """The short side of an image is resized to this before it is cropped. None: crops show an image's own pixels."""
    crop: str = "random"
    """Where the crop is cut: "random" or "center"."""
    small_images: str = "upscale"
    """Images smaller than `resize` or, without it, than `crop_size`: "upscale" them, or "refuse" (skip and count)."""
    max_downscale: float = 1.0
    """A crop shows crop_size * r pixels of its image, r drawn log-uniformly from [1, max_downscale]."""
    horizontal_flip: bool = True
    """Mirror every second crop, at random."""
    evaluation_size: int | None = 256
    """Held-out images: short side resized to this, centre square cut. None: whole, at their own size."""
    evaluation_images: int = 16
    """Use at most so many held-out images, the first ones. All held-out images stay out of training."""
    workers: int | None = None
    """Processes that decode images. None: none for the photographs, else the CPUs there are for this process, at
    most 8."""

    def __post_init__(self) -> None:
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"data.{name} must be one of {', '.join(valid)}, got {getattr(self, name)!r}")
        self._check_path()
        if self.crop_size < 8 or self.crop_size % 8:
            raise ValueError(f"data.crop_size must be a multiple of 8 and at least 8, got {self.crop_size}")
        if self.resize is not None and self.resize < self.crop_size:
            raise ValueError(f"data.resize must be at least data.crop_size={self.crop_size} or null, got {self.resize}")
        if not 0 < self.holdout < 1:
            raise ValueError(
                f"data.holdout must be greater than 0 and less than 1, got {self.holdout}; "
                "to hold out images of your choice, put them in a folder and set data.validation_path"
            )
        if not 1 <= self.max_downscale <= 64:
            raise ValueError(f"data.max_downscale must be from 1 to 64, got {self.max_downscale}")
        if not 0 <= self.dead_leaves_share <= 1:
            raise ValueError(f"data.dead_leaves_share must be from 0 to 1, got {self.dead_leaves_share}")
        if self.evaluation_size is not None and self.evaluation_size < MIN_EVALUATION_SIZE:
            raise ValueError(
                f"data.evaluation_size must be at least {MIN_EVALUATION_SIZE} or null, got {self.evaluation_size}"
            )
        for name in ("evaluation_images", "shuffle_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, got {getattr(self, name)}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"data.workers must be at least 0 or null, got {self.workers}")

    def _check_path(self) -> None:
        source = self.resolved_source
        if source in _WITHOUT_PATH and self.path is not None:
            raise ValueError(f"data.path must be null for data.source={source}, got {self.path!r}")
        if source not in _WITHOUT_PATH and not self.path:
            raise ValueError(f"data.path must be given for data.source={source}, got {self.path!r}")
        if self.validation_split is not None and source != "dataset":
            raise ValueError(f"data.validation_split must be null for data.source={source}; use data.validation_path")
        if self.validation_split is not None and self.validation_path is not None:
            raise ValueError("data.validation_split and data.validation_path must not both be given")

    @property
    def resolved_source(self) -> str:
        """`source`, with "auto" resolved."""
        if self.source != "auto":
            return self.source
        return "photographs" if self.path is None else "folder"

    @property
    def smallest_side(self) -> int:
        """Images with a side below this are refused."""
        return (self.resize or self.crop_size) if self.small_images == "refuse" else 1

    @property
    def smallest_evaluation_side(self) -> int:
        """Held-out images with a side below this are refused."""
        return (self.evaluation_size or 1) if self.small_images == "refuse" else 1

    @property
    def local_path(self) -> Path:
        """`path` as a place on this machine, which need not exist."""
        assert self.path is not None
        return Path(self.path).expanduser()

    @property
    def worker_count(self) -> int:
        """`workers`, with None resolved: the photographs stay decoded in memory, everything else costs time."""
        if self.workers is not None:
            return self.workers
        if self.resolved_source == "photographs":
            return 0
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun and accelerate
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(8, cpus // processes))
