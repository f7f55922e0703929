"""The autoencoder's config, section by section, checked on construction.

litevae/configs/README.md shows every key; litevae/runs/recipes.py reads yaml and overrides into it.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Optional, TypeVar, get_origin, get_type_hints

from litevae.config import PRESETS, LiteVAEConfig, preset
from litevae.data.config import DataConfig
from litevae.evaluation.wavelet_distance import check_size as check_packets
from litevae.losses.perceptual import PerceptualConfig
from litevae.losses.total import RECONSTRUCTION_TERMS, LossConfig
from litevae.models.discriminators.config import DiscriminatorConfig
from litevae.models.initialize import INITIALIZATIONS
from litevae.models.wavelet_start import check_wavelet_start
from litevae.runs.config import LoopConfig, RunSection
from litevae_kernels.checks import check_choice, check_int, wrong_value

MODEL_KINDS = ("litevae", "sd-vae")
FROZEN_PARTS = ("encoder", "decoder")
SET_METRICS = ("fwd", "rfid", "kid", "fid-dinov2")
# The arguments of LiteVAE that Stable Diffusion's autoencoder has too.
SD_VAE_KEYS = ("latent_channels", "block_out_channels", "layers_per_block", "use_quant_conv", "scaling_factor")
MEASURED_KEYS = ("latent_channel_means", "latent_channel_stds")  # what training writes (latent_scale.py)
T = TypeVar("T")


def _with_litevae_arguments(section: type[T]) -> type[T]:
    """Add every argument of LiteVAE but `MEASURED_KEYS` as a key that defaults to None, with types that yaml has."""
    for name, hint in get_type_hints(LiteVAEConfig).items():
        if name in MEASURED_KEYS:
            continue
        kind: Any = {tuple: list[int], Literal: str}.get(get_origin(hint), hint)
        section.__annotations__[name] = Optional[kind]  # noqa: UP045  (a value, not an annotation)
        setattr(section, name, None)
    return section


@dataclass
@_with_litevae_arguments
class ModelConfig:
    """The `model` section: a size of the paper, and what differs from it.

    Every argument of `LiteVAEConfig` is a key too, but for those that training measures; null leaves the size's own.
    """

    kind: str = "litevae"
    """`litevae`; or `sd-vae`, the baseline: diffusers' AutoencoderKL under the same recipe."""
    size: str = "B"
    """S, B, M or L: the encoder of the paper's Tables 23 and 24."""
    encoder_channels: list[int] | None = None
    """`sd-vae` alone: four widths of its encoder, where they are not the decoder's (Table 2b)."""

    def __post_init__(self) -> None:
        check_choice("model.kind", self.kind, MODEL_KINDS)
        if self.size.upper() not in PRESETS:
            check_choice("model.size", self.size, PRESETS)
        if self.kind == "litevae" and self.encoder_channels is not None:
            raise ValueError("model.encoder_channels must be null unless model.kind=sd-vae")
        if self.kind == "sd-vae":
            for name in self.overrides:
                if name not in SD_VAE_KEYS:
                    raise ValueError(
                        f"model.{name} must be left out with model.kind=sd-vae, which has no such argument; "
                        f"model=sd-vae leaves out what a recipe sets, model.{name}=null this key"
                    )
        try:
            architecture = self.architecture
        except (TypeError, ValueError) as error:
            raise ValueError(f"model.{error}") from None
        if (architecture.in_channels, architecture.out_channels) != (3, 3):
            raise ValueError("model.in_channels and model.out_channels must be 3 for training, which reads RGB images")

    @property
    def overrides(self) -> dict[str, object]:
        """The arguments of `LiteVAEConfig` that are set."""
        own = ("kind", "size", "encoder_channels")
        values = {name: value for name, value in vars(self).items() if name not in own and value is not None}
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    @property
    def architecture(self) -> LiteVAEConfig:
        """The complete, checked arguments of `LiteVAE`."""
        return preset(self.size, **self.overrides)


