"""What does a step of training cost? Encoder, sample of the latent, decoder, losses, and back to every gradient.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder -> losses]

As `litevae.train` takes a step, without the optimizer's update: the losses of Eq. (1) that the package has (L1, KL,
wavelet, Gaussian; neither LPIPS nor a discriminator), in float32 outside of autocast. The rows, at the 128 pixels of
the paper's pretraining and at 256:

    SD-VAE              diffusers' AutoencoderKL, eager, NCHW, with the same losses
    LiteVAE-S, B        as they are: channels_last, fused operators
    LiteVAE-B, plain    the same modules in NCHW with PyTorch's operations in place of the kernels: GroupNorm of the
                        concatenation, then SiLU, and the wavelets in reference.py's operations
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks import measure
from benchmarks.encoders import SD_VAE
from benchmarks.measure import DEVICE, MIB
from benchmarks.report import Column, Results, Table
from litevae.losses.total import AutoencoderLoss, LossConfig
from litevae.models import blocks
from litevae.models.baseline import StableDiffusionVAE
from litevae.models.litevae import LiteVAE

BATCH = 16 if DEVICE.type == "cuda" else 1
RESOLUTIONS = (128, 256)
PRECISIONS = ("float32", "bfloat16 autocast")
# Of the gradients, with the plain operators in float32. Most of the losses' own are signs, which a rounding can turn.
TOLERANCE = {"float32": 1e-3, "bfloat16 autocast": 2e-1}

YARDSTICK, PLAIN = "SD-VAE", "LiteVAE-B, plain"
MODELS = (YARDSTICK, PLAIN, "LiteVAE-S", "LiteVAE-B")
LABELS = {
    (name, resolution, precision): f"{name}, {resolution}x{resolution}, {precision}"
    for precision in PRECISIONS
    for resolution in RESOLUTIONS
    for name in MODELS
}


def build(name: str, device: torch.device | str) -> nn.Module:
    """The autoencoder `name` in float32: image [B, 3, H, W] -> LiteVAEOutput."""
    torch.manual_seed(0)
    with torch.device(device):
        if name == YARDSTICK:
            model: nn.Module = StableDiffusionVAE.from_architecture(block_out_channels=SD_VAE["block_out_channels"])
        else:
            model = LiteVAE.from_preset(name.split("-")[1][0])
    return (in_nchw(model) if name == PLAIN else model).train()


def in_nchw(model: nn.Module) -> nn.Module:
    """The model with its weights, and from its first convolutions on its activations, in NCHW."""
    for name, module in model.named_modules():
        if name.endswith("conv_in"):
            module.register_forward_pre_hook(lambda module, inputs: inputs[0].contiguous())
    return model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def group_norm_then_silu(
    x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float, *, skip: Tensor | None = None
) -> Tensor:
    joined = x if skip is None else torch.cat([x, skip], dim=1)
    return F.silu(F.group_norm(joined, num_groups, weight, bias, eps))


@contextmanager
def plain_operators(plain: bool = True) -> Iterator[None]:
    """PyTorch's operations in place of the kernels, for a while."""
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setenv("LITEVAE_KERNELS_BACKEND", "reference")
            patch.setattr(blocks, "group_norm_silu", group_norm_then_silu)
        yield


class Training:
    """`name` and its losses on one batch of images, ready to step."""

    def __init__(self, name: str, resolution: int, precision: str) -> None:
        self.model, self.is_plain = build(name, DEVICE), name == PLAIN
        self.is_mixed = precision == "bfloat16 autocast"
        self.loss = AutoencoderLoss(LossConfig()).to(DEVICE)
        self.image = torch.rand(BATCH, 3, resolution, resolution, device=DEVICE) * 2 - 1

    def step(self) -> Sequence[Tensor]:
        """What is timed: the gradients of all parameters, which whoever does not take them frees."""
        with plain_operators(self.is_plain):
            with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=self.is_mixed):
                output = self.model(self.image, sample_posterior=True)
            total, _ = self.loss(self.image, output.sample, output.wavelet, output.latent_dist)
            return torch.autograd.grad(total, list(self.model.parameters()))

    def gradient(self) -> Tensor:
        """Of all parameters, one after the other, with the same noise in the latent every time."""
        torch.manual_seed(1)
        return torch.cat([gradient.flatten() for gradient in self.step()])


