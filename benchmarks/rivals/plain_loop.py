"""Training without this project: the same losses in the loop that one writes from the paper.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]

Eager, in NCHW, with public tools: diffusers' decoder and posterior, the package lpips, torchvision's blur, PyTorch's
spectral norm and Adam. None of this project's operators runs in it; it takes over the weights of the networks that
`litevae.train` makes, so that both have the same losses and gradients. Nothing is slow on purpose: the wavelets are
sliced (ptwt takes longer), the discriminator's 1x1 convolutions stay at the lower resolution, nothing is logged.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks.rivals import wavelet_peers
from benchmarks.rivals.encoders import PaperEncoder
from litevae.losses.perceptual import LpipsLoss
from litevae.models.discriminators.unet import UNetDiscriminator
from litevae.training.config import RunConfig
from litevae.training.networks import Networks

Terms = dict[str, Tensor]


class PlainLoop:
    """An update of autoencoder and discriminator, from copies of the weights of `networks`.

    `second_forward`: the discriminator's step has a forward pass of the autoencoder for itself, as in the training
    code of latent diffusion, whose `training_step` runs once for each optimizer.
    """

    def __init__(self, config: RunConfig, networks: Networks, *, second_forward: bool = False) -> None:
        assert networks.discriminator is not None
        train, self.loss = config.train, config.loss
        self.second_forward, self.latent_channels = second_forward, config.model.architecture.latent_channels
        device = networks.model.last_layer.device
        self.autoencoder = PlainAutoencoder(networks.model).to(device)
        self.discriminator = PlainDiscriminator(networks.discriminator.network).to(device)
        self.perceptual = lpips_package(networks.loss.perceptual).to(device)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=train.learning_rate, betas=(train.betas[0], train.betas[1]))
            for network in (self.autoencoder, self.discriminator)
        ]
        self._autocast: Callable[[], torch.autocast] = lambda: torch.autocast(
            device.type, dtype=train.autocast_dtype, enabled=train.autocast_dtype is not None
        )

    @property
    def networks(self) -> list[nn.Module]:
        return [self.autoencoder, self.discriminator]

    def __call__(self, pixels: Tensor, noise: Tensor | None = None) -> Terms:
        """The terms by name, detached. `noise`: of the latent, [B, C, H/8, W/8]; new noise if None."""
        image = pixels.float() / 127.5 - 1
        autoencoder_optimizer, discriminator_optimizer = self.optimizers

        # generator step
        self.discriminator.requires_grad_(False)
        with self._autocast():
            reconstruction, posterior = self.autoencoder(image, noise)
            perceptual = self.perceptual(reconstruction, image).mean()
            fake = self.discriminator(reconstruction)
        terms = self._terms(image, reconstruction.float(), posterior)
        terms["perceptual"] = perceptual
        terms["adversarial"] = -torch.stack([logits.float().mean() for logits in fake]).mean()
        total = torch.stack([self.loss.weights[name] * term for name, term in terms.items()]).sum()
        total.backward()
        autoencoder_optimizer.step()
        autoencoder_optimizer.zero_grad()
        self.discriminator.requires_grad_(True)

        # discriminator step
        with self._autocast():
            if self.second_forward:
                with torch.no_grad():
                    reconstruction, _ = self.autoencoder(image, noise)
            real, fake = self.discriminator(image), self.discriminator(reconstruction.detach())
        loss = hinge_loss(real, fake)
        loss.backward()
        discriminator_optimizer.step()
        discriminator_optimizer.zero_grad()
        return {name: term.detach() for name, term in (terms | {"total": total, "discriminator": loss}).items()}

    def _terms(self, image: Tensor, reconstruction: Tensor, posterior: Any) -> Terms:
        """Those without networks, in float32."""
        from torchvision.transforms.functional import gaussian_blur

        size, sigma = self.loss.gaussian_kernel_size, self.loss.gaussian_sigma
        texture = [x - gaussian_blur(x, [size, size], [sigma, sigma]) for x in (reconstruction, image)]
        details = [haar(x)[:, 3:] / 2 for x in (reconstruction, image)]  # H, V, D
        return {
            "l1": F.l1_loss(reconstruction, image),
            "kl": posterior.kl().mean() / image[0].numel(),
            "wavelet": torch.sqrt((details[0] - details[1]) ** 2 + self.loss.wavelet_eps**2).mean(),
            "gaussian": F.l1_loss(*texture),
        }


def hinge_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Of the discriminator, all of whose heads count alike."""
    head_losses = [
        0.5 * (F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean())
        for real_logits, fake_logits in zip(real, fake, strict=True)
    ]
    return torch.stack(head_losses).mean()


