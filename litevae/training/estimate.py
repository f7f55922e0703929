"""What will a run need? Parameters, arithmetic and memory of a training step, found without allocating any of it.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from litevae.cost import LiveTensors, multiply_accumulates, parameter_count
from litevae.losses.gaussian import gaussian_high_pass_loss
from litevae.losses.kl import kl_loss
from litevae.losses.l1 import l1_loss
from litevae.losses.wavelet import wavelet_charbonnier_loss
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.litevae import LiteVAE
from litevae_kernels.checks import check_choice, check_int


@dataclass(frozen=True)
class Estimate:
    """What `estimate` finds.

    Arithmetic is in multiply-accumulates of one crop's forward pass. Memory is in bytes, at the fullest moment of a
    step, of one process; `total_bytes` is their sum. An allocator's rounding, workspaces inside operations and, on a
    GPU, the CUDA context come on top.
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
    """Adam's two moments of every parameter."""
    average_bytes: int
    """The moving average of the model."""
    gradient_bytes: int
    """The gradients that exist at that moment, and DistributedDataParallel's buckets."""
    activation_bytes: int
    """Images, and what forward and backward passes remember and make."""

    @property
    def total_bytes(self) -> int:
        held = self.parameter_bytes + self.optimizer_bytes + self.average_bytes
        return held + self.gradient_bytes + self.activation_bytes


def estimate(
    model: LiteVAE | StableDiffusionVAE,
    discriminator: nn.Module | None,
    batch_size: int,
    crop_size: int,
    *,
    perceptual: nn.Module | None = None,
    autocast_dtype: torch.dtype | None = None,
    averages: bool = False,
    accumulates: bool = False,
    distributes: bool = False,
    device_type: str = "cpu",
) -> Estimate:
    """Parameters, arithmetic and memory of a training step, with Adam, of the losses of Eq. (1).

    The networks are copied as shapes, wherever they are (torch.device("meta") will do), and the shapes take the step:
    seconds, no memory. Gradient checkpointing counts where it is enabled; torch.compile, the R1 penalty and the
    average's own reconstruction (the LDL loss) do not.

    Args:
        discriminator: image [B, 3, H, W] -> tuple of logits; None: the run has none.
        batch_size: crops that one process takes at once.
        crop_size: their height and width, a multiple of 8.
        perceptual: (reconstruction, image) -> scalar; None: the run has none.
        autocast_dtype: torch.bfloat16 or float16, as the trainer's autocast around the networks; None: float32.
        averages: whether a moving average of the model is kept.
        accumulates: whether gradients of an earlier slice of the batch are already there.
        distributes: whether DistributedDataParallel keeps its buckets beside the gradients.
        device_type: where the run would be, "cpu" or "cuda": autocast and attention differ. "cuda" needs a GPU,
            without using its memory.

    Raises:
        TypeError, ValueError: batch_size, crop_size or device_type is none.

    >>> with torch.device("meta"):
    ...     model = LiteVAE.from_preset("B")
    >>> needed = estimate(model, None, batch_size=16, crop_size=256)
    >>> needed.encoder_parameters, round(needed.encoder_macs / 1e9, 2), round(needed.total_bytes / 1e9)
    (6753252, 37.84, 24)
    """
    check_int("batch_size", batch_size, at_least=1)
    check_int("crop_size", crop_size, at_least=8)
    check_choice("device_type", device_type, ("cpu", "cuda"))
    networks = [network for network in (model, discriminator, perceptual) if network is not None]
    held = _bytes(tensor for network in networks for tensor in (*network.parameters(), *network.buffers()))
    trained = _bytes([*model.parameters(), *(() if discriminator is None else discriminator.parameters())])
    device = torch.device(device_type)
    with FakeTensorMode(allow_non_fake_inputs=True):
        step = _Step(model, discriminator, perceptual, device, autocast_dtype)
        for _ in range(2 if accumulates else 1):
            step.take(batch_size, crop_size)
    gradients = step.tensors.gradient_bytes_at_peak
    return Estimate(
        **_counts(model, discriminator, perceptual, crop_size),
        parameter_bytes=held,
        optimizer_bytes=2 * trained,
        average_bytes=_bytes([*model.parameters(), *model.buffers()]) if averages else 0,
        gradient_bytes=gradients + (trained if distributes else 0),
        activation_bytes=step.tensors.peak_bytes - held - gradients,
    )


