"""Losses between two log lines, speed, progress bar; and whether the run is still finite."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

StepTerms = dict[str, float]
NORM, SKIPPED, RATIO = "_gradient_norm", "_skipped", "_gradient_ratio"


class NonFiniteError(Exception):
    """Too many steps in a row were skipped, or a parameter is not finite; the message names what and the way out."""


class BrokenRunError(Exception):
    """A run that had begun cannot go on, but can be resumed; the message says why."""


class Progress:
    """Keeps the terms of every step on the device until a line is logged: then one transfer brings them all.

    Terms are the losses by name, "total" among them, and of each learner NAME its NAME_gradient_norm and NAME_skipped.
    A step may have a NAME_gradient_ratio too.
    """

    def __init__(
        self, batch_size: int, learners: Mapping[str, str], average: Callable[[Tensor], Tensor] = lambda values: values
    ) -> None:
        """`learners`: each name, and what warnings call it. `average` takes the mean of a tensor over processes."""
        self._learners, self._average = learners, average
        self._pending: list[tuple[list[str], Tensor]] = []  # names and values of a step, on the device
        self._window: list[StepTerms] = []  # the steps since the last full window that have been read
        self.skipped = 0
        """Steps of the run that were skipped because a gradient was not finite."""
        self.skipped_in_a_row = 0
        self.reason = ""
        """Why the last skipped step was skipped."""
        self._batch_size = batch_size
        self._steps_timed = 0
        self._clock = time.perf_counter()
        self._score = ""
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

    def check(self, limit: int, advice: str) -> None:
        """Raise a NonFiniteError if the last `limit` steps that were read were all skipped."""
        if self.skipped_in_a_row >= limit:
            raise NonFiniteError(
                f"{self.reason}, and {self.skipped_in_a_row} steps in a row were skipped; "
                f"the last good checkpoint is kept, {advice}"
            )

    def _note_skip(self, step: int, terms: StepTerms) -> list[str]:
        skipped = [called for name, called in self._learners.items() if terms.get(f"{name}{SKIPPED}", 0.0) > 0]
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
        ratios = {name.removesuffix(RATIO): value for name, value in means.items() if name.endswith(RATIO)}
        seconds = time.perf_counter() - self._clock
        speed = self._steps_timed * self._batch_size / max(seconds, 1e-9)
        if last_of_window:
            self._window = []
        self.restart_clock()
        if self._bar is not None:
            shown = [f"{name} {value:.3g}" for name, value in losses.items() if name != "total" and value is not None]
            total = losses["total"]
            text = (
                f"  loss {math.nan if total is None else total:.3g}  {'  '.join(shown)}  {speed:.1f} img/s{self._score}"
            )
            self._bar.set_postfix_str(text, refresh=False)
        return {
            "step": step,
            "kind": "train",
            "loss": losses,
            "gradient_norm": {name: means[name + NORM] for name in self._learners if name + NORM in means},
            **({"gradient_ratio": ratios} if ratios else {}),
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
        """For a checkpoint, after `read`: a run resumed between two log lines logs what an unbroken one does."""
        return {"window": self._window, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's `state`."""
        self._window = list(state["window"])
        self.skipped, self.skipped_in_a_row = state["skipped"], state["skipped_in_a_row"]

    def restart_clock(self) -> None:
        """Leave what happened since the last step (evaluation, saving) out of the speed."""
        self._clock = time.perf_counter()
        self._steps_timed = 0

    def show_score(self, text: str) -> None:
        """Show the last evaluation in the bar."""
        self._score = f"  held-out {text}"


def loss_names(terms: dict[str, Any]) -> list[str]:
    """The names that are loss terms, in their order."""
    return [name for name in terms if not name.endswith((NORM, SKIPPED, RATIO))]


def check_parameters(network: nn.Module, step: int, advice: str) -> None:
    """Raise a NonFiniteError for the first parameter that is not finite; one synchronisation."""
    named = list(network.named_parameters())
    is_finite = torch.stack([torch.isfinite(value).all() for _, value in named]).tolist()
    if not all(is_finite):
        name = named[is_finite.index(False)][0]
        raise NonFiniteError(
            f"parameter {name} is not finite after step {step}; the last good checkpoint is kept, {advice}"
        )
