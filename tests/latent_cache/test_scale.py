"""Does a model with its latents' scale in its weights decode as before, and give pipelines latents of unit scale?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from litevae import LiteVAE, StableDiffusionVAE, latents
from litevae.latent_cache.cache import LatentCache
from litevae.latent_cache.scale import fold_scale, write_scale
from litevae.loading import load_model

from ..evaluation import small

MEANS, STDS = (0.5, -2.0, 0.0, 3.0), (0.25, 2.0, 1.0, 4.0)
WIDTHS = (16, 16, 16, 16)


def litevae(**arguments: Any) -> LiteVAE:
    return LiteVAE.from_preset("S", block_out_channels=WIDTHS, layers_per_block=1, **arguments)


def sd_vae(**arguments: Any) -> StableDiffusionVAE:
    return StableDiffusionVAE.from_architecture(block_out_channels=WIDTHS, layers_per_block=1, **arguments)


@pytest.mark.parametrize("make", [litevae, sd_vae])
@pytest.mark.parametrize("use_quant_conv", [False, True])
@torch.no_grad()
def test_folding_changes_the_latent_s_scale_and_no_image(make: Any, use_quant_conv: bool) -> None:
    torch.manual_seed(0)
    model = make(use_quant_conv=use_quant_conv).double().eval()
    images, noise = torch.rand(2, 3, 16, 24, dtype=torch.float64) * 2 - 1, torch.randn(2, 4, 2, 3, dtype=torch.float64)
    before = model.encode(images).latent_dist
    decoded = model.decode(before.mean + before.std * noise).sample
    fold_scale(model, MEANS, STDS)
    after = model.encode(images).latent_dist
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 4, 1, 1) for values in (MEANS, STDS))
    torch.testing.assert_close(after.mean, (before.mean - mean) / std, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(after.std, before.std / std, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.decode(after.mean + after.std * noise).sample, decoded, rtol=1e-11, atol=1e-11)


def test_what_cannot_be_folded_is_refused() -> None:
    dwt = litevae(encoder_type="dwt", latent_channels=12)
    with pytest.raises(ValueError, match="encoder_type must be 'learned' for 1x1 convolutions to take the scale"):
        fold_scale(dwt, MEANS * 3, STDS * 3)
    for means, stds in ((MEANS, STDS[:3]), (MEANS[:3], STDS), (MEANS, (1.0, 1.0, 0.0, 1.0))):
        with pytest.raises(ValueError, match="stds must be 4 numbers above 0, with as many means"):
            fold_scale(litevae(), means, stds)
    with pytest.raises(ValueError, match="--scalar must be given for an AutoencoderKL"):
        write_scale(sd_vae(), {}, scalar=False)


def pipeline(vae: Any) -> Any:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=1, sample_size=4,
        patch_size=2, num_embeds_ada_norm=1000,
    )  # fmt: skip
    made = DiTPipeline(transformer=transformer.eval(), vae=vae, scheduler=DDIMScheduler(), id2label={0: "cat"})
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model, sd: autoencoders; images; cache, sd-cache: their latents."""
    folder = tmp_path_factory.mktemp("scale")
    small.save_model(folder / "model")
    sd_vae().save_pretrained(folder / "sd")
    small.save_crops(folder / "images", 5)
    for model, cache in (("model", "cache"), ("sd", "sd-cache")):
        words = [str(folder / "images"), "--model", str(folder / model), "--output", str(folder / cache)]
        assert latents.main([*words, "--size", "32", "--workers", "0"]) == 0
    return folder


@pytest.mark.parametrize(("model", "cache"), [("model", "cache"), ("sd", "sd-cache")])
def test_a_folded_model_is_right_in_a_pipeline_of_another_process_s_folder(
    place: Path, tmp_path: Path, model: str, cache: str
) -> None:
    """Latents in the cache of the folded model have mean 0 and std 1; a pipeline decodes such latents as they are."""
    words = [str(place / model), "--cache", str(place / cache), "--output", str(tmp_path / "folded")]
    assert latents.main(["fold", *words]) == 0
    words = [str(place / "images"), "--model", str(tmp_path / "folded"), "--output", str(tmp_path / "cache")]
    assert latents.main([*words, "--size", "32", "--workers", "0"]) == 0
    found = LatentCache(tmp_path / "cache").index["statistics"]
    assert found["channel_means"] == pytest.approx([0.0] * 4, abs=1e-4)
    assert found["channel_stds"] == pytest.approx([1.0] * 4, rel=1e-4)

    folded = load_model(tmp_path / "folded")
    vae: Any = folded.vae if isinstance(folded, StableDiffusionVAE) else folded
    assert vae.config.scaling_factor == 1.0
    made = pipeline(vae)
    seen: list[torch.Tensor] = []
    decode = vae.decode
    vae.decode = lambda z, *rest, **options: seen.append(z) or decode(z, *rest, **options)
    images = made([0], generator=torch.manual_seed(0), num_inference_steps=2, output_type="np").images
    plain = load_model(place / model)
    scale = LatentCache(place / cache).index["statistics"]
    std, mean = (torch.tensor(scale[f"channel_{name}"]).view(1, 4, 1, 1) for name in ("stds", "means"))
    expected = plain.decode(seen[0] * std + mean).sample.detach()  # what the diffusion model's latent stands for
    expected = (expected / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(torch.from_numpy(images), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("scalar", "channels"), [([], True), (["--scalar"], False)])
def test_the_scale_is_written_into_a_copy(
    place: Path, tmp_path: Path, scalar: list[str], channels: bool, capsys: pytest.CaptureFixture
) -> None:
    before = (place / "model" / "config.json").read_text()
    words = [str(place / "cache"), "--model", str(place / "model"), "--output", str(tmp_path / "scaled"), *scalar]
    assert latents.main(["stats", *words]) == 0
    config, found = LiteVAE.from_pretrained(tmp_path / "scaled").architecture, LatentCache(place / "cache").index
    assert config.scaling_factor == pytest.approx(1 / found["statistics"]["std"])
    assert config.shift_factor is None
    assert (config.latent_channel_stds is not None) == channels
    if channels:
        assert config.latent_channel_means == pytest.approx(found["statistics"]["channel_means"])
    assert (place / "model" / "config.json").read_text() == before
    assert "the means have a relative error of" in capsys.readouterr().out


def test_fold_reads_the_scale_that_a_config_has(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--output", str(tmp_path / "folded")]
    assert latents.main(["fold", str(place / "model"), *words]) == 2
    assert "--cache must be given for a model whose config has no latent_channel_means" in capsys.readouterr().err
    scaled = str(tmp_path / "scaled")
    assert latents.main(["stats", str(place / "cache"), "--model", str(place / "model"), "--output", scaled]) == 0
    assert latents.main(["fold", scaled, *words]) == 0
    assert LiteVAE.from_pretrained(tmp_path / "folded").architecture.latent_channel_stds == (1.0,) * 4
    assert latents.main(["fold", scaled, *words]) == 2
    assert "--output must name an empty folder" in capsys.readouterr().err
