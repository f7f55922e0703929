"""What is said while a run goes on? Means of the losses between two log lines, the speed, the progress bar.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses] -> metrics
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm


class Progress:
    """Adds up loss terms on the device; they are read (one synchronisation) only when a line is logged.

    `state` belongs to a checkpoint: a run resumed between two log lines logs what an unbroken one does.
    """

    def __init__(self, batch_size: int) -> None:
        self._names: list[str] = []
        self._sums = torch.empty(0)  # [terms]
        self._finite_steps = torch.empty(0)  # [terms]: how many of the steps since the last line were finite
        self._count = 0
        self._steps_added = 0
        self._batch_size = batch_size
        self._steps_timed = 0
        self._clock = time.perf_counter()
        self._psnr = ""
        self._bar: tqdm[Any] | None = None

    @contextmanager
    def open_bar(self, first_step: int, steps: int) -> Iterator[None]:
        """Show the bar while the context is open; a log file instead of a terminal gets a line now and then."""
        with tqdm(
            total=steps,
            initial=first_step,
            bar_format="{percentage:3.0f}% |{bar}| step {n_fmt}/{total_fmt} [{elapsed} < {remaining}]{postfix}",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
        ) as self._bar:
            self.restart_clock()
            yield
        self._bar = None

    def add(self, terms: dict[str, Tensor]) -> None:
        """One step's terms."""
        values = torch.stack(list(terms.values()))
        if not self._names:
            self._names, self._sums, self._finite_steps = (
                list(terms),
                torch.zeros_like(values),
                torch.zeros_like(values),
            )
        self._sums = self._sums + values
        self._finite_steps += torch.isfinite(self._sums)
        self._count += 1
        self._steps_added += 1
        self._steps_timed += 1
        if self._bar is not None:
            self._bar.update()

    def line(self, step: int, learning_rate: float, *, last_of_window: bool) -> dict[str, Any]:
        """The line of metrics.jsonl: each term's mean since the last full window."""
        losses = dict(zip(self._names, (self._sums / self._count).tolist(), strict=True))
        seconds = time.perf_counter() - self._clock
        speed = self._steps_timed * self._batch_size / max(seconds, 1e-9)
        if last_of_window:
            self._names, self._count, self._steps_added = [], 0, 0
        self.restart_clock()
        shown = "  ".join(f"{name} {value:.3g}" for name, value in losses.items() if name != "total")
        if self._bar is not None:
            text = f"  loss {losses['total']:.3g}  {shown}  {speed:.1f} img/s{self._psnr}"
            self._bar.set_postfix_str(text, refresh=False)
        return {
            "step": step,
            "kind": "train",
            "loss": losses,
            "learning_rate": learning_rate,
            "images_per_second": round(speed, 2),
        }

    def first_non_finite(self, step: int) -> tuple[str, int] | None:
        """The term that became NaN or infinite first, and at which step; None while all are finite. Synchronises."""
        if not self._names:
            return None
        finite = dict(zip(self._names, self._finite_steps.tolist(), strict=True))
        finite.pop("total")
        name = min(finite, key=lambda term: finite[term])
        if finite[name] == self._steps_added:
            return None
        return name, step - self._steps_added + int(finite[name]) + 1

    @property
    def state(self) -> tuple[dict[str, Tensor], int]:
        """Sums of the terms since the last full window, and over how many steps."""
        return dict(zip(self._names, self._sums.unbind() if self._names else (), strict=True)), self._count

    def restore(self, sums: dict[str, Tensor], count: int, device: torch.device) -> None:
        """Go on from a checkpoint's `state`."""
        self._names, self._count = list(sums), count
        if sums:
            self._sums = torch.stack(list(sums.values())).to(device)
            self._finite_steps = torch.zeros_like(self._sums)

    def restart_clock(self) -> None:
        """Leave what happened since the last step (evaluation, saving) out of the speed."""
        self._clock = time.perf_counter()
        self._steps_timed = 0

    def show_psnr(self, psnr: float) -> None:
        """Carry the last held-out PSNR in the bar."""
        self._psnr = f"  held-out {psnr:.2f} dB"
