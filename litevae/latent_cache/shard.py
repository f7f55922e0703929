"""One shard of a cache: some thousand images to one safetensors file, with the sums that the index is made of.

image -> [DWT -> feature extraction -> aggregation -> latent]
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from litevae.data import ImageBatch
from litevae.evaluation.autoencoders import EvaluatedAutoencoder
from litevae.evaluation.content_hash import ContentHash
from litevae.evaluation.latents import Statistics
from litevae.evaluation.set_metric import add_to
from litevae.latent_cache.cache import AGAIN, CacheError
from litevae.models.latent import LOGVAR_MAX, LOGVAR_MIN
from litevae.pixels import to_float
from litevae.state_hash import tensors_hash
from litevae_kernels.files import replacing
from litevae_kernels.precision import tf32

_SUMS = "sums."  # begins the names of tensors that are no latents
_HASH = "hash"  # of the tensors, in the file's metadata

Sums = dict[str, Tensor]


class ShardEncoder:
    """The images of one shard, batch by batch, until `write`.

    Args:
        first: the place of the shard's first image in the data.
        flips: encode the mirrored images too.
        dtype: of the moments on disk.
    """

    def __init__(self, model: EvaluatedAutoencoder, first: int, flips: bool, dtype: torch.dtype) -> None:
        self.model, self.first, self.dtype = model, first, dtype
        self.indices: list[int] = []
        self._moments: dict[str, list[Tensor]] = {"moments": []}
        if flips:
            self._moments["moments_flipped"] = []
        self._statistics, self._content = Statistics(), ContentHash()
        self._sums: Sums = {"skipped": torch.tensor(0)}

    def add(self, batch: ImageBatch) -> None:
        """Encode a batch; a ValueError names an image whose latent is not finite as it would be stored."""
        add_to(self._sums, "skipped", torch.tensor(sum(not skip.is_used for skip in batch.skips)))
        if not batch.indices:
            return
        indices = tuple(self.first + index for index in batch.indices)
        pixels = batch.pixels.to(self.model.device)  # [B, 3, size, size]
        for name, images in zip(self._moments, (pixels, pixels.flip(3)), strict=False):
            with tf32(False):  # "float32" is all of its digits
                posterior = self.model.encode(to_float(images))
            moments = moments_of(posterior.mean, posterior.std).cpu()  # [B, 2C, h, w]
            stored = moments.to(self.dtype)
            is_finite = stored.isfinite().flatten(1).all(1).tolist()  # [B]
            if not all(is_finite):
                rule = f"the latent of {batch.names[is_finite.index(False)]} must be finite in {self.dtype}"
                raise ValueError(f"{rule}, got one that is not; try --dtype float32 --storage-dtype bfloat16")
            self._moments[name].append(stored)
            self._statistics.add_posteriors(posterior.mean, posterior.std)
            for sum_name, value in rounding(moments, stored):
                add_to(self._sums, sum_name, value)
        self._content.add_pixels(indices, batch.pixels)
        self.indices += indices

    def write(self, path: Path, shape: tuple[int, int, int], labels: Tensor | None) -> None:
        """The file, whole or not at all. `shape`: C, h, w; `labels`: int64 [images of the data]."""
        channels, height, width = shape
        none = torch.empty(0, 2 * channels, height, width, dtype=self.dtype)
        tensors = {name: torch.cat([none, *parts]) for name, parts in self._moments.items()}
        tensors["index"] = torch.tensor(self.indices, dtype=torch.int64)
        if labels is not None:
            tensors["label"] = labels[tensors["index"]]
        sums = {**self._statistics.sums, **self._content.sums, **self._sums}
        tensors |= {f"{_SUMS}{name}": value.cpu() for name, value in sums.items()}
        content = save(tensors, {_HASH: tensors_hash(tensors)})
        with replacing(path) as temporary:
            temporary.write_bytes(content)  # save_file would make it readable by its owner alone


def read_sums(path: Path) -> tuple[Sums, list[int]]:
    """(the sums by name, the indices of its images) of a shard, all of which is read.

    Raises:
        CacheError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            is_whole = (file.metadata() or {}).get(_HASH) == tensors_hash(tensors)
    except (SafetensorError, OSError) as error:
        raise CacheError(f"{path} must be a whole shard, got a damaged one ({error}); {AGAIN}") from error
    if not is_whole:
        raise CacheError(f"{path} must be as it was written, got other bytes; {AGAIN}")
    sums = {name.removeprefix(_SUMS): value for name, value in tensors.items() if name.startswith(_SUMS)}
    return sums, tensors["index"].tolist()


def moments_of(means: Tensor, stds: Tensor) -> Tensor:
    """[B, C, h, w] each -> the moments [B, 2C, h, w]; log-variances are clamped as a posterior clamps them."""
    return torch.cat([means, (2 * stds.log()).clamp(LOGVAR_MIN, LOGVAR_MAX)], dim=1)


def rounding(moments: Tensor, stored: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Sums of squares, float64: of the means, of what rounding adds to them, and to log-variances."""
    mean, logvar = moments.double().chunk(2, dim=1)
    stored_mean, stored_logvar = stored.double().chunk(2, dim=1)
    yield "stored elements", torch.tensor(mean.numel())
    yield "mean power", mean.square().sum()
    yield "mean error", (stored_mean - mean).square().sum()
    yield "logvar error", (stored_logvar - logvar).square().sum()


def storage_error(sums: Sums) -> dict[str, float]:
    """What the dtype on disk costs, as root mean squares: of the means relative to theirs, of the log-variances."""
    power, elements = float(sums["mean power"]), int(sums["stored elements"])
    return {
        "mean": (float(sums["mean error"]) / power) ** 0.5 if power else 0.0,
        "logvar": (float(sums["logvar error"]) / max(1, elements)) ** 0.5,
    }


def joined(shards: Iterable[Sums]) -> Sums:
    """Sums over shards."""
    total: Sums = {}
    for sums in shards:
        for name, value in sums.items():
            add_to(total, name, value)
    return total
