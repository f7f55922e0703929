"""Does every sample have its own latent and class, and is what is held out never trained on?"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from litevae import latents
from litevae.data.config import DataConfig
from litevae.diffusion.config import AutoencoderConfig, DiffusionConfig, DiffusionTrainConfig, NetworkConfig
from litevae.diffusion.data import DiffusionData
from litevae.diffusion.latents import CachedSamples, LatentBatch, Latents
from litevae.evaluation.autoencoders import EvaluatedAutoencoder
from litevae.latent_cache.cache import LatentCache
from litevae.loading import load_model

from ..evaluation import small

SIZE = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model; images in two classes; cache: the latents of those."""
    folder = tmp_path_factory.mktemp("data")
    small.save_model(folder / "model")
    small.save_crops(folder / "images" / "cat", 12)
    (folder / "images" / "dog").mkdir()
    for path in sorted((folder / "images" / "cat").iterdir())[5:]:
        path.rename(folder / "images" / "dog" / path.name)
    words = [str(folder / "images"), "--model", str(folder / "model"), "--output", str(folder / "cache")]
    assert latents.main([*words, "--size", str(SIZE), "--shard-size", "5", "--workers", "0"]) == 0
    return folder


def config(place: Path, cached: bool) -> DiffusionConfig:
    path = None if cached else str(place / "images")
    return DiffusionConfig(
        autoencoder=AutoencoderConfig(path="unread", cache=str(place / "cache") if cached else None),
        network=NetworkConfig(kind="dit", classes=True),
        data=DataConfig(
            path=path, crop_size=SIZE, evaluation_size=SIZE, resize=SIZE, crop="center", workers=0, holdout=0.2
        ),
        train=DiffusionTrainConfig(batch_size=4, steps=12),
    )


def opened(place: Path, cached: bool) -> tuple[DiffusionData, Latents]:
    autoencoder = EvaluatedAutoencoder(load_model(place / "model"), "model")
    weights = LatentCache(place / "cache").index["model"]["weights"]
    data = DiffusionData(config(place, cached), autoencoder, weights)
    return data, Latents(autoencoder, (0.0,) * 4, (1.0,) * 4, False, 0)


def test_cached_samples_are_the_entries_in_a_new_order_in_every_pass(place: Path) -> None:
    cache = LatentCache(place / "cache")
    samples = CachedSamples(cache, 9, True, 0)
    every = {(n, flipped): cache.read(n, flipped) for n in range(12) for flipped in (False, True)}
    orders, mirrored = [], []
    for epoch in range(2):
        batch = samples.batch(range(9 * epoch, 9 * epoch + 9))
        found = [
            next(key for key, latent in every.items() if torch.equal(latent.moments, moments))
            for moments in batch.content
        ]
        assert [every[key].label for key in found] == batch.labels.tolist()
        orders.append([n for n, _ in found])
        mirrored += [flipped for _, flipped in found]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(9))  # entries 9 to 11 are held out
    assert orders[0] != orders[1]
    assert {True, False} == set(mirrored)
    again = CachedSamples(cache, 9, True, 0).batch([13, 4])
    whole = [samples.batch([n]) for n in (13, 4)]
    assert torch.equal(again.content, torch.cat([one.content for one in whole]))


@pytest.mark.parametrize("cached", [True, False])
def test_classes_go_with_their_images_and_held_out_ones_are_not_trained_on(place: Path, cached: bool) -> None:
    data, scaled = opened(place, cached)
    model = load_model(place / "model")
    by_latent = {}
    from PIL import Image

    from litevae.data import protocol

    for path in sorted((place / "images").rglob("*.png")):
        with Image.open(path) as image:
            pixels = protocol("lanczos").view(image.convert("RGB"), SIZE)[None]
        for seen in (pixels, pixels.flip(3)):
            by_latent[path, len(by_latent)] = model.encode(seen).latent_dist.mean[0]

    def path_of(latent: torch.Tensor) -> Path:
        (path, _), _ = min(by_latent.items(), key=lambda item: (item[1] - latent).abs().max().item())
        return path

    trained = set()
    for batch in data.batches(0, 0, 1, False, None):
        assert isinstance(batch, LatentBatch)
        means = scaled.encode(batch.content, range(len(batch.content)))
        for latent, label in zip(means, batch.labels.tolist(), strict=True):
            path = path_of(latent)
            assert data.classes is not None
            assert path.parent.name == data.classes[label]
            trained.add(path)
    held_out = data.held_out(scaled)
    found = [path_of(latent) for latent in held_out.content]
    assert trained.isdisjoint(found)
    assert found
    assert [data.classes[label] for label in held_out.labels.tolist()] == [path.parent.name for path in found]
    assert len(trained) == 12 - len(found)


def test_classes_of_a_validation_folder_are_those_of_the_same_name(place: Path, tmp_path: Path) -> None:
    """Though it lacks one of them, so that its own numbers are others."""
    for name in ("cow", "dog"):
        shutil.copytree(place / "images" / "dog", tmp_path / "train" / name)
        shutil.copytree(place / "images" / "cat", tmp_path / "validation" / name)
    shutil.copytree(place / "images" / "dog", tmp_path / "train" / "ape")
    told = config(place, False)
    told.data = replace(told.data, path=str(tmp_path / "train"), validation_path=str(tmp_path / "validation"))
    autoencoder = EvaluatedAutoencoder(load_model(place / "model"), "model")
    data = DiffusionData(told, autoencoder, "")
    assert data.classes == ("ape", "cow", "dog")
    labels = data.held_out(Latents(autoencoder, (0.0,) * 4, (1.0,) * 4, False, 0)).labels.tolist()
    assert sorted(labels) == [1] * 5 + [2] * 5
    (tmp_path / "validation" / "cow").rename(tmp_path / "validation" / "yak")
    with pytest.raises(ValueError, match=r"data.validation_path must have only classes of .*, got 'yak'"):
        DiffusionData(told, autoencoder, "")


def test_the_scale_of_crops_is_measured(place: Path) -> None:
    data, scaled = opened(place, False)
    found = data.measure(scaled.autoencoder)
    crops = torch.cat([batch.content for batch in data.images.first_crops(256, 16)])  # type: ignore[union-attr]
    posterior = scaled.autoencoder.encode(crops / 127.5 - 1)
    assert found["channel_means"] == pytest.approx(posterior.mean.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    std = (posterior.mean.var(dim=(0, 2, 3), correction=0) + posterior.std.square().mean(dim=(0, 2, 3))).sqrt()
    assert found["channel_stds"] == pytest.approx(std.tolist(), rel=1e-4)
    assert found["stds_of_means"] == pytest.approx(posterior.mean.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-4)
