"""Do the config's sections agree with the model, the paper and the user's page?"""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import litevae
from litevae.config import LiteVAEConfig
from litevae.data import DataConfig
from litevae.losses.total import LossConfig
from litevae.runs.recipes import load_config, named_overrides
from litevae.training.config import MEASURED_KEYS, ModelConfig, RunConfig, TrainConfig


def test_model_section_has_every_argument_of_the_model() -> None:
    """But what training itself writes."""
    arguments = {field.name for field in dataclasses.fields(LiteVAEConfig)} - set(MEASURED_KEYS)
    assert {field.name for field in dataclasses.fields(ModelConfig)} == {"kind", "size", "encoder_channels"} | arguments


def test_size_and_overrides_make_the_architecture() -> None:
    architecture = ModelConfig(size="S", latent_channels=12, block_out_channels=[8, 8, 8, 8]).architecture
    assert architecture == litevae.LiteVAEConfig(
        extraction_channels=16,
        extraction_multipliers=(1, 2, 2),
        aggregation_channels=16,
        aggregation_multipliers=(1, 2, 2),
        latent_channels=12,
        block_out_channels=(8, 8, 8, 8),
    )


def test_false_is_an_override() -> None:
    assert ModelConfig(mid_block_add_attention=False).architecture.mid_block_add_attention is False


def test_optimizer_defaults_are_the_papers() -> None:
    train = TrainConfig()
    assert (train.learning_rate, train.betas, train.batch_size, train.steps) == (1e-4, [0.5, 0.9], 16, 200_000)


@pytest.mark.parametrize("override", named_overrides())
def test_every_named_override_changes_a_recipe_and_is_on_the_users_page(override: str) -> None:
    given = ["data.path=~/images"]
    assert load_config(RunConfig, "imagenet128", [*given, override]) != load_config(RunConfig, "imagenet128", given)
    page = (Path(litevae.__file__).parent / "configs" / "README.md").read_text(encoding="utf-8")
    assert override in page
    in_no_table = override in ("model=f4", "model=f16", "model=smc-encoder")
    assert ("Table" in named_overrides()[override]) != in_no_table


def test_recipes_of_the_paper() -> None:
    """Appendix F, Table 5: Adam, rate, betas, batch, steps; and that a later override wins over a named one."""
    steps = {"imagenet128": 200_000, "imagenet256-full": 150_000, "imagenet256-tuned": 50_000, "ffhq256": 100_000}
    for name, count in steps.items():
        config = load_config(RunConfig, name, ["data.path=~/images", "model.size=M", "model.latent_channels=12"])
        train = config.train
        assert (train.steps, train.batch_size, train.learning_rate, train.betas) == (count, 16, 1e-4, [0.5, 0.9])
        assert config.data.crop_size == config.data.evaluation_size == int(name[8:11] if "image" in name else name[4:])
        assert (config.loss.adversarial_weighting, config.discriminator.kind) == ("constant", "unet")
        assert config.model.architecture.latent_channels == 12
    assert load_config(
        RunConfig, "ffhq128", ["data.path=x", "loss=adaptive", "loss.adversarial_weight=0.3"]
    ).loss == LossConfig(
        perceptual_weight=1.0, adversarial_weight=0.3, adversarial_weighting="adaptive", adversarial_start=5_000
    )


def test_baseline_under_a_recipe_is_stable_diffusion_s() -> None:
    from litevae.training.networks import build_autoencoder

    with torch.device("meta"):
        model = build_autoencoder(load_config(RunConfig, "imagenet128", ["data.path=x", "model=sd-vae"]).model)
        small = build_autoencoder(load_config(RunConfig, "imagenet128", ["data.path=x", "model=sd-vae-small"]).model)
    assert sum(p.numel() for p in model.parameters()) == 83_653_863
    assert sum(p.numel() for p in small.encoder.parameters()) == pytest.approx(6.75e6, rel=0.01)


