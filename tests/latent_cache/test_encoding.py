"""Does a cache hold what the encoder gives, of each image once, whoever was killed or damaged on the way?"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from litevae import latents
from litevae.data import protocol
from litevae.latent_cache.cache import CacheError, LatentCache
from litevae.loading import load_model

from .. import children
from ..evaluation import small
from ..own_place import one_thread, own_place  # noqa: F401  (fixtures)

COMMAND = ["-m", "litevae.latents"]
IMAGES, SIZE = 11, 32


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model; images in two classes, the third of them broken; cache: the latents of those."""
    folder = tmp_path_factory.mktemp("latents")
    small.save_model(folder / "model")
    small.save_crops(folder / "images" / "cat", IMAGES)
    (folder / "images" / "dog").mkdir()
    for path in sorted((folder / "images" / "cat").iterdir())[6:]:
        path.rename(folder / "images" / "dog" / path.name)
    (folder / "images" / "cat" / "002.png").write_bytes(b"not an image")
    assert latents.main([*words(folder), "--output", str(folder / "cache")]) == 0
    return folder


def words(place: Path) -> list[str]:
    options = ["--size", str(SIZE), "--shard-size", "4", "--batch-size", "2", "--workers", "0"]
    return [str(place / "images"), "--model", str(place / "model"), *options]


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "shards").iterdir())}


def numbers_of(folder: Path) -> dict[str, object]:
    index = json.loads((folder / "index.json").read_text())
    return {key: value for key, value in index.items() if key not in ("versions", "date")}


def test_every_entry_is_the_posterior_of_its_image_and_of_its_mirror_image(place: Path) -> None:
    cache, model = LatentCache(place / "cache"), load_model(place / "model")
    assert len(cache) == IMAGES - 1
    assert cache.classes == ("cat", "dog")
    found = set()
    by_content = {}
    for path in sorted((place / "images").rglob("*.png")):
        if path.name == "002.png" and path.parent.name == "cat":
            continue
        with Image.open(path) as image:
            pixels = protocol("lanczos").view(image.convert("RGB"), SIZE)[None]  # [1, 3, 32, 32]
        for flipped, seen in ((False, pixels), (True, pixels.flip(3))):
            by_content[path, flipped] = model.encode(seen).latent_dist.parameters[0].half().float()
    for n in range(len(cache)):
        plain, mirrored = cache[n], cache.read(n, flipped=True)
        (path,) = (
            path for (path, flipped), moments in by_content.items()
            if not flipped and (moments - plain.moments).abs().max() < 1e-2
        )  # fmt: skip
        torch.testing.assert_close(plain.moments, by_content[path, False], rtol=2e-3, atol=2e-4)
        torch.testing.assert_close(mirrored.moments, by_content[path, True], rtol=2e-3, atol=2e-4)
        assert cache.classes[plain.label] == path.parent.name
        found.add((path, plain.index))
    assert len({path for path, _ in found}) == len({index for _, index in found}) == IMAGES - 1


def test_the_statistics_are_those_of_the_moments_on_disk(place: Path) -> None:
    cache = LatentCache(place / "cache")
    every = torch.stack([cache.read(n, flipped).moments for n in range(len(cache)) for flipped in (False, True)])
    means, logvars = every.double().chunk(2, dim=1)  # [N, C, h, w]
    std = (means.var(dim=(0, 2, 3), correction=0) + logvars.exp().mean(dim=(0, 2, 3))).sqrt()
    assert cache.index["statistics"]["channel_stds"] == pytest.approx(std.tolist(), rel=1e-3)
    assert cache.index["statistics"]["channel_means"] == pytest.approx(means.mean(dim=(0, 2, 3)).tolist(), abs=1e-4)
    assert cache.index["skipped"] == 1


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2**-11), ("bfloat16", 2**-8), ("float32", 0.0)])
def test_the_error_of_storing_is_measured(place: Path, tmp_path: Path, dtype: str, bound: float) -> None:
    """Relative errors of rounding are at most half a unit in the last place, and so is their root mean square."""
    assert latents.main([*words(place), "--storage-dtype", dtype, "--no-flips", "--output", "cache"]) == 0
    index = LatentCache(tmp_path / "cache").index
    if bound:
        assert bound / 8 < index["storage_error"]["mean"] < bound
        assert 0 < index["storage_error"]["logvar"] < bound * 30  # log-variances are at most 30
    else:
        assert index["storage_error"] == {"mean": 0.0, "logvar": 0.0}
    with safe_open(tmp_path / "cache" / "shards" / "00000.safetensors", framework="pt") as shard:
        assert str(shard.get_tensor("moments").dtype) == f"torch.{dtype}"
        assert "moments_flipped" not in shard.keys()  # noqa: SIM118


AT_BATCH = """
import os, signal, sys
from litevae import latents
from litevae.evaluation import autoencoders
encode, calls = autoencoders.EvaluatedAutoencoder.encode, []
def counted(self, images):
    calls.append(1)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), int(sys.argv[1]))
    return encode(self, images)
autoencoders.EvaluatedAutoencoder.encode = counted
sys.exit(latents.main(sys.argv[3:]))
"""


