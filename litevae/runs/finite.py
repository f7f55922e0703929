"""Is the run still sane? Skipped steps in a row end it, and a model with a NaN is never saved.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses]
"""

import torch
from torch import nn

from litevae.runs.progress import Progress


class NonFiniteError(Exception):
    """Too many steps in a row were skipped, or a parameter is not finite; the message names what and the way on."""


def check_progress(progress: Progress, limit: int, advice: str) -> None:
    """Raise if the last `limit` steps that were read were all skipped.

    Raises:
        NonFiniteError: names the term that went bad.
    """
    if progress.skipped_in_a_row >= limit:
        raise NonFiniteError(
            f"{progress.reason}, and {progress.skipped_in_a_row} steps in a row were skipped; "
            f"the last good checkpoint is kept, {advice}"
        )


def check_parameters(network: nn.Module, step: int, advice: str) -> None:
    """Look at every parameter, with one synchronisation.

    Raises:
        NonFiniteError: names the first parameter that is not finite.
    """
    named = list(network.named_parameters())
    finite = torch.stack([torch.isfinite(value).all() for _, value in named]).tolist()
    if not all(finite):
        name = named[finite.index(False)][0]
        raise NonFiniteError(
            f"parameter {name} is not finite after step {step}; the last good checkpoint is kept, {advice}"
        )
