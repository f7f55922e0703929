"""Has an exactly equivariant decoder the error 0, and another one the error that is computed by hand?"""

import json

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from litevae.evaluation.equivariance import SCALES, Equivariance
from litevae.evaluation.set_metric import Batch
from litevae.seeds import derive_rng


class Repeats:
    """Each latent element becomes 2x2 pixels; `gain` by rows breaks the symmetry."""

    def __init__(self, gain: float = 0.0) -> None:
        self.gain, self.sizes = gain, []  # type: ignore[var-annotated]

    def decode(self, latents: Tensor) -> Tensor:
        self.sizes.append(tuple(latents.shape[2:]))
        image = F.interpolate(latents, scale_factor=2.0, mode="nearest")
        return image + self.gain * torch.linspace(0, 1, image.shape[2]).view(-1, 1)


def batch_of(model: Repeats, count: int = 6, first: int = 0, height: int = 16, width: int = 12) -> Batch:
    indices = tuple(range(first, first + count))
    latents = torch.stack([torch.randn(3, height, width, generator=torch.Generator().manual_seed(i)) for i in indices])
    images = F.interpolate(latents, scale_factor=2.0, mode="nearest")
    decoded = Repeats(model.gain).decode(latents)
    return Batch(indices, images, decoded, latents, latents, torch.zeros_like(latents))


def test_what_commutes_with_turning_has_no_error() -> None:
    metric = Equivariance(Repeats())
    metric.add(batch_of(Repeats()))
    found = metric.values()["equivariance"]
    assert found["identity"] == found["rotation"] == {"squared": 0.0, "relative": 0.0}
    assert found["scale"]["squared"] > 0  # a bilinear resize and a repetition do not commute
    assert found["images"] == 6


def test_flat_latents_have_no_error_at_any_scale() -> None:
    model = Repeats()
    latents = torch.full((4, 3, 9, 9), 0.25)
    images = torch.full((4, 3, 18, 18), 0.25)
    metric = Equivariance(model)
    metric.add(Batch((0, 1, 2, 3), images, images, latents))
    found = metric.values()["equivariance"]
    assert found["scale"] == found["rotation"] == {"squared": 0.0, "relative": None}  # no variance to compare with
    json.dumps(found, allow_nan=False)


def test_errors_are_those_of_numpy() -> None:
    model = Repeats(gain=0.5)
    metric = Equivariance(model, seed=3)
    batch = batch_of(model)
    metric.add(batch)
    found = metric.values()["equivariance"]
    squares: dict[str, list[tuple[float, float]]] = {"identity": [], "rotation": [], "scale": []}
    for index in range(6):
        assert batch.latents is not None
        latent, image = batch.latents[index].double().numpy(), batch.images[index].double().numpy()
        rng = derive_rng(3, "equivariance", index)
        turns, scale = int(rng.integers(1, 4)), SCALES[rng.integers(24)]
        small = F.interpolate(
            batch.latents[index : index + 1], size=(round(16 * scale), round(12 * scale)), mode="bilinear"
        )[0]
        shown = F.interpolate(
            batch.images[index : index + 1], size=(2 * small.shape[1], 2 * small.shape[2]), mode="bilinear"
        )[0]
        transformed = {
            "identity": (latent, image),
            "rotation": (np.rot90(latent, turns, (1, 2)), np.rot90(image, turns, (1, 2))),
            "scale": (small.double().numpy(), shown.double().numpy()),
        }
        for kind, (z, x) in transformed.items():
            decoded = z.repeat(2, 1).repeat(2, 2)
            decoded = decoded + 0.5 * np.linspace(0, 1, decoded.shape[1])[:, None]
            squares[kind].append((((decoded - x) ** 2).mean(), x.var(axis=(1, 2)).mean()))
    for kind, pairs in squares.items():
        squared, variance = np.mean(pairs, axis=0)
        assert found[kind]["squared"] == pytest.approx(squared, rel=1e-5)
        assert found[kind]["relative"] == pytest.approx(np.sqrt(squared / variance), rel=1e-5)


def test_scales_are_those_of_eq_vae() -> None:
    """8 to 31 thirty-seconds, all of them drawn; latents of at least one element."""
    assert (SCALES[0], SCALES[-1], len(SCALES)) == (0.25, 31 / 32, 24)
    model = Repeats()
    metric = Equivariance(model)
    metric.add(batch_of(model, count=200, height=32, width=1))
    assert set(model.sizes[1::2]) == {(side, 1) for side in range(8, 32)}
    assert set(model.sizes[::2]) == {(1, 32), (32, 1)}


def test_batches_and_processes_change_nothing_and_later_images_are_left_out() -> None:
    model = Repeats(gain=0.5)
    whole, part, other = (Equivariance(model) for _ in range(3))
    for metric in (whole, part, other):
        metric.most_images = 5
    whole.add(batch_of(model))
    part.add(batch_of(model, 2))
    other.add(batch_of(model, 4, first=2))
    part.merge(other.sums, other.kept)
    torch.testing.assert_close(part.sums, whole.sums, rtol=1e-12, atol=0)
    assert whole.sums["images"] == 5


def test_seeds_draw_other_transformations() -> None:
    found = []
    for seed in (0, 0, 1):
        metric = Equivariance(Repeats(gain=0.5), seed)
        metric.add(batch_of(Repeats(gain=0.5)))
        found.append(metric.values()["equivariance"]["scale"])
    assert found[0] == found[1] != found[2]


def test_what_is_refused() -> None:
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        Equivariance(Repeats(), seed=-1)
    with pytest.raises(ValueError, match=r"batch.latents must be given for a metric of latents, got None; leave"):
        Equivariance(Repeats()).add(Batch((0,), images, images))
    with pytest.raises(ValueError, match="images of equivariance must be at least one, got 0"):
        Equivariance(Repeats()).values()
