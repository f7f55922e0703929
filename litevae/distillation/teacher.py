"""Whose latents are learned: the frozen autoencoder, checked before any work is done.

image -> [frozen teacher's encoder] -> latent -> [frozen teacher's decoder]
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError
from torch import Tensor, nn

from litevae.cost import parameter_count
from litevae.distillation.config import DistillationConfig, StudentConfig, TeacherConfig
from litevae.evaluation.autoencoders import config_of
from litevae.models.latent import DiagonalGaussian
from litevae.models.teacher import check_teacher
from litevae.runs.config import ConfigError
from litevae.state_hash import state_hash
from litevae_kernels.checks import wrong_value

Load = Callable[[str, str | None], nn.Module]


class Teacher:
    """An autoencoder that stays as it is, in eval mode.

    Args:
        model: what `litevae.models.teacher.check_teacher` takes; it stays where it is.
        name, subfolder: where it was loaded from.
        dtype: of autocast around its encoder in `moments`; None: float32.
    """

    def __init__(
        self, model: nn.Module, name: str, subfolder: str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self.model: Any = check_teacher(model).eval().requires_grad_(False)
        self.name, self.subfolder, self.dtype = name, subfolder, dtype
        self.latent_channels = int(config_of(self.model)["latent_channels"])

    @torch.no_grad()
    def moments(self, image: Tensor, exact: bool = False) -> Tensor:
        """Mean and log-variance [B, 2C, H/8, W/8], float32, of images [B, 3, H, W] in [-1, 1]; one pass, no graph.

        `exact`: without autocast, for evaluations.
        """
        enabled = self.dtype is not None and not exact
        with torch.autocast(image.device.type, dtype=self.dtype, enabled=enabled):
            posterior = self.model.encode(image).latent_dist
        return posterior.parameters.float()

    def posterior(self, image: Tensor, exact: bool = False) -> DiagonalGaussian:
        """`moments` as a Gaussian for each element."""
        return DiagonalGaussian(self.moments(image, exact))

    @property
    def place(self) -> str:
        """`name`; of a local folder its whole path, which means the same from elsewhere."""
        path = Path(self.name).expanduser()
        return str(path.resolve()) if path.exists() else self.name

    @property
    def encoder_parameters(self) -> int:
        """Of the encoder and the 1x1 convolution behind it."""
        return parameter_count(self.model.encoder, getattr(self.model, "quant_conv", None))

    @property
    def identity(self) -> str:
        """The beginning of the hash of its weights: what a checkpoint's numbers are of."""
        return state_hash(self.model)[:19]


def open_teacher(config: DistillationConfig, load: Load) -> Teacher:
    """Load and check the teacher of a run, on the CPU.

    Raises:
        ConfigError: it is not there, is gated or private, is no KL autoencoder with a latent of an eighth of the
            image's sides, or has other channels than the `model` section says.
    """
    told = config.teacher
    name, subfolder = str(told.path), _subfolder(told)
    try:
        model = load(name, subfolder)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"teacher.path: {error}{_way_out(name, subfolder, error)}") from None
    try:
        teacher = Teacher(model, name, subfolder, told.autocast_dtype)
        check_channels(config.model, teacher.latent_channels, name)
        _check_image(teacher)
        _check_precision(config, teacher)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"teacher.path={name}: {error}") from None
    return teacher


def check_channels(student: StudentConfig, channels: int, name: str) -> None:
    """ValueError where the config names other latent channels than the teacher has."""
    told = student.overrides.get("latent_channels", channels)
    if told != channels:
        rule = f"be {channels}, the latent channels of the teacher {name}"
        raise wrong_value("model.latent_channels", rule, told, "leave model.latent_channels out")


def _check_image(teacher: Teacher) -> None:
    channels = (teacher.model.config.in_channels, teacher.model.config.out_channels)
    if channels != (3, 3):
        rule = "have in_channels=3 and out_channels=3: training reads RGB images"
        raise wrong_value("teacher", rule, f"{channels[0]} and {channels[1]}")


def _check_precision(config: DistillationConfig, teacher: Teacher) -> None:
    """ValueError where the decoder's activations would leave float16's range, as its own config says."""
    is_half = config.train.mixed_precision == "fp16" and config.loss.decodes
    if is_half and teacher.model.config.get("force_upcast"):
        rule = "be bf16 or float32 for a teacher with force_upcast, whose decoder overflows in float16"
        raise wrong_value("train.mixed_precision", rule, "fp16")


def _subfolder(told: TeacherConfig) -> str | None:
    """Where the autoencoder is: of a local folder with a whole pipeline in vae, unless another place is told."""
    has_pipeline = (Path(str(told.path)).expanduser() / "model_index.json").is_file()
    return "vae" if told.subfolder is None and has_pipeline else told.subfolder


def _way_out(name: str, subfolder: str | None, error: BaseException) -> str:
    """What to do about a teacher that cannot be loaded, beside what the error says."""
    if any(isinstance(cause, GatedRepoError) for cause in _causes(error)):
        page = f"https://huggingface.co/{name}"
        return f"; {name} is gated: accept its terms on {page}, then log in with `hf auth login` or set HF_TOKEN"
    is_hub_name = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).parent.is_dir()
    return "; the autoencoder of a pipeline is in teacher.subfolder=vae" if is_hub_name and subfolder is None else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
