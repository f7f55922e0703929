"""What of the networks goes into a checkpoint, and the weights that a run starts from.

model, ema, discriminator    state dicts; None for what the run has not
optimizers, scalers          of the autoencoder and, if there is one, of the discriminator
frozen                       `train.freeze`; not in checkpoints of versions without it
scale                        `Networks.scale`, likewise
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from litevae.runs.checkpoint import Checkpoint, CheckpointError, load_newest_checkpoint, load_state
from litevae.runs.config import ConfigError
from litevae.runs.run_folder import RunFolder
from litevae.training.latent_scale import scale_of
from litevae.training.networks import Autoencoder, Networks

KEYS = ("model", "ema", "discriminator", "optimizers", "scalers")


def snapshot(networks: Networks) -> dict[str, Any]:
    """What a checkpoint holds of the networks and their optimizers."""
    discriminator = networks.discriminator
    return {
        "model": networks.model.state_dict(),
        "ema": None if networks.ema is None else networks.ema.state_dict(),
        "discriminator": None if discriminator is None else discriminator.network.state_dict(),
        "optimizers": [learner.optimizer.state_dict() for learner in networks.learners],
        "scalers": [learner.scaler.state_dict() for learner in networks.learners],
        "frozen": networks.frozen,
        "scale": networks.scale,
    }


def restore(networks: Networks, checkpoint: Checkpoint, where: str) -> None:
    """Load what `snapshot` returned. What the run did not have then starts anew."""
    before = checkpoint.get("frozen")
    if networks.frozen != before:
        raise ConfigError(
            f"train.freeze must be {before or 'null'} as when {where} was written, got {networks.frozen or 'null'}; "
            "start a new run with train.start_from"
        )
    _load_weights(networks, checkpoint, where)
    networks.scale = checkpoint.get("scale")
    states = zip(networks.learners, checkpoint["optimizers"], checkpoint["scalers"], strict=False)
    for learner, optimizer, scaler in states:
        learner.restore(optimizer, scaler)


def start_from(networks: Networks, path: Path) -> str:
    """Load the weights of another run (the second stage of Table 5), or of a saved model; returns which, in words.

    Of a run the newest checkpoint is loaded: the model, its average and the discriminator, without Adam's moments. A
    frozen encoder brings the scale of its latents, where it was measured. A CheckpointError names the first weight that
    does not fit.
    """
    path = path.expanduser()
    check_start(path)
    if (path / "checkpoints").is_dir():
        checkpoint = load_newest_checkpoint(path / "checkpoints", KEYS)
        if networks.frozen and checkpoint["ema"] is not None:
            checkpoint["model"] = checkpoint["ema"]  # what stays is the model that the run leaves
        _load_weights(networks, checkpoint, str(path))
        folder = RunFolder(path)
        if networks.frozen == "encoder" and folder.has_results_of(checkpoint["step"]):
            networks.scale = scale_of(_saved_model(networks, folder.model))
        with_discriminator = networks.discriminator is not None and checkpoint["discriminator"] is not None
        return f"{path} at step {checkpoint['step']}" + (", its discriminator too" if with_discriminator else "")
    model = _saved_model(networks, path)
    for network in filter(None, (networks.model, networks.ema)):
        load_state(network, model.state_dict(), str(path))
    if networks.frozen == "encoder":
        networks.scale = scale_of(model)
    return str(path)


def check_start(path: Path) -> None:
    """Raise a ConfigError unless a run or a saved model is there."""
    if (path / "checkpoints").is_dir() or (path / "config.json").is_file():
        return
    what = "is neither a run nor a saved model (no checkpoints, no config.json)" if path.exists() else "does not exist"
    raise ConfigError(f"train.start_from must name a run or a model folder, got {path}, which {what}")


def _saved_model(networks: Networks, path: Path) -> Autoencoder:
    try:
        return type(networks.model).from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"train.start_from {path} cannot be loaded: {error}") from None


def _load_weights(networks: Networks, checkpoint: Checkpoint, where: str) -> None:
    model = checkpoint["model"]
    discriminator = None if networks.discriminator is None else networks.discriminator.network
    load_state(networks.model, model, where)
    parts: list[tuple[nn.Module | None, dict[str, Tensor] | None, str]] = [
        (networks.ema, checkpoint["ema"] or model, "averaged model"),
        (discriminator, checkpoint["discriminator"], "discriminator"),
    ]
    for network, state, what in parts:
        if network is not None and state is not None:
            load_state(network, state, where, what)
