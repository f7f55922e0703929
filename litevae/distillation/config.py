"""The config of a distillation, section by section, checked on construction.

image -> [frozen teacher's encoder] -> latent <- [student's encoder: DWT -> feature extraction -> aggregation]
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Optional, TypeVar, get_origin, get_type_hints

import torch

from litevae.config import PRESETS, LiteVAEConfig, preset
from litevae.data.config import DataConfig
from litevae.losses.perceptual import PerceptualConfig
from litevae.runs.config import LoopConfig, RunSection
from litevae_kernels.checks import check_choice, check_int, check_number, wrong_value

TEACHER_DTYPES = {"float32": None, "bf16": torch.bfloat16}
STARTS = ("least_squares", "residual", "pytorch")
LEVELS, DOWNSAMPLING = (1, 2, 3), 8
# The arguments of LiteVAE that are about its encoder. The latent channels are the teacher's.
STUDENT_KEYS = (
    "latent_channels",
    "wavelet_levels",
    "extraction",
    "shared_extraction",
    "extraction_channels",
    "extraction_multipliers",
    "nafnet_width",
    "nafnet_blocks",
    "aggregation",
    "aggregation_channels",
    "aggregation_multipliers",
    "vit_width",
    "vit_depth",
    "vit_heads",
    "encoder_normalization",
    "dropout",
)
T = TypeVar("T")


@dataclass
class TeacherConfig:
    """The `teacher` section: whose latents are learned. `teacher=FOLDER` is short for `teacher.path=FOLDER`."""

    path: str | None = None
    """A run's folder, a folder with an AutoencoderKL, or a name on the Hugging Face Hub. It is not trained. Of a local
    folder with a whole pipeline its `vae`."""
    subfolder: str | None = None
    """Where the autoencoder is in `path`, such as vae in a pipeline on the Hub."""
    dtype: str = "float32"
    """`float32`; or `bf16`, autocast around the teacher's encoder in training. Evaluations
    are in float32."""

    def __post_init__(self) -> None:
        check_choice("teacher.dtype", self.dtype, TEACHER_DTYPES)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        return TEACHER_DTYPES[self.dtype]


def _with_encoder_arguments(section: type[T]) -> type[T]:
    """Add `STUDENT_KEYS` as keys that default to None, with types that yaml has."""
    hints = get_type_hints(LiteVAEConfig)
    for name in STUDENT_KEYS:
        kind: Any = {tuple: list[int], Literal: str}.get(get_origin(hints[name]), hints[name])
        section.__annotations__[name] = Optional[kind]  # noqa: UP045  (a value, not an annotation)
        setattr(section, name, None)
    return section


@dataclass
@_with_encoder_arguments
class StudentConfig:
    """The `model` section: a size of the paper's encoder, and what differs from it.

    The decoder is the teacher's. `latent_channels` may be left out, and must be the teacher's where it is not.
    """

    size: str = "B"
    """S, B, M or L: the encoder of the paper's Tables 23 and 24."""

    def __post_init__(self) -> None:
        if self.size.upper() not in PRESETS:
            check_choice("model.size", self.size, PRESETS)
        levels = self.overrides.get("wavelet_levels", LEVELS)
        if not levels or levels[-1] != LEVELS[-1]:
            rule = "end in 3 (a latent of an eighth of the image's sides, as the teachers have)"
            raise wrong_value("model.wavelet_levels", rule, levels)
        try:
            preset(self.size, **self.overrides)
        except (TypeError, ValueError) as error:
            raise ValueError(f"model.{error}") from None

    @property
    def overrides(self) -> dict[str, Any]:
        """The arguments of `LiteVAEConfig` that are set."""
        values = {name: getattr(self, name) for name in STUDENT_KEYS}
        return {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if value is not None
        }