def haar(image: Tensor) -> Tensor:
    """One level of the Haar transform by slicing: [B, C, H, W] -> [B, 4C, H/2, W/2], L H V D."""
    a, b, c, d = image[..., 0::2, 0::2], image[..., 0::2, 1::2], image[..., 1::2, 0::2], image[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], dim=1) / 2


def lpips_package(ours: Any) -> nn.Module:
    """The package's LPIPS, frozen, on the trunk of `ours`."""
    import lpips

    assert isinstance(ours, LpipsLoss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in a way that torchvision wants to give up
        model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).requires_grad_(False)
    layers = {name.split(".")[-1]: layer for name, layer in model.net.named_modules() if isinstance(layer, nn.Conv2d)}
    for name, convolution in ours.trunk.convolutions.items():
        layers[name.removeprefix("features.")].load_state_dict(convolution.state_dict())
    return model.eval()


class PlainEncoder(PaperEncoder):
    """The paper's encoder with its wavelets by slicing, once for all levels."""

    def pyramid(self, image: Tensor) -> list[Tensor]:
        return wavelet_peers.mean_scaled(wavelet_peers.slicing(image))


class PlainAutoencoder(nn.Module):
    """(image, noise of the latent) -> reconstruction, posterior. Encoder as in the paper, decoder of diffusers."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        from diffusers.models.autoencoders.vae import Decoder

        config = model.architecture
        twin = type(model)(**model.config)  # to hold the encoder's parameters
        self.encoder = PlainEncoder(twin.encoder)
        self.encoder.encoder.load_state_dict(model.encoder.state_dict())
        self.decoder = Decoder(
            config.latent_channels,
            block_out_channels=config.block_out_channels,
            up_block_types=("UpDecoderBlock2D",) * len(config.block_out_channels),
            layers_per_block=config.layers_per_block,
        )
        self.decoder.load_state_dict(model.decoder.state_dict())

    def forward(self, image: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Any]:
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        posterior = DiagonalGaussianDistribution(self.encoder(image).float())
        noise = torch.randn_like(posterior.mean) if noise is None else noise
        return self.decoder(posterior.mean + posterior.std * noise), posterior


class PlainDiscriminator(nn.Module):
    """The UNet discriminator from BigGAN's blocks, which convolve and then pool, or repeat pixels and then convolve."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        assert isinstance(ours, UNetDiscriminator)
        self.positions = 16  # the bottleneck is summed up over as many as at the chosen resolution
        self.down_blocks = nn.ModuleList(PlainBlock(block) for block in ours.down_blocks)
        self.up_blocks = nn.ModuleList(PlainBlock(block) for block in ours.up_blocks)
        self.conv_out = _convolution(ours.conv_out)
        self.bottleneck_out = _convolution(ours.bottleneck_out)
        self.load_state_dict(ours.state_dict())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x, skips = image, []
        block: Any
        for level, block in enumerate(self.down_blocks):
            hidden = block.conv1(F.relu(x) if level else x)
            hidden = F.avg_pool2d(block.conv2(F.relu(hidden)), 2)
            x = hidden + block.conv_shortcut(F.avg_pool2d(x, 2))
            skips.append(x)
        image_logits = self.bottleneck_out(F.relu(skips.pop()).mean((2, 3), keepdim=True) * self.positions).flatten(1)
        for block in self.up_blocks:
            hidden = block.conv1(F.interpolate(F.relu(x), scale_factor=2))
            x = block.conv2(F.relu(hidden)) + F.interpolate(block.conv_shortcut(x), scale_factor=2)
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
        return self.conv_out(x), image_logits


class PlainBlock(nn.Module):
    """The convolutions of one block."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        for name, layer in ours.named_children():
            self.add_module(name, _convolution(layer))


def _convolution(ours: Any) -> nn.Module:
    """A new one of the same shape with spectral norm."""
    size = ours.kernel_size[0]
    return spectral_norm(nn.Conv2d(ours.in_channels, ours.out_channels, size, padding=size // 2))
