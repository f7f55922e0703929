"""Which diffusers pipelines do the tests of hybrids run? Those of each teacher, narrow, with random weights.

The text encoders are left out: every call is given embeddings in place of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

SIDE = 64
TEXT, POOLED = 8, 16  # channels of embeddings


@dataclass(frozen=True)
class Family:
    """The pipelines of one teacher.

    parts: the network and what else the pipelines take, beside the autoencoder and the scheduler.
    call: what each call is told beside images.
    """

    layout: str
    parts: Callable[[], dict[str, Any]]
    scheduler: Callable[[], Any]
    call: Callable[[], dict[str, Any]]
    latent: tuple[int, ...]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _unet(**arguments: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": SIDE // 8,
            "block_out_channels": (8, 8),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "cross_attention_dim": TEXT,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            **arguments,
        }
    )


def _sd15() -> dict[str, Any]:
    return {
        "unet": _unet(),
        **dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")),
    }


def _sdxl() -> dict[str, Any]:
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    texts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "feature_extractor", "image_encoder")
    # 6 sizes of 4 channels beside the pooled embedding
    return {"unet": _unet(**added, projection_class_embeddings_input_dim=POOLED + 24), **dict.fromkeys(texts)}


def _sd3() -> dict[str, Any]:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=SIDE // 8,
        patch_size=1,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=16,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=16,
    )
    numbers = [f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")]
    return {"transformer": transformer, **dict.fromkeys([*numbers, "image_encoder", "feature_extractor"])}


def _flux() -> dict[str, Any]:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED,
        axes_dims_rope=(4, 4, 8),
    )
    return {
        "transformer": transformer,
        **dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")),
    }


def _flux2() -> dict[str, Any]:
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        timestep_guidance_channels=8,
        axes_dims_rope=(4, 4, 4, 4),
    )
    return {"transformer": transformer, "text_encoder": None, "tokenizer": None}


def _guided(**more: Any) -> dict[str, Any]:
    text = {"prompt_embeds": noise(1, 3, TEXT, seed=1), "negative_prompt_embeds": noise(1, 3, TEXT, seed=2)}
    return {**text, "guidance_scale": 3.0, **more}


def _pooled() -> dict[str, Any]:
    both = {"pooled_prompt_embeds": noise(1, POOLED, seed=3), "negative_pooled_prompt_embeds": noise(1, POOLED, seed=4)}
    return _guided(**both)


def _of_flux() -> dict[str, Any]:
    return {"prompt_embeds": noise(1, 3, TEXT, seed=1), "pooled_prompt_embeds": noise(1, POOLED, seed=3)}


def _ddim() -> Any:
    return diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)


FAMILIES = {
    "sd15": Family("sd15", _sd15, _ddim, _guided, (1, 4, 8, 8)),
    "sdxl": Family("sdxl", _sdxl, diffusers.EulerDiscreteScheduler, _pooled, (1, 4, 8, 8)),
    "sd3": Family("sd3", _sd3, diffusers.FlowMatchEulerDiscreteScheduler, _pooled, (1, 16, 8, 8)),
    "flux": Family("flux", _flux, diffusers.FlowMatchEulerDiscreteScheduler, _of_flux, (1, 16, 64)),
    "flux2": Family(
        "flux2",
        _flux2,
        diffusers.FlowMatchEulerDiscreteScheduler,
        lambda: {"prompt_embeds": noise(1, 3, TEXT, seed=1)},
        (1, 128, 4, 4),
    ),
}
# Pipeline -> family, and what it is told beside `FAMILIES`' call; "image" stands for a picture.
FROM_NOISE = {
    "StableDiffusionPipeline": "sd15",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
    "Flux2Pipeline": "flux2",
}
FROM_IMAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "StableDiffusionImg2ImgPipeline": ("sd15", ("image", "strength")),
    "StableDiffusionInpaintPipeline": ("sd15", ("image", "mask_image", "strength")),
    "StableDiffusionControlNetImg2ImgPipeline": ("sd15", ("image", "control_image", "strength")),
    "StableDiffusionControlNetInpaintPipeline": ("sd15", ("image", "mask_image", "control_image", "strength")),
    "StableDiffusionXLImg2ImgPipeline": ("sdxl", ("image", "strength")),
    "StableDiffusionXLInpaintPipeline": ("sdxl", ("image", "mask_image", "strength")),
    "StableDiffusion3Img2ImgPipeline": ("sd3", ("image", "strength")),
    "StableDiffusion3InpaintPipeline": ("sd3", ("image", "mask_image", "strength")),
    "StableDiffusion3ControlNetPipeline": ("sd3", ("control_image",)),  # which it encodes
    "FluxImg2ImgPipeline": ("flux", ("image", "strength")),
    "FluxInpaintPipeline": ("flux", ("image", "mask_image", "strength")),
    "FluxControlNetPipeline": ("flux", ("control_image",)),  # likewise
    "FluxKontextPipeline": ("flux", ("image",)),
    "Flux2Pipeline": ("flux2", ("image",)),
}


def build(name: str, family: Family, vae: Any) -> Any:
    """A pipeline with this autoencoder; the same weights at each call."""
    torch.manual_seed(5)
    kind = getattr(diffusers, name)
    parts = family.parts()
    if "ControlNet" in name:
        parts["controlnet"] = _controlnet(family.layout, parts)
    names = kind.__init__.__code__.co_varnames
    parts = {part: value for part, value in parts.items() if part in names}
    if "requires_safety_checker" in names:
        parts["requires_safety_checker"] = False
    pipeline = kind(vae=vae, scheduler=family.scheduler(), **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _controlnet(layout: str, parts: dict[str, Any]) -> Any:
    if layout == "sd15":
        made = diffusers.ControlNetModel.from_unet(parts["unet"])
    elif layout == "sd3":
        transformer = parts["transformer"]
        made = diffusers.SD3ControlNetModel.from_transformer(
            transformer, num_layers=1, num_extra_conditioning_channels=0
        )
    else:
        sizes = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
        made = diffusers.FluxControlNetModel.from_transformer(parts["transformer"], **sizes)
    with torch.no_grad():
        for parameter in made.parameters():  # many of them begin as 0
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def empty_parts(pipeline: Any) -> dict[str, None]:
    """What `from_pretrained` must be told, as it was never there."""
    return {name: None for name, part in pipeline.components.items() if part is None}


def picture() -> Tensor:
    """[1, 3, SIDE, SIDE] in [0, 1], as pipelines take images."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, SIDE), torch.linspace(0, 5, SIDE), indexing="ij")
    return torch.stack([torch.sin(rows + columns), torch.cos(rows * columns), torch.sin(2 * rows)])[None] / 2 + 0.5


def run(pipeline: Any, family: Family, images: tuple[str, ...] = ()) -> Any:
    """One step or two from fixed noise: [1, SIDE, SIDE, 3] in [0, 1]."""
    told: dict[str, Any] = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(6)}
    if not images:
        told["latents"] = noise(*family.latent, seed=7)
    for name in images:
        told[name] = {"strength": 0.5, "mask_image": (picture()[:, :1] > 0.5).float()}.get(name)
        told[name] = picture() if told[name] is None else told[name]
    names = type(pipeline).__call__.__wrapped__.__code__.co_varnames
    told |= {name: SIDE for name in ("height", "width") if name in names}
    told |= {"max_area": SIDE**2, "_auto_resize": False} if "_auto_resize" in names else {}
    if images and family.layout == "flux2":
        told["image"] = to_pil_image(picture()[0])
    told |= family.call()
    half = {name: value.to(pipeline.dtype) for name, value in told.items() if "embeds" in name or name == "latents"}
    return pipeline(**told | half, output_type="np").images
