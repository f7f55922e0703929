"""Is the run still sane? No loss term and no parameter may be NaN or infinite when something is logged or saved.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import torch
from torch import nn

from litevae.training.progress import Progress


class NonFiniteError(Exception):
    """A loss term or a parameter became NaN or infinite; the message names it and the way on."""


def check_finite(progress: Progress, model: nn.Module, step: int, advice: str) -> None:
    """Look at the loss terms since the last log line and at every parameter. Synchronises with the device.

    Raises:
        NonFiniteError: names the term that went bad first and its step, or else the first parameter that is bad.
    """
    bad_term = progress.first_non_finite(step)
    if bad_term is not None:
        name, at = bad_term
        raise NonFiniteError(f"loss term {name} is not finite at step {at}; the last good checkpoint is kept, {advice}")
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise NonFiniteError(
                f"parameter {name} is not finite after step {step}; the last good checkpoint is kept, {advice}"
            )
