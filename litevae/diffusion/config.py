"""A latent diffusion model's config, section by section, checked on construction.

image -> [frozen encoder -> latent -> noise -> network] -> samples -> [frozen decoder]
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from litevae.data.config import DataConfig
from litevae.runs.config import LoopConfig, RunSection
from litevae_kernels.checks import check_choice, check_int, check_number, checked_ints, wrong_value

NETWORKS = ("unet", "dit")
OBJECTIVES = ("epsilon", "flow")
TIMES = ("uniform", "logit_normal")
SAMPLERS = {"epsilon": ("ddim", "dpm"), "flow": ("euler", "dpm")}
SCALES = ("channel", "scalar")
METRICS = ("fwd", "fid")
MOST_STEPS = 500
"""Of the 1,000 times of training two at least lie between those of a sampler."""
DIT_CLASSES = 1000
"""What diffusers' DiTPipeline takes for granted: its embedding of no class has this number."""


@dataclass
class AutoencoderConfig:
    """The `autoencoder` section: whose latents are modelled. `autoencoder=RUN` is short for `autoencoder.path=RUN`."""

    path: str | None = None
    """A run's folder, or any model that `litevae.latents` takes. It is not trained."""
    subfolder: str | None = None
    """Where the autoencoder is in `path`, such as vae."""
    cache: str | None = None
    """Latents that `litevae.latents` has encoded; null: `data` is encoded on the fly, in new crops every time."""
    sample: bool = True
    """Train on samples of the posterior; false: on its mean."""
    scale: str = "channel"
    """Latents are brought to mean 0 and standard deviation 1 in each `channel`; or, with `scalar`, by one factor
    without a shift, as LDM does. It is measured where neither cache nor autoencoder say it."""

    def __post_init__(self) -> None:
        check_choice("autoencoder.scale", self.scale, SCALES)


@dataclass
class NetworkConfig:
    """The `network` section: what learns."""

    kind: str = "unet"
    """`unet`: diffusers' UNet2DModel, LDM's with the defaults; `dit`: diffusers' DiTTransformer2DModel."""
    classes: bool = False
    """`dit`: learn the classes of the data, for classifier-free guidance."""
    class_dropout: float = 0.1
    """With `classes`: the share of samples whose class is left out."""
    unet_channels: int = 224
    """Width of the UNet."""
    unet_multipliers: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    """Factors of that width, one for each resolution; each halves the one before it."""
    unet_blocks: int = 2
    """ResBlocks of a resolution."""
    unet_head_channels: int = 32
    """Channels of an attention head; all resolutions but the first have attention."""
    dit_width: int = 384
    """Width of the transformer."""
    dit_depth: int = 12
    """Its blocks."""
    dit_heads: int = 6
    """Heads of its attention; they divide the width."""
    dit_patch: int = 2
    """Side of a token in the latent; it divides the latent's side."""

    def __post_init__(self) -> None:
        check_choice("network.kind", self.kind, NETWORKS)
        for name in ("unet_channels", "unet_blocks", "unet_head_channels", "dit_width", "dit_depth", "dit_heads"):
            check_int(f"network.{name}", getattr(self, name), at_least=1)
        check_int("network.dit_patch", self.dit_patch, at_least=1)
        self.unet_multipliers = list(checked_ints("network.unet_multipliers", self.unet_multipliers, at_least=1))
        check_number("network.class_dropout", self.class_dropout, at_least=0, below=1)
        if self.classes and self.kind != "dit":
            raise wrong_value("network.classes", "be false for network.kind=unet, which knows none", self.classes)
        if self.dit_width % self.dit_heads:
            raise wrong_value("network.dit_heads", f"divide network.dit_width={self.dit_width}", self.dit_heads)
        for multiplier in self.unet_multipliers:
            width = multiplier * self.unet_channels
            if self.kind == "unet" and (width % self.unet_head_channels or width % 32):
                rule = f"make widths that 32 and network.unet_head_channels={self.unet_head_channels} divide"
                raise wrong_value("network.unet_channels", rule, self.unet_channels, f"it makes {width}")

    def check_latent(self, side: int, of: str) -> None:
        """Raise a ValueError unless the network takes latents with this side; `of`: where the side comes from."""
        if self.kind == "dit":
            key, divisor = "network.dit_patch", self.dit_patch
        else:
            key, divisor = "network.unet_multipliers", 2 ** (len(self.unet_multipliers) - 1)
        if side % divisor:
            rule = f"halve or cut the latent's side of {side} ({of}) evenly, into parts of {divisor}"
            raise wrong_value(key, rule, getattr(self, key.partition(".")[2]), "take another size or fewer resolutions")


@dataclass
class NoiseConfig:
    """The `noise` section: what is added to latents, and what the network predicts of it."""

    objective: str = "epsilon"
    """`epsilon`: the noise (Ho et al. 2020); `flow`: noise minus latent along the straight line between them (rectified
    flow)."""
    beta_start: float = 0.0015
    """`epsilon`: the first of 1,000 variances, whose square roots grow linearly (LDM's "linear")."""
    beta_end: float = 0.0195
    """The last of them."""
    times: str = "uniform"
    """How times are drawn: `uniform`; or, for `flow`, `logit_normal` (Esser et al. 2024), more often in the middle."""

    def __post_init__(self) -> None:
        check_choice("noise.objective", self.objective, OBJECTIVES)
        check_choice("noise.times", self.times, TIMES)
        if self.times == "logit_normal" and self.objective != "flow":
            raise wrong_value("noise.times", "be uniform for noise.objective=epsilon", self.times)
        check_number("noise.beta_end", self.beta_end, above=0, below=1)
        check_number("noise.beta_start", self.beta_start, above=0, below=self.beta_end)


