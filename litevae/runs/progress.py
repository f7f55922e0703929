"""What is said while a run goes on? Means of the losses between two log lines, the speed, the progress bar.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> [losses] -> metrics
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

Step = dict[str, float]
# What an update returns beside loss terms.
_NORMS = {"generator_gradient_norm": "generator", "discriminator_gradient_norm": "discriminator"}
_SKIPPED = {"generator_skipped": "autoencoder", "discriminator_skipped": "discriminator"}


class Progress:
    """Keeps the terms of every step on the device until a line is logged: then one transfer brings them all.

    `state` belongs to a checkpoint: a run resumed between two log lines logs what an unbroken one does.
    """

    def __init__(self, batch_size: int, average: Callable[[Tensor], Tensor] = lambda values: values) -> None:
        """`average` means a tensor over the processes."""
        self._average = average
        self._pending: list[tuple[list[str], Tensor]] = []  # names and values of a step, on the device
        self._window: list[Step] = []  # the steps since the last full window that have been read
        self.skipped = 0
        """Steps of the run that were skipped because a gradient was not finite."""
        self.skipped_in_a_row = 0
        self.reason = ""
        """Why the last skipped step was skipped."""
        self._batch_size = batch_size
        self._steps_timed = 0
        self._clock = time.perf_counter()
        self._psnr = ""
        self._bar: tqdm[Any] | None = None

    @contextmanager
    def open_bar(self, first_step: int, steps: int, shown: bool = True) -> Iterator[None]:
        """Show the bar while the context is open; a log file instead of a terminal gets a line now and then."""
        with tqdm(
            total=steps,
            initial=first_step,
            bar_format="{percentage:3.0f}% |{bar}| step {n_fmt}/{total_fmt} [{elapsed} < {remaining}]{postfix}",
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 10.0,
            disable=not shown,
        ) as self._bar:
            self.restart_clock()
            yield
            with contextlib.suppress(OSError):
                self._bar.close()
        self._bar = None

    def add(self, terms: dict[str, Tensor]) -> None:
        """One step's terms. Does not wait for the device."""
        self._pending.append((list(terms), torch.stack([value.float() for value in terms.values()])))
        self._steps_timed += 1
        if self._bar is not None:
            with contextlib.suppress(OSError):  # a closed pipe ends no run
                self._bar.update()

    def read(self, step: int) -> list[str]:
        """Bring the terms of the steps up to `step` to the host, from every process; returns what there is to warn of.

        Synchronises with the device and, with several processes, with the others.
        """
        if not self._pending:
            return []
        values = self._average(torch.cat([values for _, values in self._pending])).tolist()
        warnings = []
        first = step - len(self._pending) + 1
        for index, (names, _) in enumerate(self._pending):
            terms, values = dict(zip(names, values, strict=False)), values[len(names) :]
            warnings += self._note_skip(first + index, terms)
            self._window.append(terms)
        self._pending = []
        return warnings

    def _note_skip(self, step: int, terms: Step) -> list[str]:
        skipped = [network for name, network in _SKIPPED.items() if terms.get(name, 0.0) > 0]
        if not skipped:
            self.skipped_in_a_row = 0
            return []
        self.skipped += 1
        self.skipped_in_a_row += 1
        bad = [name for name in loss_names(terms) if name != "total" and not math.isfinite(terms[name])]
        what = f"loss term {bad[0]}" if bad else f"the gradient of the {skipped[0]}"
        self.reason = f"{what} is not finite at step {step}"
        return [f"{self.reason}: the {' and the '.join(skipped)} skipped it ({self.skipped} skipped steps so far)"]

    def line(self, step: int, learning_rate: float, *, last_of_window: bool) -> dict[str, Any]:
        """The line of metrics.jsonl, after `read`: each term's mean over finite steps since the last full window."""
        means = {name: self._mean(name) for name in dict.fromkeys(name for terms in self._window for name in terms)}
        losses = {name: means[name] for name in loss_names(means)}
        seconds = time.perf_counter() - self._clock
        speed = self._steps_timed * self._batch_size / max(seconds, 1e-9)
        if last_of_window:
            self._window = []
        self.restart_clock()
        if self._bar is not None:
            shown = [f"{name} {value:.3g}" for name, value in losses.items() if name != "total" and value is not None]
            total = losses["total"]
            text = (
                f"  loss {math.nan if total is None else total:.3g}  {'  '.join(shown)}  {speed:.1f} img/s{self._psnr}"
            )
            self._bar.set_postfix_str(text, refresh=False)
        return {
            "step": step,
            "kind": "train",
            "loss": losses,
            "gradient_norm": {network: means[name] for name, network in _NORMS.items() if name in means},
            "learning_rate": learning_rate,
            "skipped_steps": self.skipped,
            "images_per_second": round(speed, 2),
        }

    def _mean(self, name: str) -> float | None:
        """None, which JSON has, for a term that was never finite."""
        values = [terms[name] for terms in self._window if math.isfinite(terms.get(name, math.nan))]
        return fmean(values) if values else None

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint needs, after `read`."""
        return {"window": self._window, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's `state`."""
        self._window = list(state["window"])
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]

    def restart_clock(self) -> None:
        """Leave what happened since the last step (evaluation, saving) out of the speed."""
        self._clock = time.perf_counter()
        self._steps_timed = 0

    def show_psnr(self, psnr: float) -> None:
        """Carry the last held-out PSNR in the bar."""
        self._psnr = f"  held-out {psnr:.2f} dB"


def loss_names(terms: dict[str, Any]) -> list[str]:
    """The names that are loss terms, in their order."""
    return [name for name in terms if name not in _NORMS and name not in _SKIPPED]
