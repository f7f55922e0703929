"""The images of a run, as batches: photographs, folders, Hugging Face datasets, tar shards, dead leaves.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

    data = open_data(config, seed)                  # DataConfig; raises DataError
    data.held_out                                   # iterable of HeldOutImage(name, float32 [3, H, W] in [-1, 1])
    data.description                                # "6 photographs", "12,345 images in 8 tar shards"
    batches = data.batches(first_step, last_step, batch_size, rank, world_size, pin_memory=True, state=states)
    for pixels in batches:                          # uint8 [batch_size / world_size, 3, crop_size, crop_size]
        image = pixels.to(device, non_blocking=True).float() / 127.5 - 1
    batches.state_dict()                            # of this process, after the batch that came last
    batches.skipped()                               # {"unreadable": 2, "too small": 1}

The way of an image: image_sources.py (which images there are) or streaming/ (Hugging Face datasets and tar shards),
split.py (which of them are held out), images.py (decoding), colour_profiles.py, crops.py, training_samples.py (which
image is sample n), batches.py; training_data.py joins them.

Step s of process r holds the samples s * batch_size + r * batch_size / world_size + i. Where images can be read in
any order, sample n is a function of (seed, n): `state_dict` is empty, and any number of processes and workers gives
the same samples. A stream (`data.streaming`, remote tar shards) can only be read in sequence: the order depends on the
number of readers, and `state` is the list of what `state_dict` returned in every process (gather it before it is
saved). With it a resumed run sees what an uninterrupted one would.

Iterating warns of each image that cannot be used, once and by name, and raises DataError when none is left. Workers
ignore SIGINT, SIGTERM and SIGHUP; leaving the loop, or the end of the process, ends them.
"""

from litevae.data.batches import Batches
from litevae.data.colour_profiles import srgb_profile
from litevae.data.config import DataConfig
from litevae.data.crops import evaluation_view
from litevae.data.errors import DataError, Skip, SkipCounts, UnreadableImageError
from litevae.data.evaluation_images import EvaluationImages, ImageBatch, open_images
from litevae.data.held_out import HeldOutImage, HeldOutImages
from litevae.data.images import decode_image, read_image, to_image, to_rgb, to_tensor
from litevae.data.protocols import PROTOCOLS, READING, Protocol, protocol
from litevae.data.source_key import source_key
from litevae.data.training_data import TrainingData, open_data

__all__ = [
    "PROTOCOLS",
    "READING",
    "Batches",
    "DataConfig",
    "DataError",
    "EvaluationImages",
    "HeldOutImage",
    "HeldOutImages",
    "ImageBatch",
    "Protocol",
    "Skip",
    "SkipCounts",
    "TrainingData",
    "UnreadableImageError",
    "decode_image",
    "evaluation_view",
    "open_data",
    "open_images",
    "protocol",
    "read_image",
    "source_key",
    "srgb_profile",
    "to_image",
    "to_rgb",
    "to_tensor",
]
