"""Can a diffusers pipeline use LiteVAE as its `vae`?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from diffusers.image_processor import VaeImageProcessor

from litevae import LiteVAE


@pytest.fixture
def pipeline(make_model) -> DiTPipeline:
    """A class-conditional latent diffusion pipeline: the one that needs no text encoder."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )
    vae = make_model(scaling_factor=0.5)
    pipe = DiTPipeline(transformer=transformer.eval(), vae=vae, scheduler=DDIMScheduler(), id2label={0: "cat"})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipeline: DiTPipeline) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    return pipeline([0, 1], generator=generator, num_inference_steps=2, output_type="np").images


def test_a_pipeline_decodes_with_it(pipeline, monkeypatch):
    calls = []
    decode = pipeline.vae.decode

    def watch(latents, *args, **kwargs):
        calls.append((latents, decode(latents, *args, **kwargs)))
        return calls[-1][1]

    monkeypatch.setattr(pipeline.vae, "decode", watch)
    images = generate(pipeline)
    (latents, output), *_ = calls
    assert latents.shape == (2, 4, 4, 4)
    assert images.shape == (2, 32, 32, 3)
    expected = (output.sample / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images, expected.detach().numpy(), rtol=0, atol=1e-6)


def test_a_pipeline_saves_and_loads_with_it(pipeline, tmp_path):
    images = generate(pipeline)
    pipeline.save_pretrained(tmp_path)
    loaded = DiTPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert isinstance(loaded.vae, LiteVAE)
    np.testing.assert_array_equal(generate(loaded), images)
    assert LiteVAE.from_pretrained(tmp_path, subfolder="vae").config.scaling_factor == 0.5


def test_a_pipeline_saves_and_loads_a_variant(pipeline, tmp_path):
    """diffusers looks for `variant` among the arguments of each part's save_pretrained."""
    pipeline.to(torch.bfloat16)
    pipeline.save_pretrained(tmp_path, variant="bf16", max_shard_size="20KB")
    files = {file.name for file in (tmp_path / "vae").iterdir()}
    assert {"README.md", "diffusion_pytorch_model.safetensors.index.bf16.json"} < files
    loaded = DiTPipeline.from_pretrained(tmp_path, variant="bf16", dtype=torch.bfloat16)
    states = loaded.vae.state_dict(), pipeline.vae.state_dict()
    assert all(torch.equal(read, written) for read, written in zip(*map(dict.values, states), strict=True))


def test_the_parts_that_pipelines_use(make_model, image):
    vae = make_model(scaling_factor=0.5, shift_factor=0.1)
    assert 2 ** (len(vae.config.block_out_channels) - 1) == 8
    assert (vae.config.latent_channels, vae.config.force_upcast) == (4, False)
    assert (vae.dtype, vae.device) == (torch.float32, torch.device("cpu"))
    latents = vae.encode(image).latent_dist.mode()
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    decoded = vae.decode(scaled / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
    torch.testing.assert_close(decoded, vae.decode(latents).sample, rtol=1e-4, atol=1e-5)
    processor = VaeImageProcessor(vae_scale_factor=8)
    pictures = processor.postprocess(decoded.detach(), output_type="pil")
    assert [picture.size for picture in pictures] == [(24, 32)] * 3
    assert processor.preprocess(pictures[0]).shape == (1, 3, 32, 24)
