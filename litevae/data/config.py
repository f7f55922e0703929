"""Which images are trained on, which are held out, and how are crops cut? The `data` section of a run's config.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import os
from dataclasses import dataclass

MIN_EVALUATION_SIZE = 16  # SSIM's window is 11 pixels wide


@dataclass
class DataConfig:
    """The `data` section. Every crop is a pure function of `train.seed` and its number in the run."""

    path: str | None = None
    """A folder of images, searched in all its sub-folders. None: the photographs that scikit-image ships."""
    validation_path: str | None = None
    """A folder of held-out images. None: a share of `path` (for the built-in photographs: chelsea and coffee)."""
    holdout: float = 0.05
    """Share of `path` held out when there is no `validation_path`: its last images in name order, at least one."""
    crop_size: int = 128
    """Side of a training crop in pixels, a multiple of 8."""
    max_downscale: float = 1.0
    """A crop shows crop_size * r pixels of its photo, r drawn log-uniformly from [1, max_downscale]. 1: no resizing."""
    horizontal_flip: bool = True
    """Mirror every second crop, at random."""
    evaluation_size: int | None = 256
    """Held-out images: short side resized to this, centre square cut. None: whole, at their own size."""
    evaluation_images: int = 16
    """Use at most so many held-out images, the first in name order. All held-out images stay out of training."""
    workers: int | None = None
    """Processes that decode images. None: none for the built-in photographs, one per CPU (at most 8) for a folder."""

    def __post_init__(self) -> None:
        if self.crop_size < 8 or self.crop_size % 8:
            raise ValueError(f"data.crop_size must be a multiple of 8 and at least 8, got {self.crop_size}")
        if not 0 < self.holdout < 1:
            raise ValueError(
                f"data.holdout must be greater than 0 and less than 1, got {self.holdout}; "
                "to hold out images of your choice, put them in a folder and set data.validation_path"
            )
        if not 1 <= self.max_downscale <= 64:
            raise ValueError(f"data.max_downscale must be from 1 to 64, got {self.max_downscale}")
        if self.evaluation_size is not None and self.evaluation_size < MIN_EVALUATION_SIZE:
            raise ValueError(
                f"data.evaluation_size must be at least {MIN_EVALUATION_SIZE} or null, got {self.evaluation_size}"
            )
        if self.evaluation_images < 1:
            raise ValueError(f"data.evaluation_images must be at least 1, got {self.evaluation_images}")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"data.workers must be at least 0 or null, got {self.workers}")

    @property
    def worker_count(self) -> int:
        """`workers`, with None resolved: the built-in photographs stay decoded in memory, a folder's do not."""
        if self.workers is not None:
            return self.workers
        return 0 if self.path is None else min(8, os.cpu_count() or 1)
