"""One network that learns: distributed over the processes, with Adam and the scale of its loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from litevae.runs.config import LoopConfig
from litevae.runs.processes import Processes


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay * average + (1 - decay) * network, parameter by parameter."""
    step = get_ema_multi_avg_fn(decay)
    # What is frozen equals its average, which stays as it is: interpolating between equal values is exact.
    step(list(average.parameters()), list(network.parameters()), 0)


class Learner:
    """A network with its optimizer.

    A step whose gradients hold a NaN or an infinity changes nothing, and nothing waits for the verdict: the fused Adam
    reads it on the device. After DistributedDataParallel every process has the same gradients, and so the same
    verdict.
    """

    def __init__(
        self, network: nn.Module, processes: Processes, config: LoopConfig, rate: float, betas: list[float]
    ) -> None:
        self.distributed = processes.distribute(network)
        self.network = network
        self.rate, self.betas, self.max_norm = rate, (betas[0], betas[1]), config.max_gradient_norm
        self.optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=self.betas, fused=True)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=config.mixed_precision == "fp16")

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients. A loss that is not finite makes every gradient NaN, in every process."""
        verdict = torch.where(torch.isfinite(loss.detach()), 1.0, float("nan"))
        self.scaler.scale(loss * verdict).backward()

    def step(self, schedule: float) -> tuple[Tensor, Tensor]:
        """Update the network, unless its gradients are not finite; returns their norm and 1.0 if it was skipped."""
        optimizer: Any = self.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.rate * schedule
        self.scaler.unscale_(optimizer)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        skipped = (~torch.isfinite(norm)).to(torch.float32)
        if self.max_norm is not None:
            nn.utils.clip_grads_with_norm_(self.network.parameters(), self.max_norm, norm)
        optimizer.grad_scale, optimizer.found_inf = None, skipped  # of fused Adam; GradScaler would set the same
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm, skipped

    def restore(self, optimizer: dict[str, Any], scaler: dict[str, Any]) -> None:
        """Load Adam's moments and the scale of the loss; learning rate and betas stay the config's."""
        self.optimizer.load_state_dict(optimizer)
        for group in self.optimizer.param_groups:
            group["betas"] = self.betas
        for parameter, moments in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # the fused Adam of a CPU takes for granted that layouts agree
                moments[name] = torch.empty_like(parameter).copy_(moments[name])
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)