@dataclass
class TrainConfig(LoopConfig):
    """The `train` section. The defaults are the paper's (appendix F) where it gives them."""

    gradient_checkpointing: bool = False
    """Compute the ResBlocks a second time in the backward pass instead of keeping their activations."""
    compile: bool = False
    """torch.compile encoder, decoder, discriminator and perceptual network."""
    initialization: str = "residual"
    """`residual`: a nearly linear autoencoder with little posterior noise; `wavelet`: the same, and what it computes is
    known: its latent begins with the low-pass colours of the last wavelet level, of which the decoder makes a smooth
    image, so that training starts near bicubic interpolation's PSNR; `pytorch`: each layer's own default
    (litevae/models/initialize.py)."""
    freeze: str | None = None
    """`encoder` or `decoder`, each with its 1x1 convolution: stays as `train.start_from` has it, bit for bit, without
    gradients, Adam's moments or dropout. A decoder that is tuned alone keeps the latents of the model it starts from
    (the averaged one, where there is one) and, where that model has one, their scale."""
    gradient_ratio_every: int = 0
    """Steps between two measurements of Figure 7's ratio, each one more backward pass through the discriminator; 0:
    none. metrics.jsonl has it as gradient_ratio: the norm of the adversarial term's gradient at the decoder's last
    weight over that of L1 and perceptual term, before loss.adversarial_weight and Eq. (2). With
    loss.adversarial_weighting=adaptive it is there at every step, and free."""
    evaluate_lpips: bool | None = None
    """Measure LPIPS of the held-out images; null: if the loss has it."""
    evaluate_sets: list[str] = field(default_factory=list)
    """Distances between the held-out images and their reconstructions as sets, which every evaluation measures too:
    `fwd`, `rfid`, `kid`, `fid-dinov2` (litevae/evaluation/catalogue.py). They need `data.evaluation_size`, and mean
    little below some thousand `data.evaluation_images`. `fwd` takes 1.5 GB on the device at 256 pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("train.initialization", self.initialization, INITIALIZATIONS)
        check_int("train.gradient_ratio_every", self.gradient_ratio_every, at_least=0)
        for name in self.evaluate_sets:
            check_choice("train.evaluate_sets", name, SET_METRICS)
        if self.freeze is not None:
            check_choice("train.freeze", self.freeze, FROZEN_PARTS)
            if self.start_from is None:
                rule = "be null unless train.start_from names the run or model whose weights stay"
                raise wrong_value("train.freeze", rule, self.freeze)


@dataclass
class RunConfig:
    """Everything a run is told. The same config on the same machine gives the same run."""

    kind: ClassVar[str] = "autoencoder"
    fixed_sections: ClassVar[Sequence[str]] = ("model", "run")

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        if self.loss.ldl_weight and not self.train.ema_decay:
            raise ValueError("loss.ldl_weight needs the averaged model: set train.ema_decay, e.g. 0.999")
        if self.train.evaluate_sets and self.data.evaluation_size is None:
            rule, way_out = "be a number for train.evaluate_sets", "256, for example; or leave train.evaluate_sets out"
            raise wrong_value("data.evaluation_size", rule, None, way_out)
        if "fwd" in self.train.evaluate_sets and self.data.evaluation_size is not None:
            check_packets(self.data.evaluation_size, self.data.evaluation_size)
        self._check_model()
        self._check_last_gradients()
        if self.train.initialization == "wavelet" and self.train.start_from is None:
            if self.model.kind == "sd-vae":
                rule = "be residual or pytorch with model.kind=sd-vae, which has no wavelets"
                raise wrong_value("train.initialization", rule, "wavelet", "add train.initialization=residual")
            try:
                check_wavelet_start(self.model.architecture)
            except ValueError as error:
                way_out = "that is train.initialization=residual"
                raise ValueError(f"train.initialization=wavelet: model.{error}, {way_out}") from None

    def _check_model(self) -> None:
        """What the model asks of the other sections."""
        architecture, crop_size = self.model.architecture, self.data.crop_size
        factor, encoder = architecture.downsampling, architecture.encoder_type
        if crop_size % factor:
            levels = list(architecture.wavelet_levels)
            rule = f"be a multiple of {factor} for a model with wavelet_levels={levels}"
            rule = "be a multiple of 8 for model.kind=sd-vae" if self.model.kind == "sd-vae" else rule
            near = max(1, round(crop_size / factor)) * factor
            raise wrong_value("data.crop_size", rule, crop_size, f"try {near}")
        if architecture.is_deterministic and self.loss.kl_weight:
            rule = f"be 0 with model.encoder_type={encoder}, whose posterior has no noise"
            way_out = f"leave it out, and set the encoder by model={encoder}, which sets both"
            raise wrong_value("loss.kl_weight", rule, self.loss.kl_weight, way_out)
        if architecture.is_deterministic and self.train.freeze is not None:
            rule = f"be null with model.encoder_type={encoder}: the decoder alone has weights"
            raise wrong_value("train.freeze", rule, self.train.freeze, "the latents stay as they are without it")

    def _check_last_gradients(self) -> None:
        """ValueError where gradients of the decoder's last layer are asked for that this run does not have."""
        ratio_every = self.train.gradient_ratio_every
        is_adaptive = self.loss.adversarial_weighting == "adaptive"
        if not is_adaptive and not ratio_every:
            return
        what = "loss.adversarial_weighting" if is_adaptive else "train.gradient_ratio_every"
        rule, got = ("be constant", "adaptive") if is_adaptive else ("be 0", ratio_every)
        if self.train.freeze == "decoder":
            raise ValueError(
                f"{what} must {rule} with train.freeze=decoder, got {got}, which compares gradients of the decoder's "
                "last layer"
            )
        if self.train.compile:
            raise ValueError(
                f"train.compile must be false with {what}={got}, which takes gradients of one graph twice, as "
                "compiled code cannot"
            )
        if ratio_every and not self.has_discriminator:
            raise wrong_value("train.gradient_ratio_every", "be 0 with loss.adversarial_weight=0", ratio_every)
        if ratio_every and not any(self.loss.weights[name] for name in RECONSTRUCTION_TERMS):
            rule = "be 0 with loss.l1_weight=0 and loss.perceptual_weight=0"
            raise wrong_value("train.gradient_ratio_every", rule, ratio_every)

    @property
    def has_discriminator(self) -> bool:
        return self.loss.adversarial_weight > 0

    @property
    def evaluates_lpips(self) -> bool:
        """`train.evaluate_lpips`, with None resolved."""
        has_lpips = self.loss.perceptual_weight > 0 and self.perceptual.kind == "lpips"
        return has_lpips if self.train.evaluate_lpips is None else self.train.evaluate_lpips

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Plain values for config.yaml, without the arguments that the model section leaves to its size."""
        sections = dataclasses.asdict(self)
        sections["model"] = {name: value for name, value in sections["model"].items() if value is not None}
        return sections
