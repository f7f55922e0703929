"""The `data` section of a run's config: which images are trained on, which are held out, how crops are cut."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from litevae_kernels.checks import check_choice, check_int, check_number, wrong_value

MIN_EVALUATION_SIZE = 16  # SSIM's window is 11 pixels wide
DEAD_LEAVES = "dead_leaves"
MIXED = "photographs+dead_leaves"
SOURCES = ("auto", "photographs", "folder", "dataset", "webdataset", DEAD_LEAVES, MIXED)
_WITHOUT_PATH = ("photographs", DEAD_LEAVES, MIXED)
HASH, LAST = "hash", "last"


@dataclass
class DataConfig:
    """The `data` section."""

    source: str = "auto"
    """"photographs": the ones that scikit-image ships. "folder": image files below `path`. "dataset": a Hugging Face
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
    """"dataset": the name of its configuration, where it has several."""
    image_column: str | None = None
    """"dataset": the column of images; None: the first one. "webdataset": take only members with this ending."""
    label_column: str = "label"
    """"dataset": the column of classes, for what learns them."""
    streaming: bool = False
    """"dataset" and "webdataset": read sequentially instead of in random order. Remote shards always are."""
    shuffle_block: int = 1024
    """Streams: each worker reads this many examples into memory, then shuffles them."""
    cache_dir: str | None = None
    """"dataset": where the datasets library keeps what it downloads and converts. None: its own cache."""
    dead_leaves_share: float = 0.5
    """"photographs+dead_leaves": the share of samples that are dead leaves, from 0 to 1."""
    dead_leaves_radius: float = 1.0
    """Of the smallest leaves, in pixels, from 0.25 to below the crop's side. With 1 there are leaves of all sizes."""
    validation_path: str | None = None
    """A folder of held-out images, for any source; if it lies inside `path`, its images are not trained on. None: see
    `holdout`."""
    holdout: float = 0.05
    """Without a validation split or folder: about this share of the images is held out, at least one and not all. A
    hash of an image's path below `path` chooses (of its row's number where a dataset has no paths, of its content in a
    stream), so it stays held out when others come or go. If none of them can be used, one more is held out.
    "photographs" hold out chelsea and coffee; "dead_leaves" drawings of their own."""
    holdout_seed: int = 0
    """Another seed holds out other images. Runs that differ in `train.seed` alone hold out the same ones."""
    holdout_rule: str = field(default=HASH, metadata={"older_runs": LAST})
    """"hash"; or "last", the rule of older versions, which runs that they started keep when they are resumed: the
    last images in name order, and of a stream the first `evaluation_images`, which can all be of one class."""
    crop_size: int = 128
    """Side of a training crop in pixels, a multiple of 8 (with `model=f4` of 4, with `model=f16` of 16)."""
    resize: int | None = None
    """The short side of an image is resized to this before it is cropped. None: no resizing."""
    crop: str = "random"
    """Where the crop is cut: "random" or "center"."""
    small_images: str = "upscale"
    """Images smaller than `resize` or, without it, than `crop_size`: "upscale" them, or "refuse" (skip and count)."""
    max_downscale: float = 1.0
    """A crop shows crop_size * r pixels of its image, r drawn log-uniformly from [1, max_downscale]."""
    horizontal_flip: bool = True
    """Mirror a crop with probability 1/2."""
    evaluation_size: int | None = 256
    """Held-out images: short side resized to this, centre square cut. None: whole, at their own size. Sides that the
    model does not take are padded."""
    evaluation_images: int = 16
    """Evaluate at most this many held-out images, spread over all of them. All held-out images stay out of training.
    A stream reads about `evaluation_images` / `holdout` examples for them: once or, if more than 16, in every
    evaluation."""
    workers: int | None = None
    """Processes that decode images. None: none for the photographs, else one per CPU of this process, at most 8."""

    def __post_init__(self) -> None:
        check_choice("data.source", self.source, SOURCES)
        check_choice("data.crop", self.crop, ("random", "center"))
        check_choice("data.small_images", self.small_images, ("upscale", "refuse"))
        self._check_path()
        check_int("data.crop_size", self.crop_size, at_least=1)
        if self.resize is not None and self.resize < self.crop_size:
            raise wrong_value("data.resize", f"be at least data.crop_size={self.crop_size} or null", self.resize)
        own_choice = "to hold out images of your choice, put them in a folder and set data.validation_path"
        check_number("data.holdout", self.holdout, above=0, below=1, way_out=own_choice)
        check_int("data.holdout_seed", self.holdout_seed, at_least=0)
        check_choice("data.holdout_rule", self.holdout_rule, (HASH, LAST))
        check_number("data.max_downscale", self.max_downscale, at_least=1, at_most=64)
        check_number("data.dead_leaves_share", self.dead_leaves_share, at_least=0, at_most=1)
        drawn = self.resolved_source in (DEAD_LEAVES, MIXED)
        smallest_canvas = min(self.crop_size, self.evaluation_size or self.crop_size) if drawn else None
        check_number("data.dead_leaves_radius", self.dead_leaves_radius, at_least=0.25, below=smallest_canvas)
        check_int("data.evaluation_images", self.evaluation_images, at_least=1)
        check_int("data.shuffle_block", self.shuffle_block, at_least=1)
        if self.evaluation_size is not None:
            whole = "null keeps the images whole"
            check_int("data.evaluation_size", self.evaluation_size, at_least=MIN_EVALUATION_SIZE, way_out=whole)
        if self.workers is not None:
            check_int("data.workers", self.workers, at_least=0, way_out="null chooses by the number of CPUs")

    def _check_path(self) -> None:
        source = self.resolved_source
        if source in _WITHOUT_PATH and self.path is not None:
            raise wrong_value("data.path", f"be null for data.source={source}", self.path)
        if source not in _WITHOUT_PATH and not self.path:
            raise wrong_value("data.path", f"be given for data.source={source}", self.path)
        if self.validation_split is not None and source != "dataset":
            rule, way_out = f"be null for data.source={source}", "use data.validation_path"
            raise wrong_value("data.validation_split", rule, self.validation_split, way_out)
        if self.validation_split is not None and self.validation_path is not None:
            rule = "be null where data.validation_path is given"
            raise wrong_value("data.validation_split", rule, self.validation_split, "give one of the two")

    @property
    def resolved_source(self) -> str:
        """`source`, with "auto" resolved."""
        if self.source != "auto":
            return self.source
        return "photographs" if self.path is None else "folder"

    @property
    def smallest_side(self) -> int:
        """Training images with a side below this are skipped."""
        return (self.resize or self.crop_size) if self.small_images == "refuse" else 1

    @property
    def smallest_evaluation_side(self) -> int:
        """Held-out images with a side below this are skipped."""
        return (self.evaluation_size or 1) if self.small_images == "refuse" else 1

    @property
    def local_path(self) -> Path:
        """`path` as a place on this machine, which need not exist."""
        assert self.path is not None
        return Path(self.path).expanduser()

    @property
    def worker_count(self) -> int:
        """`workers`, with None resolved: the photographs stay decoded in memory and need none."""
        if self.workers is not None:
            return self.workers
        if self.resolved_source == "photographs":
            return 0
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun and accelerate
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min(8, cpus // processes))
