"""What of the networks goes into a checkpoint, and how does it come back? Also the weights that a run starts from.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from litevae.runs.checkpoint import Checkpoint, CheckpointError, load_newest_checkpoint, load_state
from litevae.training.config import ConfigError
from litevae.training.networks import Networks


def snapshot(networks: Networks) -> dict[str, Any]:
    """The fields of a `Checkpoint` that are the networks'."""
    judge = networks.discriminator
    return {
        "model": networks.model.state_dict(),
        "ema": None if networks.ema is None else networks.ema.state_dict(),
        "discriminator": None if judge is None else judge.network.state_dict(),
        "optimizers": [learner.optimizer.state_dict() for learner in networks.learners],
        "scalers": [learner.scaler.state_dict() for learner in networks.learners],
    }


def restore(networks: Networks, checkpoint: Checkpoint, where: str) -> None:
    """Take over a checkpoint whole. What the run did not have when it was written starts anew.

    Raises:
        CheckpointError: names the first weight that does not fit.
    """
    _load_weights(networks, checkpoint, where)
    states = zip(networks.learners, checkpoint["optimizers"], checkpoint["scalers"], strict=False)
    for learner, optimizer, scaler in states:
        learner.restore(optimizer, scaler)


def start_from(networks: Networks, path: Path) -> str:
    """Begin with the weights of another run (the second stage of Table 5, say), or of a saved model.

    Of a run the newest checkpoint is taken: the model, its average and the discriminator, without Adam's moments.

    Returns:
        What was taken, in words.

    Raises:
        ConfigError: neither is there. CheckpointError: it does not fit; names the first weight.
    """
    path = path.expanduser()
    check_start(path)
    if (path / "checkpoints").is_dir():
        checkpoint = load_newest_checkpoint(path / "checkpoints")
        _load_weights(networks, checkpoint, str(path))
        with_judge = networks.discriminator is not None and checkpoint["discriminator"] is not None
        return f"{path} at step {checkpoint['step']}" + (", its discriminator too" if with_judge else "")
    try:
        state = type(networks.model).from_pretrained(path).state_dict()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"train.start_from {path} cannot be loaded: {error}") from None
    load_state(networks.model, state, str(path))
    if networks.ema is not None:
        load_state(networks.ema, state, str(path))
    return str(path)


def check_start(path: Path) -> None:
    """Refuse what a run cannot start from.

    Raises:
        ConfigError: neither a run nor a saved model is there.
    """
    if (path / "checkpoints").is_dir() or (path / "config.json").is_file():
        return
    what = "is neither a run nor a saved model (no checkpoints, no config.json)" if path.exists() else "does not exist"
    raise ConfigError(f"train.start_from must name a run or a model folder, got {path}, which {what}")


def _load_weights(networks: Networks, checkpoint: Checkpoint, where: str) -> None:
    model = checkpoint["model"]
    judge = None if networks.discriminator is None else networks.discriminator.network
    load_state(networks.model, model, where)
    parts: list[tuple[nn.Module | None, dict[str, Tensor] | None, str]] = [
        (networks.ema, checkpoint["ema"] or model, "averaged model"),
        (judge, checkpoint["discriminator"], "discriminator"),
    ]
    for network, state, what in parts:
        if network is not None and state is not None:
            load_state(network, state, where, what)