class _StepTensors(LiveTensors):
    """Live tensors, and how much of them were finished gradients at the fullest moment."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_bytes_at_peak = 0
        self._gradients: dict[Tensor, int] = {}

    def watch(self, parameter: Tensor) -> None:
        """Know the gradient of `parameter` once it is there."""
        parameter.register_post_accumulate_grad_hook(self._note)

    def _note(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._gradients[parameter] = parameter.grad.nbytes

    def _add(self, storage: torch.UntypedStorage) -> None:
        peak = self.peak_bytes
        super()._add(storage)
        if self.peak_bytes > peak:
            self.gradient_bytes_at_peak = sum(self._gradients.values())


class _Step:
    """A step of `litevae.training.update`, of shapes."""

    def __init__(
        self,
        model: nn.Module,
        discriminator: nn.Module | None,
        perceptual: nn.Module | None,
        device: torch.device,
        autocast_dtype: torch.dtype | None,
    ) -> None:
        self.device, self.dtype = device, autocast_dtype
        self.model: Any = _shapes_of(model, device).train()
        self.discriminator = None if discriminator is None else _shapes_of(discriminator, device).train()
        self.perceptual = None if perceptual is None else _shapes_of(perceptual, device)
        self.tensors = _StepTensors()
        for network in (self.model, self.discriminator, self.perceptual):
            if network is not None:
                self.tensors.hold([*network.parameters(), *network.buffers()])
        for network in (self.model, self.discriminator):
            for parameter in () if network is None else network.parameters():
                self.tensors.watch(parameter)

    def take(self, batch_size: int, crop_size: int) -> None:
        """Forward and backward of the generator's losses, then of the discriminator's."""
        with self.tensors:
            pixels = torch.empty(batch_size, 3, crop_size, crop_size, dtype=torch.uint8, device=self.device)
            image = pixels.to(torch.float32).div_(127.5).sub_(1.0)
            with self.autocast():
                output = self.model(image, sample_posterior=True)
            self.generator_loss(image, output).backward()
            if self.discriminator is not None:
                with self.autocast():
                    logits = self.discriminator(torch.cat([image, output.sample.detach().to(image.dtype)]))
                sum(logit.float().relu().mean() for logit in logits).backward()

    def generator_loss(self, image: Tensor, output: Any) -> Tensor:
        loss = l1_loss(output.sample, image) + kl_loss(output.latent_dist, image, "per_image_element")
        loss = loss + wavelet_charbonnier_loss(output.sample, image, wavelet=output.wavelet)
        loss = loss + gaussian_high_pass_loss(output.sample, image)
        with self.autocast():
            if self.perceptual is not None:
                loss = loss + self.perceptual(output.sample, image)
            if self.discriminator is not None:
                self.discriminator.requires_grad_(False)
                loss = loss - sum(logit.float().mean() for logit in self.discriminator(output.sample))
                self.discriminator.requires_grad_(True)
        return loss

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)


def _counts(
    model: Any, discriminator: nn.Module | None, perceptual: nn.Module | None, crop_size: int
) -> dict[str, int]:
    """Parameters, and the arithmetic of one crop, on meta tensors."""
    meta = torch.device("meta")
    image = torch.empty(1, 3, crop_size, crop_size, device=meta)
    model = _shapes_of(model, meta)
    with torch.no_grad():
        encoder = multiply_accumulates(model.encode, image)
        whole = multiply_accumulates(model, image)
        judged = 0 if discriminator is None else multiply_accumulates(_shapes_of(discriminator, meta), image)
        compared = 0 if perceptual is None else multiply_accumulates(_shapes_of(perceptual, meta), image, image)
    return {
        "encoder_parameters": parameter_count(model.encoder, model.quant_conv),
        "decoder_parameters": parameter_count(model.decoder, model.post_quant_conv),
        "discriminator_parameters": parameter_count(discriminator),
        "encoder_macs": encoder,
        "decoder_macs": whole - encoder,
        "discriminator_macs": judged,
        "perceptual_macs": compared,
    }


def _shapes_of(network: nn.Module, device: torch.device) -> nn.Module:
    """A copy whose parameters and buffers are new tensors of the same shapes on `device`, made of nothing."""
    copies: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        copies[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(network, copies)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