@pytest.mark.parametrize(
    ("train", "loss", "message"),
    [
        ({"gradient_ratio_every": -1}, {}, "train.gradient_ratio_every must be at least 0, got -1"),
        ({"gradient_ratio_every": 3}, {}, "train.gradient_ratio_every must be 0 with loss.adversarial_weight=0, got 3"),
        (
            {"gradient_ratio_every": 3},
            {"adversarial_weight": 0.1, "l1_weight": 0.0},
            "train.gradient_ratio_every must be 0 with loss.l1_weight=0 and loss.perceptual_weight=0, got 3",
        ),
        (
            {"gradient_ratio_every": 3, "compile": True},
            {"adversarial_weight": 0.1},
            "train.compile must be false with train.gradient_ratio_every=3, which takes gradients of one graph twice",
        ),
        (
            {"compile": True},
            {"adversarial_weight": 0.1, "adversarial_weighting": "adaptive"},
            "train.compile must be false with loss.adversarial_weighting=adaptive, which takes gradients of one graph",
        ),
    ],
)
def test_gradients_of_the_last_layer_that_a_run_has_not(
    train: dict[str, Any], loss: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        RunConfig(train=TrainConfig(**train), loss=LossConfig(**loss))
    assert str(error.value).startswith(message)


F4 = {"wavelet_levels": [1, 2], "block_out_channels": [8, 8, 8]}
F16 = {"wavelet_levels": [1, 2, 3, 4], "block_out_channels": [8] * 5}
DWT = {"encoder_type": "dwt", "latent_channels": 12}


@pytest.mark.parametrize(
    ("model", "sections", "message"),
    [
        (
            F16,
            {"data": DataConfig(crop_size=72)},
            "data.crop_size must be a multiple of 16 for a model with wavelet_levels=[1, 2, 3, 4], got 72; try 64",
        ),
        (
            F4,
            {"data": DataConfig(crop_size=2)},
            "data.crop_size must be a multiple of 4 for a model with wavelet_levels=[1, 2], got 2; try 4",
        ),
        (
            {"kind": "sd-vae"},
            {"data": DataConfig(crop_size=100)},
            "data.crop_size must be a multiple of 8 for model.kind=sd-vae, got 100; try 96",
        ),
        (
            DWT,
            {"loss": LossConfig(kl_weight=1e-6)},
            "loss.kl_weight must be 0 with model.encoder_type=dwt, whose posterior has no noise, got 1e-06",
        ),
        *(
            (
                {"encoder_type": "dwt-2", "latent_channels": 48},
                {"loss": LossConfig(kl_weight=0.0), "train": TrainConfig(freeze=part, start_from="x")},
                f"train.freeze must be null with model.encoder_type=dwt-2: the decoder alone has weights, got '{part}'",
            )
            for part in ("encoder", "decoder")
        ),
    ],
)
def test_what_the_model_asks_of_other_sections(model: dict[str, Any], sections: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        RunConfig(model=ModelConfig(**model), **sections)
    assert str(error.value).startswith(message)


def test_crops_that_suit_the_model_are_taken() -> None:
    for model, crop_size in ((F4, 20), (F16, 48), (DWT, 24)):
        config = RunConfig(ModelConfig(**model), DataConfig(crop_size=crop_size), LossConfig(kl_weight=0.0))
        assert crop_size % config.model.architecture.downsampling == 0


@pytest.mark.parametrize(
    ("train", "data", "message"),
    [
        (["fwd", "psnr"], 64, "train.evaluate_sets must be one of 'fwd', 'rfid', 'kid', 'fid-dinov2', got 'psnr'"),
        (["fwd"], None, "data.evaluation_size must be a number for train.evaluate_sets, got None; 256, for example"),
    ],
)
def test_sets_that_cannot_be_measured(train: list[str], data: int | None, message: str) -> None:
    with pytest.raises(ValueError) as error:
        RunConfig(train=TrainConfig(evaluate_sets=train), data=DataConfig(evaluation_size=data))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig(kind="sd-vae"), "train.initialization must be residual or pytorch with model.kind=sd-vae"),
        (
            ModelConfig(size="S", latent_channels=2),
            "train.initialization=wavelet: model.latent_channels must be at least",
        ),
        (
            ModelConfig(block_out_channels=[64, 64, 128, 128]),
            r"model.decoder_outer_norm must be False .* block_out_channels\[0\]=64, 2 to a group .* got None; ",
        ),
    ],
)
def test_models_that_cannot_start_as_wavelets(model: ModelConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(model=model, train=TrainConfig(initialization="wavelet"))
    RunConfig(model=ModelConfig(), train=TrainConfig(initialization="wavelet"))  # Stable Diffusion's decoder
