"""Is a hybrid a drop-in `vae` for the pipelines of its teacher, from noise and from images, saved and loaded?"""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

from litevae import HybridAutoencoder

from .teachers import STUDENT, full_size, narrow


@pytest.fixture(scope="module")
def room() -> Any:
    pytest.importorskip("transformers", reason="diffusers' pipelines with text need transformers")
    from . import tiny_pipelines

    return tiny_pipelines


def pair(layout: str) -> tuple[Any, Any]:
    """(teacher, hybrid), in eval mode."""
    teacher = narrow(layout)
    torch.manual_seed(1)
    return teacher, HybridAutoencoder.from_teacher(teacher, "S", **STUDENT)


def test_class_conditional_pipelines_take_it_saved_and_loaded(tmp_path):
    """The pipeline that needs no text encoder."""
    teacher, hybrid = pair("sd15")
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 4, "patch_size": 2}
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(**sizes, in_channels=4, out_channels=4, num_embeds_ada_norm=1000).eval()

    def images(pipeline: Any) -> np.ndarray:
        pipeline.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return pipeline([0, 1], generator=generator, num_inference_steps=2, output_type="np").images

    parts = {"transformer": transformer, "scheduler": DDIMScheduler(), "id2label": {0: "cat"}}
    expected = images(DiTPipeline(vae=teacher, **parts))
    pipeline = DiTPipeline(vae=hybrid, **parts)
    np.testing.assert_array_equal(images(pipeline), expected)
    pipeline.save_pretrained(tmp_path)
    assert '"litevae.models.hybrid",' in (tmp_path / "model_index.json").read_text()
    loaded = DiTPipeline.from_pretrained(tmp_path)
    assert type(loaded.vae) is HybridAutoencoder
    np.testing.assert_array_equal(images(loaded), expected)


NAMES_FROM_NOISE = ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES_FROM_NOISE, "Flux2Pipeline"])
def test_from_noise_the_images_are_the_teachers_saved_and_loaded(name, room, tmp_path):
    family = room.FAMILIES[room.FROM_NOISE[name]]
    teacher, hybrid = pair(family.layout)
    expected = room.run(room.build(name, family, teacher), family)
    assert expected.std() > 0.01
    pipeline = room.build(name, family, hybrid)
    np.testing.assert_array_equal(room.run(pipeline, family), expected)
    pipeline.save_pretrained(tmp_path)
    loaded = type(pipeline).from_pretrained(tmp_path, **room.empty_parts(pipeline))
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.vae) is HybridAutoencoder
    # Weights that lie elsewhere in memory may be multiplied in another order.
    np.testing.assert_allclose(room.run(loaded, family), expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES_FROM_NOISE, "Flux2Pipeline"])
def test_full_size_teachers_in_their_pipelines(name, room, tmp_path):
    family = room.FAMILIES[room.FROM_NOISE[name]]
    teacher = full_size(family.layout, "cpu")
    HybridAutoencoder.from_teacher(teacher, "S").save_pretrained(tmp_path)
    hybrid = HybridAutoencoder.from_pretrained(tmp_path)
    shutil.rmtree(tmp_path)  # 200 MB
    expected = room.run(room.build(name, family, teacher), family)
    np.testing.assert_allclose(room.run(room.build(name, family, hybrid), family), expected, rtol=0, atol=1e-4)


FROM_IMAGES = (
    "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
    "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline", "StableDiffusion3ControlNetPipeline",
    "FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxControlNetPipeline", "FluxKontextPipeline", "Flux2Pipeline",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_IMAGES)
def test_from_images_they_are_those_of_the_students_latents(name, room, monkeypatch):
    """The oracle is the teacher with its `encode` replaced: what else a pipeline asks of a `vae` must be the same."""
    layout, images = room.FROM_IMAGES[name]
    family = room.FAMILIES[layout]
    teacher, hybrid = pair(family.layout)
    own = room.run(room.build(name, family, teacher), family, images)
    found = room.run(room.build(name, family, hybrid), family, images)
    calls = []

    def encode(x: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        calls.append(x.shape)
        return hybrid.encode(x, *arguments, **options)

    monkeypatch.setattr(teacher, "encode", encode)
    np.testing.assert_array_equal(found, room.run(room.build(name, family, teacher), family, images))
    assert calls
    assert not np.array_equal(found, own)


@pytest.mark.slow
def test_half_precision_is_decoded_in_float32_where_the_teacher_asks_for_it(room):
    """SDXL's: `force_upcast`, and the dtype of `post_quant_conv`."""
    family = room.FAMILIES["sdxl"]
    results = []
    for vae in pair("sdxl"):
        pipeline = room.build("StableDiffusionXLPipeline", family, vae).to(torch.float16)
        dtypes: list[torch.dtype] = []
        vae.decoder.register_forward_pre_hook(lambda part, given, dtypes=dtypes: dtypes.append(given[0].dtype))
        results.append(room.run(pipeline, family))
        assert dtypes == [torch.float32]
        assert vae.dtype == torch.float16
    np.testing.assert_array_equal(*results)
