"""What does TensorBoard show of a run? The numbers of metrics.jsonl, and held-out pictures.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [metrics]
"""

from pathlib import Path
from typing import Any

from litevae.evaluation.figures import latent_to_rgb
from litevae.evaluation.held_out import Evaluation

MAX_IMAGES = 8


class Board:
    """Writes a run's TensorBoard folder; what an earlier attempt wrote after `step` is hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1)

    def add_line(self, line: dict[str, Any]) -> None:
        """A line of metrics.jsonl: every number under its path, e.g. loss/l1."""
        step, kind = line["step"], line["kind"]
        for name, value in line.items():
            if isinstance(value, dict) and name != "images":
                for key, number in value.items():
                    self._add(f"{name}/{key}" if kind == "train" else f"held-out {name}/{key}", number, step)
            elif name != "step":
                self._add(f"{kind}/{name}" if kind == "train" else f"held-out/{name}", value, step)

    def _add(self, name: str, value: Any, step: int) -> None:
        if isinstance(value, (int, float)):
            self._writer.add_scalar(name, value, step)

    def add_images(self, evaluation: Evaluation, step: int) -> None:
        """Reconstructions and latents; the originals once."""
        for image in evaluation.images[:MAX_IMAGES]:
            if step == 0:
                self._writer.add_image(f"{image.name}/original", (image.original + 1) / 2, step)
            self._writer.add_image(f"{image.name}/reconstruction", (image.reconstruction + 1) / 2, step)
            if image.latent is not None:
                self._writer.add_image(f"{image.name}/latent", (latent_to_rgb(image.latent) + 1) / 2, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