@pytest.mark.slow
def test_a_killed_cache_goes_on_and_is_the_same_bytes(place: Path, tmp_path: Path) -> None:
    cache = tmp_path / "killed"
    for number, at, code, left in (
        (signal.SIGKILL, 3, -signal.SIGKILL, []),
        (signal.SIGKILL, 7, -signal.SIGKILL, ["00000.safetensors"]),
        (signal.SIGTERM, 7, 143, ["00000.safetensors", "00001.safetensors"]),
    ):
        program = [sys.executable, "-c", AT_BATCH, str(int(number)), str(at)]
        done = children.run([*program, *words(place), "--output", str(cache)], timeout=120)
        assert done.returncode == code, done.stderr
        assert list(shards_of(cache)) == left
        with pytest.raises(CacheError, match="must be a finished cache, got one that was interrupted"):
            LatentCache(cache)
    assert latents.main([*words(place), "--output", str(cache)]) == 0
    assert shards_of(cache) == shards_of(place / "cache")
    assert numbers_of(cache) == numbers_of(place / "cache")


@pytest.mark.slow
def test_two_processes_equal_one(place: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = children.run([*launcher, *COMMAND, *words(place), "--output", "two"], timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written") == 1
    assert shards_of(tmp_path / "two") == shards_of(place / "cache")
    assert numbers_of(tmp_path / "two") == numbers_of(place / "cache")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "must have shards/00001.safetensors, got no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "must be whole, got [0-9]+ bytes instead of"),
        (damage, "00001.safetensors must be as it was written, got other bytes"),
    ],
)
def test_a_damaged_shard_is_named_and_made_again(place: Path, tmp_path: Path, spoil, message: str) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(place / "cache", cache)
    spoil(cache / "shards" / "00001.safetensors")
    with pytest.raises(CacheError, match=message):
        LatentCache(cache).verify()
    assert latents.main([*words(place), "--output", str(cache)]) == 0
    LatentCache(cache).verify()
    assert shards_of(cache) == shards_of(place / "cache")


def test_every_damaged_shard_is_made_again(place: Path, tmp_path: Path) -> None:
    """Also of a cache that was never finished, which has no index with hashes."""
    cache = tmp_path / "cache"
    shutil.copytree(place / "cache", cache)
    for finished in (True, False):
        for number in (0, 1):
            damage(cache / "shards" / f"{number:05d}.safetensors")
        if not finished:
            (cache / "index.json").unlink()
        assert latents.main([*words(place), "--output", str(cache)]) == 0
        assert shards_of(cache) == shards_of(place / "cache")


def test_a_damaged_shard_is_refused_by_name_when_it_is_read(place: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(place / "cache", cache)
    damage(cache / "shards" / "00001.safetensors")
    opened = LatentCache(cache)
    assert opened.read(0).moments.shape == (8, 4, 4)
    with pytest.raises(CacheError, match=r"00001.safetensors must be as it was written, got other bytes"):
        opened.read(4)


def test_a_command_that_was_killed_before_its_first_word_may_start_again(place: Path, tmp_path: Path) -> None:
    (tmp_path / "cache" / "shards").mkdir(parents=True)
    (tmp_path / "cache" / ".request.0123.part.json").write_text("{")
    assert latents.main([*words(place), "--output", str(tmp_path / "cache")]) == 0
    assert shards_of(tmp_path / "cache") == shards_of(place / "cache")


def test_other_classes_are_another_cache(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "cache", tmp_path / "cache")
    assert latents.main([*words(place), "--no-labels", "--output", "cache"]) == 2
    assert "a cache of another classes" in capsys.readouterr().err


def test_small_data_are_cut_for_many_processes(place: Path) -> None:
    """16 parts, but none below 256 images and none above 10,000."""
    from litevae.latent_cache import encoding

    sizes = {}
    for images in (100, 30_000, 1_281_167):
        made = encoding._Encoding.__new__(encoding._Encoding)
        arguments: dict[str, Any] = dict.fromkeys(encoding.Encode.__dataclass_fields__)
        made.request = encoding.Encode(**{**arguments, "storage_dtype": "float16"})
        made.shape, made.source = (4, 32, 32), range(images)  # type: ignore[assignment]
        sizes[images] = made._shard_size()
    assert sizes == {100: 256, 30_000: 1875, 1_281_167: 10_000}


def test_the_cache_of_another_model_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small.save_model(tmp_path / "other", seed=1)
    output = str(tmp_path / "scaled")
    code = latents.main(["stats", str(place / "cache"), "--model", str(tmp_path / "other"), "--output", output])
    assert code == 2
    assert re.search(r"error: the cache .* must be of the latents of .*/other \(sha256:.*\), got those of .*/model", (
        capsys.readouterr().err
    ))  # fmt: skip
    assert not (tmp_path / "scaled").exists()


BAD = [
    (["--size", "30"], "--size must be a multiple of 8 for model, got 30"),
    (["--storage-dtype", "bfloat16"], "--output must name an empty folder, got .*, a cache of another storage dtype"),
    (["--model", "nowhere"], "nowhere must be a run's folder"),
    (["--output", "images"], "--output must name an empty folder, got images, which holds other files"),
]


@pytest.mark.parametrize(("changed", "message"), BAD)
def test_bad_requests_change_nothing(
    place: Path, tmp_path: Path, changed: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(place / "cache", tmp_path / "cache")
    small.save_crops(tmp_path / "images", 1)
    assert latents.main([*words(place), "--output", "cache", *changed]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert shards_of(tmp_path / "cache") == shards_of(place / "cache")
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_entries_that_are_not_there(place: Path) -> None:
    cache = LatentCache(place / "cache")
    for n in (-1, IMAGES - 1):
        with pytest.raises(IndexError, match=f"has entries 0 to 9, got {n}"):
            cache.read(n)
    with pytest.raises(FileNotFoundError, match=r"must be a cache that litevae.latents has written, .* got no such"):
        LatentCache(place / "nowhere")