TABLE = Table(
    name="training_step",
    title="A step of training: forward and backward",
    settings={
        "batch": BATCH,
        "losses": ", ".join(f"{name} ({weight:g})" for name, weight in LossConfig().weights.items()),
        "mode": "train, eager, float32 parameters, no TF32, no optimizer step",
    },
    columns=[
        Column("row", "autoencoder"),
        Column("parameters_m", "parameters, M", ".3f"),
        Column("img_per_s", "img/s", ".4g"),
        Column("iqr_img_per_s", "IQR", ".2g"),
        Column("speed_to_sd", "/ SD-VAE"),
        Column("peak_mib", "peak memory, MiB", ".0f"),
        Column("peak_to_sd", "/ SD-VAE", ".3f"),
        Column("rounds", "rounds", "d"),
    ],
    order=list(LABELS.values()),
    notes=[
        "SD-VAE: diffusers' AutoencoderKL in eager NCHW with the same losses. Img/s / SD-VAE: at the same size and "
        "precision, from the median over rounds of the row's time and the SD-VAE's right after it.",
        "Peak memory: the most that a step holds from torch's allocator at once, gradients among it, beside parameters "
        "and images.",
        "LiteVAE-B, plain: in NCHW with PyTorch's operations alone: GroupNorm of the concatenated skip, then SiLU; the "
        "wavelets by slicing.",
    ],
)


@functools.lru_cache(maxsize=1)
def yardstick(resolution: int, precision: str) -> tuple[Training, float]:
    """Stable Diffusion's autoencoder, and MiB of its peak memory."""
    training = Training(YARDSTICK, resolution, precision)
    training.step()  # what libraries allocate once is no row's
    return training, measure.peak_allocated_bytes(training.step) / MIB


def check(name: str, resolution: int, precision: str, training: Training) -> None:
    """Refuse to time wrong gradients of LiteVAE: they are those of the plain operators, in float32."""
    if name == YARDSTICK:
        return
    correct = Training(name, resolution, "float32")
    correct.image, correct.is_plain = training.image, True
    measure.check_close(name, [training.gradient()], [correct.gradient()], TOLERANCE[precision])


@pytest.mark.benchmark(group="training_step", timer=measure.clock)
@pytest.mark.parametrize(("name", "resolution", "precision"), LABELS, ids=list(LABELS.values()))
def test_training_step(
    name: str, resolution: int, precision: str, benchmark: BenchmarkFixture, results: Results
) -> None:
    sd_vae, sd_peak_mib = yardstick(resolution, precision)
    training = sd_vae if name == YARDSTICK else Training(name, resolution, precision)
    check(name, resolution, precision, training)
    rivals = {} if name == YARDSTICK else {YARDSTICK: sd_vae.step}
    timing = measure.time_interleaved(benchmark, training.step, rivals, budget_s=12.0)
    if timing is None:
        return
    peak_mib = sd_peak_mib if name == YARDSTICK else measure.peak_allocated_bytes(training.step) / MIB
    benchmark.extra_info.update(
        parameters_m=measure.parameter_count(training.model) / 1e6,
        img_per_s=BATCH / timing.median_s,
        iqr_img_per_s=BATCH / timing.quartiles_s[0] - BATCH / timing.quartiles_s[1],
        speed_to_sd=1 / timing.ratios.get(YARDSTICK, 1.0),
        peak_mib=peak_mib,
        peak_to_sd=peak_mib / sd_peak_mib,
        rounds=timing.rounds,
    )
    results.add(TABLE, LABELS[name, resolution, precision], benchmark.extra_info)
