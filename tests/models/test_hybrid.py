"""Is a hybrid LiteVAE's encoder and exactly its teacher's decoder, wherever it comes from and goes?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLWan, AutoencoderTiny, DDPMPipeline, VQModel
from torch import Tensor

import litevae
from litevae import HybridAutoencoder, LiteVAE, StableDiffusionVAE
from litevae.cost import parameter_count
from litevae.evaluation.photo import blend_tiles
from litevae.models.teacher import check_teacher

from .teachers import DECODERS, LAYOUTS, STUDENT, full_size, narrow

# What diffusers' pipelines read of a `vae`'s config, and what they decode with.
READ_BY_PIPELINES = {
    "scaling_factor", "shift_factor", "latents_mean", "latents_std", "force_upcast", "block_out_channels",
    "latent_channels", "batch_norm_eps", "patch_size", "sample_size",
}  # fmt: skip


def some_quick(*quick: str, among: Iterable[str] = LAYOUTS) -> list[Any]:
    """The layouts, those that are alike marked as slow."""
    return [layout if layout in quick else pytest.param(layout, marks=pytest.mark.slow) for layout in among]


def hybrid_of(teacher: Any, **fields: Any) -> HybridAutoencoder:
    torch.manual_seed(1)
    return HybridAutoencoder.from_teacher(teacher, "S", **{**STUDENT, **fields})


@pytest.fixture
def latent() -> Any:
    def make(channels: int, batch: int = 2, height: int = 4, width: int = 3) -> Tensor:
        return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(2))

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_decodes_as_the_teacher_and_says_what_the_teacher_says(layout, latent):
    teacher = narrow(layout)
    vae = hybrid_of(teacher)
    z = latent(vae.latent_channels)
    with torch.no_grad():
        assert torch.equal(vae.decode(z).sample, teacher.decode(z).sample)
        assert torch.equal(vae.decode(z, return_dict=False)[0], teacher.decode(z, return_dict=False)[0])
    assert set(teacher.config) - set(vae.config) == {"down_block_types", "use_quant_conv"}
    assert {name: vae.config[name] for name in READ_BY_PIPELINES & set(teacher.config)} == {
        name: teacher.config[name] for name in READ_BY_PIPELINES & set(teacher.config)
    }
    assert not (READ_BY_PIPELINES - set(teacher.config)) & set(vae.config)  # a pipeline asks what there is
    if layout.startswith("flux2"):
        assert all(torch.equal(vae.bn.state_dict()[name], one) for name, one in teacher.bn.state_dict().items())
        assert vae.bn.eps == teacher.bn.eps
    else:
        assert not hasattr(vae, "bn")


def test_the_config_knows_all_that_a_teacher_can_say():
    for layout in ("sd15", "flux2"):
        teacher = narrow(layout)
        told = {name for name in teacher.config if not name.startswith("_")}
        assert told - set(hybrid_of(teacher).config) == {"down_block_types", "use_quant_conv"}


def test_its_decoder_is_its_own(latent):
    teacher = narrow("sd15")
    vae, z = hybrid_of(teacher), latent(4)
    with torch.no_grad():
        before = teacher.decode(z).sample
        for parameter in vae.decoder_parameters():
            parameter.zero_()
        assert torch.equal(teacher.decode(z).sample, before)
    assert not vae.decode(z).sample.any()


@pytest.mark.parametrize("use_quant_conv", [False, True])
def test_it_encodes_as_the_litevae_of_these_weights(use_quant_conv, image):
    vae = hybrid_of(narrow("sd3"), use_quant_conv=use_quant_conv)
    same = LiteVAE(**{**STUDENT, "latent_channels": 16, "use_quant_conv": use_quant_conv})
    own = {name: value for name, value in vae.state_dict().items() if name.startswith(("encoder", "quant_conv"))}
    same.load_state_dict(own, strict=False)
    with torch.no_grad():
        one, other = (model.encode(image).latent_dist for model in (vae, same))
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.logvar, other.logvar)
        noise = [model_dist.sample(torch.Generator().manual_seed(3)) for model_dist in (one, other)]
    assert torch.equal(*noise)
    assert {id(one) for one in vae.encoder_parameters()} == {
        id(value) for name, value in vae.named_parameters() if name.startswith(("encoder", "quant_conv"))
    }
    parameters = [*vae.encoder_parameters(), *vae.decoder_parameters()]
    assert len(parameters) == len(set(map(id, parameters))) == len(list(vae.parameters()))


def test_forward_is_encode_and_decode(image):
    vae = hybrid_of(narrow("flux2"))
    with torch.no_grad():
        output = vae(image, sample_posterior=True, generator=torch.Generator().manual_seed(4))
        latent = vae.encode(image).latent_dist.sample(torch.Generator().manual_seed(4))
        assert torch.equal(output.latent, latent)
        assert torch.equal(output.sample, vae.decode(latent).sample)
        mode = vae(image)
        assert torch.equal(mode.latent, mode.latent_dist.mode())
        assert output.wavelet is None
        eight_bits = ((image + 1) * 127.5).round().to(torch.uint8)
        expected = vae.encode(eight_bits / 127.5 - 1).latent_dist.mean
    torch.testing.assert_close(vae.encode(eight_bits).latent_dist.mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["sd15", "flux2"])
def test_slices_and_tiles_are_the_teachers(layout, latent, image):
    teacher = narrow(layout, sample_size=32)
    vae = hybrid_of(teacher)
    assert vae.tile_latent_min_size == teacher.tile_latent_min_size == 4
    for model in (vae, teacher):
        model.enable_slicing()
        model.enable_tiling()
    z = latent(vae.latent_channels, height=7, width=9)
    with torch.no_grad():
        tiled = vae.decode(z).sample
        assert torch.equal(tiled, teacher.decode(z).sample)
        vae.disable_tiling()
        assert not torch.equal(tiled, vae.decode(z).sample)
        sliced = vae.encode(image).latent_dist.mean
        vae.disable_slicing()
        torch.testing.assert_close(sliced, vae.encode(image).latent_dist.mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", some_quick("sd15", "flux2"))
def test_saved_and_loaded_it_is_the_same(layout, tmp_path, image):
    vae = hybrid_of(narrow(layout), use_quant_conv=True).eval()
    vae.save_pretrained(tmp_path)
    for loaded in (HybridAutoencoder.from_pretrained(tmp_path), litevae.load_model(tmp_path)):
        assert type(loaded) is HybridAutoencoder
        told = {name: value for name, value in vae.config.items() if not name.startswith("_")}
        assert json.loads(json.dumps({name: loaded.config[name] for name in told})) == json.loads(json.dumps(told))
        assert {name for name in loaded.config if not name.startswith("_")} == set(told)
        states = vae.state_dict(), loaded.state_dict()
        assert list(states[0]) == list(states[1])
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        with torch.no_grad():
            assert torch.equal(loaded(image).sample, vae(image).sample)
    card = (tmp_path / "README.md").read_text()
    assert "HybridAutoencoder.from_pretrained" in card
    assert f"an {vae.config.teacher_class}" in card


def test_what_does_not_fit_is_refused(tmp_path):
    vae = hybrid_of(narrow("sd15"))
    vae.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())

    def saying(**changes: Any) -> None:
        told = {name: value for name, value in {**config, **changes}.items() if value is not ...}
        (tmp_path / "config.json").write_text(json.dumps(told))

    saying(scaling=1.0)
    with pytest.raises(ValueError, match="'scaling' is no argument of HybridAutoencoder; they are student, teacher"):
        HybridAutoencoder.from_pretrained(tmp_path)
    saying(latent_channels=8)
    with pytest.raises(ValueError, match=r"must fit its config.json: .* must have shape"):
        HybridAutoencoder.from_pretrained(tmp_path)
    saying(use_post_quant_conv=False)
    with pytest.raises(ValueError, match=r"post_quant_conv\.bias has no place in the model"):
        HybridAutoencoder.from_pretrained(tmp_path)
    saying(_class_name="AutoencoderKL")
    with pytest.raises(ValueError, match="be that of a HybridAutoencoder, got one of AutoencoderKL; load it with Auto"):
        HybridAutoencoder.from_pretrained(tmp_path)
    saying(student=config["student"] | {"widths": 3})
    with pytest.raises(ValueError, match="'widths' is no argument of a LiteVAE encoder"):
        HybridAutoencoder.from_pretrained(tmp_path)
    saying()
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        HybridAutoencoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"latent_channels": 8}, ValueError, "latent_channels must be 4, as the teacher's, or left out, got 8"),
        ({"in_channels": 1}, ValueError, "in_channels must be 3, as the teacher's"),
        ({"wavelet_levels": (1, 2)}, ValueError, "wavelet_levels must end in 3, for the teacher's latent at 1/8"),
        (
            {"block_out_channels": (8,) * 4},
            ValueError,
            "no argument of a LiteVAE .*decoder.* are the teacher's",
        ),
        ({"encoder_type": "dwt"}, ValueError, "'encoder_type' is no argument of a LiteVAE encoder"),
        ({"extraction_channels": "8"}, TypeError, "extraction_channels must be an int"),
        ({"size": "XL"}, ValueError, "name must be one of 'S', 'B', 'M', 'L', got 'XL'"),
    ],
)
def test_a_student_that_cannot_be_is_named(fields, error, message):
    with pytest.raises(error, match=message):
        HybridAutoencoder.from_teacher(narrow("sd15"), **{"size": "S", **fields})


def test_teachers_are_checked():
    teacher = narrow("sd15")
    assert check_teacher(teacher) is teacher
    assert check_teacher(StableDiffusionVAE(teacher)) is teacher
    four = {"block_out_channels": (8, 8, 8), "down_block_types": ("DownEncoderBlock2D",) * 3}
    with pytest.raises(ValueError, match=r"divide the image's sides by 8 .*by 4: block_out_channels \(8, 8, 8\)"):
        check_teacher(AutoencoderKL(**four, up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=4))
    rule = "teacher must be a diffusers AutoencoderKL or AutoencoderKLFlux2, got "
    with torch.device("meta"):
        others = [AutoencoderTiny(), VQModel(), AutoencoderKLWan(), LiteVAE()]
    for other in others:
        with pytest.raises(TypeError, match=rf"{rule}'{type(other).__name__}'; the `vae` of Stable Diffusion 1.5"):
            check_teacher(other)
    with pytest.raises(TypeError, match=rule + r"'runs/x'; load it with litevae.load_model"):
        check_teacher("runs/x")
    with pytest.raises(TypeError, match=rule):
        check_teacher(AutoencoderKL)
    with pytest.raises(TypeError, match="pass the pipeline's `vae`"):
        check_teacher(DDPMPipeline(unet=None, scheduler=None))
    del teacher.decoder
    with pytest.raises(ValueError, match="have its decoder, which a HybridAutoencoder keeps"):
        check_teacher(teacher)


def test_it_remembers_where_its_teacher_was(tmp_path, monkeypatch):
    folder = tmp_path / "somebody" / "teacher"
    narrow("sd15").save_pretrained(folder)
    monkeypatch.chdir(folder.parent)
    vae = hybrid_of(litevae.load_model("teacher"))
    assert vae.config.teacher == str(folder)
    assert hybrid_of(narrow("sd15"), name="owner/sd", subfolder="vae").config.teacher_subfolder == "vae"
    vae.save_pretrained(tmp_path / "here")
    assert litevae.load_model(tmp_path / "here").config.teacher == str(folder)
    assert "(teacher)" in (tmp_path / "here" / "README.md").read_text()  # the card has no path
    published: list[str] = []

    def upload(model: Any, folder: Path, *_: Any) -> str:
        published.extend(path.read_text() for path in (folder / "config.json", folder / "README.md"))
        return ""

    monkeypatch.setattr(HybridAutoencoder, "_upload", upload)
    monkeypatch.setattr("litevae.models.publishing._card_on_hub", lambda place, token: "")
    monkeypatch.setattr("huggingface_hub.create_repo", lambda name, **_: type("Made", (), {"repo_id": name}))
    vae.push_to_hub("owner/hybrid")
    assert json.loads(published[0])["teacher"] == "teacher"
    assert not any("somebody" in text for text in published)
    assert vae.config.teacher == str(folder)


def test_large_photos_are_decoded_in_tiles_of_64_latents():
    vae = hybrid_of(narrow("flux2", sample_size=32))
    blend_tiles(vae)
    assert (vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size) == (True, 64, 512)


def test_gradient_checkpointing_runs_the_blocks_of_both_again(image):
    vae = hybrid_of(narrow("sd15")).train()
    runs: list[str] = []
    for block in (vae.encoder.aggregation.middle[0], vae.decoder.up_blocks[0]):
        block.register_forward_pre_hook(lambda block, _: runs.append(type(block).__name__))
    gradients = []
    for _ in range(2):
        vae.zero_grad()
        vae(image).sample.square().mean().backward()
        gradients.append({name: one.grad for name, one in vae.named_parameters() if one.grad is not None})
        vae.enable_gradient_checkpointing()
    assert sorted(runs) == ["ResBlock"] * 3 + ["UpDecoderBlock2D"] * 3
    assert len(gradients[0]) > 100
    largest = max(one.abs().max() for one in gradients[0].values())
    for name, expected in gradients[0].items():  # float32 sums, perhaps in another order
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5 * largest)


def test_bfloat16_teachers_make_bfloat16_hybrids(image):
    teacher = narrow("sdxl").to(torch.bfloat16)
    vae = hybrid_of(teacher)
    assert vae.dtype == torch.bfloat16
    latent = vae.encode(image).latent_dist.sample()
    assert latent.dtype == vae.decode(latent.float()).sample.dtype == torch.bfloat16


@pytest.mark.parametrize("layout", some_quick("flux2", among=DECODERS))
def test_full_size_teachers_have_the_published_sizes(layout):
    teacher = full_size(layout)
    with torch.device("meta"):
        vae = HybridAutoencoder.from_teacher(teacher, "S")
    assert parameter_count(vae.decoder, vae.post_quant_conv) == DECODERS[layout]
    assert {name: value.shape for name, value in vae.decoder.state_dict().items()} == {
        name: value.shape for name, value in teacher.decoder.state_dict().items()
    }
    channels = vae.latent_channels
    # Table 2a's 1.03 M at 4 channels; the last convolution, 3x3 from 16, makes two numbers more for every other one.
    assert parameter_count(vae.encoder) == 1_038_308 + (channels - 4) * 2 * (16 * 9 + 1)
    posterior = vae.encode(torch.empty(1, 3, 512, 768, device="meta")).latent_dist
    assert posterior.mean.shape == (1, channels, 64, 96)
    assert vae.decode(posterior.mode()).sample.shape == (1, 3, 512, 768)