@dataclass
class SamplingConfig:
    """The `sampling` section: the samples that an evaluation draws; `litevae.sample` takes the same, or others."""

    images: int = 16
    """In the grid of an evaluation, always from the same noise."""
    sampler: str | None = None
    """For `epsilon` `ddim` (null) or `dpm`; for `flow` `euler` (null) or `dpm`. `dpm`: DPM-Solver++ of second order."""
    steps: int = 50
    """Calls of the network for a sample, or for its two halves with guidance."""
    eta: float = 0.0
    """`ddim`: 0 adds no noise on the way, 1 as much as DDPM."""
    guidance: float = 1.0
    """Of classes; 1: none."""
    measured_images: int = 0
    """So many more samples are compared with as many crops of the data, other than those of training; 0: none."""
    metrics: list[str] = field(default_factory=lambda: ["fwd"])
    """By which: `fwd`, `fid`, or both. FID needs Inception's weights in torch hub's cache."""

    def __post_init__(self) -> None:
        check_int("sampling.images", self.images, at_least=1)
        check_int("sampling.measured_images", self.measured_images, at_least=0)
        for metric in self.metrics:
            check_choice("sampling.metrics", metric, METRICS)
        if self.measured_images and not self.metrics:
            raise wrong_value("sampling.metrics", "name one, with sampling.measured_images", self.metrics)
        if self.measured_images == 1:
            raise wrong_value("sampling.measured_images", "be 0, or at least 2 to have a covariance", 1)
        check_int("sampling.steps", self.steps, at_least=1)
        if self.steps > MOST_STEPS:
            raise wrong_value("sampling.steps", f"be at most {MOST_STEPS}", self.steps)
        check_number("sampling.eta", self.eta, at_least=0, at_most=1)
        check_number("sampling.guidance", self.guidance, at_least=1)

    def sampler_for(self, objective: str) -> str:
        """`sampler`, with null resolved; a ValueError for one that the objective has not."""
        known = SAMPLERS[objective]
        sampler = known[0] if self.sampler is None else self.sampler
        if sampler not in known:
            raise wrong_value("sampling.sampler", f"be {' or '.join(known)} for noise.objective={objective}", sampler)
        if sampler == "ddim" and 1000 % self.steps:  # else diffusers' steps and their levels of noise part
            near = [steps for steps in range(1, MOST_STEPS + 1) if 1000 % steps == 0]
            best = min(near, key=lambda steps: abs(steps - self.steps))
            raise wrong_value("sampling.steps", "divide 1,000 for ddim", self.steps, f"try {best}, or sampler dpm")
        if self.eta and sampler != "ddim":
            raise wrong_value("sampling.eta", f"be 0 for sampling.sampler={sampler}", self.eta)
        return sampler


@dataclass
class DiffusionTrainConfig(LoopConfig):
    """The `train` section of a diffusion model."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Of Adam."""
    ema_decay: float = 0.9999
    """Of a moving average of the weights, which is what is evaluated, sampled and kept; 0: none."""
    compile: bool = False
    """torch.compile the network."""
    gradient_checkpointing: bool = False
    """Compute blocks a second time in the backward pass instead of keeping their activations."""


@dataclass
class DiffusionConfig:
    """Everything a diffusion run is told. The same config on the same machine gives the same run."""

    kind: ClassVar[str] = "diffusion"
    fixed_sections: ClassVar[Sequence[str]] = ("network", "noise", "run")

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: DiffusionTrainConfig = field(default_factory=DiffusionTrainConfig)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        if not self.autoencoder.path:
            rule, way_out = "name the autoencoder whose latents are modelled", "add autoencoder=runs/quickstart, say"
            raise wrong_value("autoencoder.path", rule, self.autoencoder.path, way_out)
        self.sampling.sampler_for(self.noise.objective)
        if self.sampling.guidance > 1 and not self.network.classes:
            raise wrong_value("sampling.guidance", "be 1 without network.classes", self.sampling.guidance)
        if self.autoencoder.cache is not None:
            self._check_unread()
            if self.sampling.measured_images:
                rule, way_out = (
                    "be 0 with autoencoder.cache, which has no images",
                    "measure later by litevae.sample --fid",
                )
                raise wrong_value("sampling.measured_images", rule, self.sampling.measured_images, way_out)
        elif self.data.evaluation_size != self.data.crop_size:
            rule = f"be data.crop_size={self.data.crop_size}: the network is made for one size of latents"
            raise wrong_value("data.evaluation_size", rule, self.data.evaluation_size)

    def _check_unread(self) -> None:
        """ValueError for what the data section says of images that nobody reads."""
        for name in ("path", "validation_path", "validation_split"):
            if getattr(self.data, name) is not None:
                rule = "be null with autoencoder.cache, whose last share, data.holdout, is held out"
                raise wrong_value(f"data.{name}", rule, getattr(self.data, name))

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Plain values for config.yaml."""
        return dataclasses.asdict(self)
