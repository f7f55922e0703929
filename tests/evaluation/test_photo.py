"""Is a large photo, written by strips, the picture that a small one would be?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from litevae import LiteVAE, StableDiffusionVAE
from litevae.evaluation import photo as photos

WIDTHS: dict[str, Any] = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1}
NARROW: dict[str, Any] = {
    **WIDTHS,
    "extraction_channels": 8,
    "extraction_multipliers": (1,),
    "aggregation_channels": 8,
    "aggregation_multipliers": (1,),
}
BOUNDED: dict[str, Any] = {"decoder_normalization": "smc", "mid_block_add_attention": False}


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (27, 11, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((69, 203))


def model(**arguments: Any) -> LiteVAE:
    torch.manual_seed(0)
    return LiteVAE(**NARROW, **BOUNDED, **arguments).eval()


def panels(picture: np.ndarray) -> list[np.ndarray]:
    """original, reconstruction and latent, below captions that may be wider than the photo."""
    gap, top, height, width = 6, 24, 203, 69
    assert picture.shape[0] == top + height + gap
    column = (picture.shape[1] - 4 * gap) // 3
    lefts = [gap + index * (column + gap) for index in range(3)]
    return [picture[top : top + height, left : left + width] for left in lefts]


@pytest.mark.parametrize(
    ("ending", "arguments"),
    [
        ("png", {"encoder_normalization": "smc", "output_type": "wavelet"}),
        pytest.param("tif", {}, marks=pytest.mark.slow),
        ("jpg", {}),
    ],
)
def test_a_large_photo_is_as_a_small_one(
    photo: Image.Image, tmp_path: Path, ending: str, arguments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "STRIP", 40)
    autoencoder = model(**arguments)
    paths = [tmp_path / f"{name}.{ending}" for name in ("small", "large")]
    said = [
        write(autoencoder, photo, path)
        for write, path in zip((photos.write_photo, photos.write_large_photo), paths, strict=True)
    ]
    assert said[1] == said[0].replace("small", "large")
    assert photos.streams(autoencoder)
    pictures = [np.asarray(Image.open(path)).astype(int) for path in paths]
    for small, large in zip(*map(panels, pictures), strict=True):  # but a level, by the rounding of float32
        assert np.abs(small - large).max() <= (40 if ending == "jpg" else 1)
    assert (pictures[1][:24] < 128).any()  # captions


def test_what_fails_on_the_way_leaves_the_older_file(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.png"
    path.write_text("mine")
    autoencoder = model()

    def broken(*_: Any) -> Any:
        yield torch.zeros(1, 3, 8, 72)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(autoencoder, "decode_rows", broken)
    with pytest.raises(OSError, match="No space left"):
        photos.write_large_photo(autoencoder, photo, path)
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["mine.png"]


def test_only_a_decoder_of_bounded_reach_streams() -> None:
    assert not photos.streams(LiteVAE(**NARROW))
    assert not photos.streams(StableDiffusionVAE.from_architecture(**WIDTHS))


def test_tiles_are_blended_where_they_must_be() -> None:
    ours = LiteVAE(**NARROW)
    photos.blend_tiles(ours)
    assert ours.tiling is not None
    assert ours.tiling.blend
    theirs = StableDiffusionVAE.from_architecture(**WIDTHS)
    photos.blend_tiles(theirs)
    assert theirs.vae.use_tiling
    assert (theirs.vae.tile_sample_min_size, theirs.vae.tile_latent_min_size) == (512, 64)
