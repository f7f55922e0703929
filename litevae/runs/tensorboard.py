"""What TensorBoard shows of a run: the numbers of metrics.jsonl, and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


class TensorBoard:
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
                self._add(f"held-out/{name}" if kind == "evaluation" else f"{kind}/{name}", value, step)

    def _add(self, name: str, value: Any, step: int) -> None:
        if isinstance(value, (int, float)):
            self._writer.add_scalar(name, value, step)

    def add_pictures(self, pictures: Mapping[str, Tensor], step: int) -> None:
        """Pictures [3, H, W] in [-1, 1] by name."""
        for name, picture in pictures.items():
            self._writer.add_image(name, (picture + 1) / 2, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
