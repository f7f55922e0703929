"""What a step of training needs: parameters, arithmetic and memory, found without allocating any of it.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from litevae.cost import LiveTensors, copy_shapes, multiply_accumulates, parameter_count
from litevae.losses.total import AutoencoderLoss
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.litevae import LiteVAE
from litevae.training.config import RunConfig
from litevae.training.update import Update
from litevae_kernels.checks import check_choice, check_int


@dataclass(frozen=True)
class Estimate:
    """What `estimate` finds.

    Arithmetic is in multiply-accumulates of one crop's forward pass. Memory is in bytes of one process at the peak of
    a step; `total_bytes` is their sum. The rounding of an allocator, workspaces inside operations and, on a GPU, the
    CUDA context come on top.
    """

    encoder_parameters: int
    decoder_parameters: int
    discriminator_parameters: int
    encoder_macs: int
    decoder_macs: int
    discriminator_macs: int
    perceptual_macs: int
    parameter_bytes: int
    """Parameters and buffers, the perceptual network's among them."""
    optimizer_bytes: int
    """Adam's two moments of every parameter that is trained."""
    average_bytes: int
    """The moving average of the model."""
    gradient_bytes: int
    """The gradients that exist at the peak, and DistributedDataParallel's buckets."""
    activation_bytes: int
    """Images, what the forward passes keep for the backward passes, and temporaries."""

    @property
    def total_bytes(self) -> int:
        held = self.parameter_bytes + self.optimizer_bytes + self.average_bytes
        return held + self.gradient_bytes + self.activation_bytes


def estimate(
    config: RunConfig,
    model: LiteVAE | StableDiffusionVAE,
    discriminator: nn.Module | None,
    perceptual: nn.Module | None,
    batch_size: int,
    *,
    accumulates: bool = False,
    distributes: bool = False,
    device_type: str = "cpu",
) -> Estimate:
    """Parameters, arithmetic and memory of a training step with Adam.

    The networks are copied as fake tensors, wherever they are (torch.device("meta") will do), and make an `Update`:
    seconds, no memory. Gradient checkpointing counts where it is enabled, torch.compile does not.

    Args:
        discriminator: (image [B, 3, H, W], parts) -> tuple of logits; None: the run has none.
        perceptual: (reconstruction, image) -> scalar; None: the run has none.
        batch_size: crops that one process takes at once.
        accumulates: whether there are gradients of an earlier accumulation step already.
        distributes: whether DistributedDataParallel keeps its buckets beside the gradients.
        device_type: where the run would be, "cpu" or "cuda": autocast and attention differ. "cuda" needs a GPU,
            without using its memory.

    Raises:
        TypeError, ValueError: batch_size or device_type is none, or the model does not take the crop size.

    >>> from litevae.data.config import DataConfig
    >>> with torch.device("meta"):
    ...     model = LiteVAE.from_preset("B")
    >>> needed = estimate(RunConfig(data=DataConfig(crop_size=256)), model, None, None, batch_size=16)
    >>> needed.encoder_parameters, round(needed.encoder_macs / 1e9, 2), round(needed.total_bytes / 1e9)
    (6753252, 37.84, 24)
    """
    check_int("batch_size", batch_size, at_least=1)
    check_choice("device_type", device_type, ("cpu", "cuda"))
    crop_size, averages = config.data.crop_size, config.train.ema_decay > 0
    parameters = sum(_bytes(network) for network in (model, discriminator, perceptual))
    trained = _bytes(model, trained=True) + _bytes(discriminator, trained=True)
    average = _bytes(model) if averages else 0
    tensors = _StepTensors()
    with FakeTensorMode(allow_non_fake_inputs=True):
        device = torch.device(device_type)
        networks: Any = _fake_networks(model, discriminator, AutoencoderLoss(config.loss, perceptual), averages, device)
        processes: Any = SimpleNamespace(
            device=device, share_of=lambda *_: batch_size, average=lambda gradient: gradient
        )
        update = Update(config, networks, processes)
        for network in (networks.model, networks.ema, networks.loss, getattr(networks.discriminator, "network", None)):
            tensors.hold_network(network)
        for _ in range(2 if accumulates else 1):
            with tensors:
                pixels = torch.empty(batch_size, 3, crop_size, crop_size, dtype=torch.uint8, device=device)
                update.backward(pixels, 0, networks.discriminator, 0)
    gradients = tensors.gradient_bytes_at_peak
    return Estimate(
        **_counts(model, discriminator, perceptual, crop_size),
        parameter_bytes=parameters,
        optimizer_bytes=2 * trained,
        average_bytes=average,
        gradient_bytes=gradients + (trained if distributes else 0),
        activation_bytes=tensors.peak_bytes - parameters - average - gradients,
    )


class _StepTensors(LiveTensors):
    """Live tensors, and how many bytes of them were finished gradients at the peak."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_bytes_at_peak = 0
        self._gradients: dict[Tensor, int] = {}

    def hold_network(self, network: nn.Module | None) -> None:
        """Count its parameters and buffers, and the gradients once they are there."""
        if network is not None:
            self.hold([*network.parameters(), *network.buffers()])
            for parameter in network.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(self._note)

    def _note(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._gradients[parameter] = parameter.grad.nbytes

    def _add(self, storage: torch.UntypedStorage) -> None:
        peak = self.peak_bytes
        super()._add(storage)
        if self.peak_bytes > peak:
            self.gradient_bytes_at_peak = sum(self._gradients.values())


def _fake_networks(
    model: nn.Module, discriminator: nn.Module | None, loss: nn.Module, averages: bool, device: torch.device
) -> SimpleNamespace:
    """What `Update` uses of `Networks`."""

    def learner(network: nn.Module) -> SimpleNamespace:
        return SimpleNamespace(network=network, distributed=network, backward=lambda loss: loss.backward())

    copied = copy_shapes(model, device).train()
    return SimpleNamespace(
        model=copied,
        ema=copy_shapes(model, device).eval().requires_grad_(False) if averages else None,
        loss=copy_shapes(loss, device),
        generator=learner(copied),
        discriminator=None if discriminator is None else learner(copy_shapes(discriminator, device).train()),
    )


def _counts(
    model: Any, discriminator: nn.Module | None, perceptual: nn.Module | None, crop_size: int
) -> dict[str, int]:
    """Parameters, and the arithmetic of one crop, on meta tensors."""
    meta = torch.device("meta")
    image = torch.empty(1, 3, crop_size, crop_size, device=meta)
    model = copy_shapes(model, meta)
    with torch.no_grad():
        encoder = multiply_accumulates(model.encode, image)
        whole = multiply_accumulates(model, image)
        discriminated = 0 if discriminator is None else multiply_accumulates(copy_shapes(discriminator, meta), image)
        compared = 0 if perceptual is None else multiply_accumulates(copy_shapes(perceptual, meta), image, image)
    return {
        "encoder_parameters": parameter_count(model.encoder, model.quant_conv),
        "decoder_parameters": parameter_count(model.decoder, model.post_quant_conv),
        "discriminator_parameters": parameter_count(discriminator),
        "encoder_macs": encoder,
        "decoder_macs": whole - encoder,
        "discriminator_macs": discriminated,
        "perceptual_macs": compared,
    }


def _bytes(network: nn.Module | None, trained: bool = False) -> int:
    """Of parameters and buffers, or of the parameters that are trained."""
    if network is None:
        return 0
    tensors = [*network.parameters(), *network.buffers()]
    if trained:
        tensors = [tensor for tensor in tensors if tensor.requires_grad]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
