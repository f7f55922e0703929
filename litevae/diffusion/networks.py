"""The network that is trained, diffusers' own, its average, and the noise that validation adds.

latent -> noise -> [network]
"""

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from litevae.diffusion.config import DIT_CLASSES, DiffusionConfig, NetworkConfig
from litevae.runs.learner import Learner, average_into
from litevae.runs.processes import Processes
from litevae.seeds import derive_seed


def build_network(config: NetworkConfig, channels: int, side: int) -> nn.Module:
    """A UNet2DModel or DiTTransformer2DModel for latents [B, channels, side, side], initialized as its class does."""
    if config.kind == "unet":
        from diffusers import UNet2DModel

        resolutions = len(config.unet_multipliers)
        unet: Any = UNet2DModel(
            sample_size=side,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(config.unet_channels * multiplier for multiplier in config.unet_multipliers),
            layers_per_block=config.unet_blocks,
            down_block_types=("DownBlock2D",) + ("AttnDownBlock2D",) * (resolutions - 1),
            up_block_types=("AttnUpBlock2D",) * (resolutions - 1) + ("UpBlock2D",),
            attention_head_dim=config.unet_head_channels,
        )
        return cast(nn.Module, unet)
    from diffusers import DiTTransformer2DModel

    transformer: Any = DiTTransformer2DModel(
        num_attention_heads=config.dit_heads,
        attention_head_dim=config.dit_width // config.dit_heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=config.dit_depth,
        sample_size=side,
        patch_size=config.dit_patch,
        num_embeds_ada_norm=DIT_CLASSES,  # without classes all have the number of none, as a pipeline's guidance asks
    )
    for module in transformer.modules():
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0  # each block would leave out classes by itself, and draw for it
    return cast(nn.Module, transformer)


class Denoiser(nn.Module):
    """A network behind one signature: noisy latents [B, C, h, w], times [B], labels [B] -> prediction [B, C, h, w]."""

    def __init__(self, network: nn.Module, classes: bool) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, noisy: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """`labels`: int64; DIT_CLASSES for no class. Networks without classes do not read them."""
        network: Any = self.network
        if not hasattr(network.config, "num_embeds_ada_norm"):
            return network(noisy, times).sample
        labels = labels if self.classes else torch.full_like(labels, DIT_CLASSES)
        return network(noisy, timestep=times, class_labels=labels).sample


class DiffusionNetworks:
    """Everything with weights that a run has, on its device."""

    def __init__(self, config: DiffusionConfig, channels: int, side: int, processes: Processes) -> None:
        train = config.train
        torch.manual_seed(derive_seed(train.seed, "weights", 0))
        self.model = Denoiser(build_network(config.network, channels, side), config.network.classes)
        self.model.to(processes.device).train()
        if train.gradient_checkpointing:
            cast(Any, self.model.network).enable_gradient_checkpointing()
        self.ema_decay = train.ema_decay
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False) if train.ema_decay else None
        if train.compile:
            self.model.network.compile()
        self.learner = Learner(self.model, processes, train, train.learning_rate, train.betas)

    def average(self) -> None:
        """One step of the moving average of the weights, where there is one."""
        if self.ema is not None:
            average_into(self.ema, self.model, self.ema_decay)

    @property
    def kept(self) -> Denoiser:
        """The network that a run leaves: the averaged one where there is one."""
        return self.model if self.ema is None else self.ema
