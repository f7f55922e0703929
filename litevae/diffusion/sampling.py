"""Samples of a diffusion model: noise to latents by a diffusers scheduler, and the pipeline that does the same.

noise -> [network, step by step] -> latent -> [frozen decoder]
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from litevae.diffusion.config import DIT_CLASSES, SamplingConfig
from litevae.diffusion.networks import Denoiser
from litevae.diffusion.noise import Noising
from litevae.evaluation.autoencoders import diffusers_model
from litevae.latent_cache.scale import fold_scale
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.litevae import LiteVAE
from litevae.models.publishing import forget_origin

NO_NAME = "all"
"""What a pipeline calls the one class of a transformer without classes."""


@torch.no_grad()
def draw(
    denoiser: Denoiser,
    scheduler: Any,
    sampling: SamplingConfig,
    noise: Tensor,
    labels: Tensor,
    generators: list[torch.Generator] | None = None,
) -> Tensor:
    """Latents at unit scale, [B, C, h, w], float32.

    Args:
        denoiser: in eval mode.
        scheduler: of diffusers.
        noise: Gaussian, [B, C, h, w].
        labels: int64 [B]; DIT_CLASSES for no class.
        generators: one for each sample, of the noise on the way, where `sampling.eta` adds some.
    """
    scheduler.set_timesteps(sampling.steps, device=noise.device)
    options: dict[str, Any] = {"eta": sampling.eta, "generator": generators} if sampling.eta else {}
    x, guided = noise, sampling.guidance > 1
    if guided:
        labels = torch.cat([labels, torch.full_like(labels, DIT_CLASSES)])
    for t in scheduler.timesteps:
        times = t.to(torch.float32).expand(len(labels))
        predicted = denoiser(torch.cat([x, x]) if guided else x, times, labels).float()
        if guided:
            with_class, without = predicted.chunk(2)
            predicted = without + sampling.guidance * (with_class - without)
        x = scheduler.step(predicted, t, x, **options).prev_sample
    return x


def with_sampler(saved: Any, sampler: str | None, eta: float = 0.0) -> Any:
    """A saved scheduler, or another that samples the same model by `sampler` (None: as it was saved).

    Raises:
        ValueError: a sampler that the model has not, or an eta that the sampler has not.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    is_flow = saved.config.get("prediction_type") == "flow_prediction"
    own = "ddim" if isinstance(saved, DDIMScheduler) else "euler" if saved.config.get("solver_order") == 1 else "dpm"
    checked = SamplingConfig(sampler=sampler or own, eta=eta).sampler_for("flow" if is_flow else "epsilon")
    if checked == "ddim":
        return DDIMScheduler.from_config(saved.config, clip_sample=False, set_alpha_to_one=False)
    order = {"solver_order": 1 if checked == "euler" else 2} if is_flow else {}
    return DPMSolverMultistepScheduler.from_config(saved.config, **order)


def pipeline(
    denoiser: Denoiser,
    noising: Noising,
    sampling: SamplingConfig,
    autoencoder: nn.Module,
    means: Sequence[float],
    stds: Sequence[float],
    classes: Sequence[str] | None,
) -> Any:
    """diffusers' own pipeline for the network: LDMPipeline of a UNet, DiTPipeline of a transformer.

    They know one scaling_factor. Where the latents' scale is another for each channel, the autoencoder in it is a copy
    that has the scale in its weights (`fold_scale`).
    """
    from diffusers import DiTPipeline, LDMPipeline

    vae: Any = copy.deepcopy(autoencoder)
    if len(set(stds)) == 1 and not any(means):
        diffusers_model(vae).register_to_config(scaling_factor=1 / stds[0])
    else:
        fold_scale(vae, means, stds)
    owner, scheduler = diffusers_model(vae).cpu(), noising.scheduler(sampling)
    forget_origin(owner)
    network: Any = copy.deepcopy(denoiser.network).cpu().eval()
    if not hasattr(network.config, "num_embeds_ada_norm"):
        return LDMPipeline(vqvae=owner, unet=network, scheduler=scheduler)
    id2label = dict(enumerate(classes)) if classes else {DIT_CLASSES: NO_NAME}
    made: Any = DiTPipeline(transformer=network, vae=owner, scheduler=scheduler, id2label=id2label)
    made.register_to_config(id2label=id2label)  # else the names are not saved
    return made


def can_fold(autoencoder: nn.Module) -> bool:
    """Whether the autoencoder can have a scale for each channel in its weights."""
    if isinstance(autoencoder, LiteVAE):
        return not autoencoder.is_deterministic
    return isinstance(autoencoder, StableDiffusionVAE)
