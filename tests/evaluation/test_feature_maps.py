"""Are the feature maps those of the decoder's last block, and do the numbers and the figure tell of them?"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from litevae import LiteVAE
from litevae.evaluation.feature_maps import FeatureMaps, _figure, feature_maps, save_feature_maps
from litevae.models.baseline import StableDiffusionVAE


def model_of(normalization: str = "smc") -> LiteVAE:
    torch.manual_seed(0)
    return LiteVAE.from_preset(
        "S", block_out_channels=(32, 32, 32, 32), layers_per_block=1, decoder_normalization=normalization
    )


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("normalization", ["smc", "group_norm"])
def test_maps_are_what_the_decoder_s_blocks_give(normalization: str) -> None:
    model = model_of(normalization).train()
    found = feature_maps(model, images())
    assert model.training
    model.eval()
    with torch.no_grad():
        decoder, x = model.decoder, model.encode(images()).latent_dist.mode()
        x = decoder.mid_block(decoder.conv_in(x))
        for block in decoder.up_blocks:
            x = block(x)
    torch.testing.assert_close(found.maps, x.contiguous(), rtol=1e-5, atol=1e-6)
    assert not decoder.up_blocks[-1]._forward_hooks


def test_slices_of_a_batch_are_put_together() -> None:
    model = model_of()
    whole = feature_maps(model, images(3))
    model.enable_slicing(2)
    torch.testing.assert_close(feature_maps(model, images(3)).maps, whole.maps, rtol=1e-5, atol=1e-6)


def test_stable_diffusion_s_autoencoder_has_them_too() -> None:
    model = StableDiffusionVAE.from_architecture(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
    assert feature_maps(model, images()).maps.shape == (2, 32, 16, 24)


def known() -> FeatureMaps:
    """Channel c is c + 1 everywhere, but for one place of the first image, where it is ten times that."""
    maps = torch.arange(1.0, 8.0).view(1, 7, 1, 1).repeat(2, 1, 5, 5)
    maps[0, :, 2, 3] *= 10
    return FeatureMaps(maps * torch.tensor([1.0, -1, 1, -1, 1, -1, 1]).view(7, 1, 1))


def test_imbalance_is_numpys() -> None:
    x = known().maps.double().numpy()
    channels, places = np.sqrt((x**2).mean(axis=(0, 2, 3))), np.sqrt((x**2).mean(axis=1))
    np.testing.assert_allclose(known().channel_rms, channels, rtol=1e-12)
    np.testing.assert_allclose(known().place_rms, places, rtol=1e-12)
    assert known().imbalance == pytest.approx(channels.max() / np.median(channels)) == pytest.approx(7 / 4)
    assert known().place_imbalance == pytest.approx(places.max() / np.median(places)) == pytest.approx(10)


def test_the_figure_shows_the_largest_channels_on_one_scale() -> None:
    figure = _figure({"one": known(), "two": FeatureMaps(known().maps.clamp(-3, 3))}, channels=3)
    columns = figure.subfigs
    assert [part.get_suptitle() for part in columns] == ["one", "two"]
    assert {part.subfigs[0].axes[0].get_ylim() for part in columns} == {(0, 1.05 * 7 / 4)}
    assert {part.subfigs[1].axes[0].images[0].get_clim() for part in columns} == {(0, 10)}
    curve, places, grid = columns[0].subfigs
    heights = [bar.get_height() for bar in curve.axes[0].patches]
    assert heights == pytest.approx(np.arange(7, 0, -1) / 4)
    assert curve.axes[0].get_title().endswith("1.75 medians")
    assert places.axes[0].get_title().endswith("10.00 medians")
    np.testing.assert_allclose(
        places.axes[0].images[0].get_array(), known().place_rms[0] / known().place_rms.median(), rtol=1e-6
    )
    shown = [axes.images[0] for axes in grid.axes if axes.images]
    for image, channel in zip(shown, (6, 5, 4), strict=True):
        np.testing.assert_allclose(image.get_array(), known().maps[0, channel])
        assert image.get_clim() == (-70, 70)


def test_it_is_drawn(tmp_path: Path) -> None:
    models = {name: model_of(name) for name in ("group_norm", "smc")}
    save_feature_maps(tmp_path / "maps.png", models, images(), channels=4)
    assert Image.open(tmp_path / "maps.png").width == 2 * 5 * 130


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images must hold at least one image, got a torch"):
        feature_maps(model_of(), images(0))
    with pytest.raises(ValueError, match=r"models must hold at least one model, got \{\}"):
        save_feature_maps(tmp_path / "maps.png", {}, images())
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        save_feature_maps(tmp_path / "maps.png", {"a": model_of()}, images(), channels=0)