@dataclass
class DistillationLossConfig:
    """The `loss` section: the weight of every term; 0 leaves its term out."""

    mean_weight: float = 1.0
    """Squared error of the posterior's mean, in units of the standard deviation of the teacher's means in that
    channel: 1 is what a constant reaches."""
    logvar_weight: float = 0.1
    """Squared error of the posterior's log-variance."""
    kl_weight: float = 0.0
    """KL divergence of the student's posterior from the teacher's, KL(teacher || student), mean over the latent's
    elements. With it the student's variance takes in its own error."""
    reconstruction_weight: float = 1.0
    """Mean absolute difference between the image and what the teacher's decoder makes of the student's mean. Without
    this term and the next one the decoder is not computed."""
    perceptual_weight: float = 0.0
    """The same by the network of section `perceptual`; it needs pretrained weights: a download, or the file
    `perceptual.path`."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            check_number(f"loss.{name}_weight", weight, at_least=0)
        if not (self.mean_weight or self.kl_weight or self.decodes):
            rule = "be above 0, or another weight that the latent's mean depends on"
            raise wrong_value("loss.mean_weight", rule, self.mean_weight)

    @property
    def weights(self) -> dict[str, float]:
        """Term name -> weight."""
        names = ("mean", "logvar", "kl", "reconstruction", "perceptual")
        return {name: getattr(self, f"{name}_weight") for name in names}

    @property
    def decodes(self) -> bool:
        """Whether a term needs the decoder."""
        return self.reconstruction_weight > 0 or self.perceptual_weight > 0


@dataclass
class DistillationTrainConfig(LoopConfig):
    """The `train` section of a distillation."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    """Of Adam."""
    schedule: str = "cosine"
    """After the warm-up `cosine` down to 0 at `train.steps`, or `constant`."""
    gradient_checkpointing: bool = False
    """Compute blocks a second time in the backward pass, the decoder's too, instead of keeping their activations."""
    initialization: str = "least_squares"
    """`residual`: a nearly linear encoder; `least_squares`: the same, and its last layer is fitted to the teacher's
    moments of the first crops; `pytorch`: each layer's own default."""
    decoder_start: int | None = None
    """From this step on the decoder learns too, from the terms that compare images; null: it stays the teacher's."""
    decoder_learning_rate: float | None = None
    """Of the decoder's Adam; null: a tenth of `train.learning_rate`. It follows the same schedule."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("train.initialization", self.initialization, STARTS)
        if self.decoder_start is not None:
            check_int("train.decoder_start", self.decoder_start, at_least=0)
        if self.decoder_learning_rate is not None:
            check_number("train.decoder_learning_rate", self.decoder_learning_rate, above=0)
            if self.decoder_start is None:
                rule = "be null unless train.decoder_start says when the decoder begins to learn"
                raise wrong_value("train.decoder_learning_rate", rule, self.decoder_learning_rate)

    @property
    def decoder_rate(self) -> float:
        """`decoder_learning_rate`, with null resolved."""
        return self.learning_rate / 10 if self.decoder_learning_rate is None else self.decoder_learning_rate


@dataclass
class DistillationConfig:
    """Everything a distillation is told. The same config on the same machine gives the same run."""

    kind: ClassVar[str] = "distillation"
    fixed_sections: ClassVar[Sequence[str]] = ("model", "run")

    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    model: StudentConfig = field(default_factory=StudentConfig)
    loss: DistillationLossConfig = field(default_factory=DistillationLossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: DistillationTrainConfig = field(default_factory=DistillationTrainConfig)
    run: RunSection = field(default_factory=RunSection)

    def __post_init__(self) -> None:
        if not self.teacher.path:
            way_out = "add teacher=stabilityai/sd-vae-ft-mse, say"
            raise wrong_value("teacher.path", "name the autoencoder whose latents are learned", None, way_out)
        if self.data.crop_size % DOWNSAMPLING:
            near = max(1, round(self.data.crop_size / DOWNSAMPLING)) * DOWNSAMPLING
            raise wrong_value("data.crop_size", f"be a multiple of {DOWNSAMPLING}", self.data.crop_size, f"try {near}")
        if self.train.decoder_start is not None and not self.loss.decodes:
            rule = "be null with loss.reconstruction_weight=0 and loss.perceptual_weight=0, from which a decoder learns"
            raise wrong_value("train.decoder_start", rule, self.train.decoder_start)
        if self.train.decoder_start is not None and self.train.mixed_precision == "fp16":
            rule = "be bf16 or float32 with train.decoder_start: one loss cannot have the scales of two optimizers"
            raise wrong_value("train.mixed_precision", rule, "fp16")

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Plain values for config.yaml, without the arguments that the model section leaves to its size."""
        sections = dataclasses.asdict(self)
        sections["model"] = {name: value for name, value in sections["model"].items() if value is not None}
        return sections
