"""What is added to a latent, what the network predicts of it, and the diffusers scheduler that takes it away again.

latent -> [noise -> network's target]
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from litevae.diffusion.config import NoiseConfig, SamplingConfig
from litevae.seeds import derive_rng

STEPS = 1000  # of training, of DDPM and LDM; the network's time goes from 0 to about 1,000 for flows too
LEVELS = 8  # of a validation


class Noising(ABC):
    """A way between latents and Gaussian noise."""

    levels: ClassVar[tuple[float, ...]] = tuple((level + 0.5) / LEVELS for level in range(LEVELS))
    """Where validation measures, as shares of the way from latent to noise."""

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config

    @abstractmethod
    def time(self, share: float) -> float:
        """The network's time at a share of the way, from 0 (latent) to 1 (noise)."""

    @abstractmethod
    def add(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """(noisy latents, what the network shall predict of them), [B, C, h, w] each.

        Args:
            latents, noise: [B, C, h, w]; the latents have mean 0 and standard deviation 1, as the noise.
            times: float32 [B], as `time` gives them.
        """

    @abstractmethod
    def scheduler(self, sampling: SamplingConfig) -> Any:
        """The diffusers scheduler that turns noise into latents."""

    def draw_times(self, seed: int, numbers: Sequence[int]) -> Tensor:
        """The time of each sample, float32 [B]: a function of (seed, its number)."""
        return torch.tensor([self._draw(derive_rng(seed, "time", number)) for number in numbers], dtype=torch.float32)

    def _draw(self, rng: np.random.Generator) -> float:
        return self.time(rng.random())


class Epsilon(Noising):
    """sqrt(a_t) latent + sqrt(1 - a_t) noise, of which the network predicts the noise (Ho et al. 2020, Eq. 14).

    a_t is the product of 1 - beta up to t = 0 ... 999; the square roots of beta grow linearly, as in LDM.
    """

    def __init__(self, config: NoiseConfig) -> None:
        super().__init__(config)
        self._alphas = self._ddim().alphas_cumprod  # [1000], float32

    def time(self, share: float) -> float:
        return float(min(int(share * STEPS), STEPS - 1))

    def add(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self._alphas.to(latents.device)[times.long()].view(-1, 1, 1, 1)
        return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise, noise

    def scheduler(self, sampling: SamplingConfig) -> Any:
        if sampling.sampler_for("epsilon") == "ddim":
            return self._ddim()
        from diffusers import DPMSolverMultistepScheduler

        return DPMSolverMultistepScheduler(**self._betas())

    def _ddim(self) -> Any:
        from diffusers import DDIMScheduler

        return DDIMScheduler(**self._betas(), clip_sample=False, set_alpha_to_one=False)

    def _betas(self) -> dict[str, Any]:
        ends = {"beta_start": self.config.beta_start, "beta_end": self.config.beta_end}
        # Trailing: from the last time on, whatever the number of steps.
        spacing = {"timestep_spacing": "trailing"}
        return {"num_train_timesteps": STEPS, "beta_schedule": "scaled_linear", **spacing, **ends}


class Flow(Noising):
    """(1 - s) latent + s noise, of which the network predicts noise - latent (rectified flow, Liu et al. 2023).

    s is the share of the way; the network's time is 1,000 s. With `logit_normal` times s is the sigmoid of a standard
    Gaussian.
    """

    def time(self, share: float) -> float:
        return STEPS * share

    def add(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        shares = (times / STEPS).to(latents).view(-1, 1, 1, 1)
        return (1 - shares) * latents + shares * noise, noise - latents

    def scheduler(self, sampling: SamplingConfig) -> Any:
        from diffusers import DPMSolverMultistepScheduler  # of first order it is Euler's method

        order = 1 if sampling.sampler_for("flow") == "euler" else 2
        options: dict[str, Any] = {"use_flow_sigmas": True, "flow_shift": 1.0, "prediction_type": "flow_prediction"}
        return DPMSolverMultistepScheduler(num_train_timesteps=STEPS, solver_order=order, **options)

    def _draw(self, rng: np.random.Generator) -> float:
        if self.config.times == "uniform":
            return super()._draw(rng)
        return self.time(float(1 / (1 + np.exp(-rng.standard_normal()))))


def noising(config: NoiseConfig) -> Noising:
    """The one that `noise.objective` names."""
    return {"epsilon": Epsilon, "flow": Flow}[config.objective](config)
