"""How do samples reach the trainer? In batches, prepared ahead by worker processes that outlive the trainer's signals.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import atexit
import functools
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from litevae.data.errors import DataError
from litevae.data.samples import Samples
from litevae.data.skipped import Skip, SkipCounts


@dataclass(frozen=True)
class Report:
    """What a worker tells the trainer's process beside a batch."""

    skips: list[Skip] = field(default_factory=list)
    position: dict[str, Any] | None = None
    error: str | None = None


class _Steps(Dataset[tuple[Tensor, Report]]):
    """Step s -> the samples of this process in it. A negative step: nothing."""

    def __init__(self, samples: Samples, batch_size: int, rank: int, world_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size
        self.share = batch_size // world_size
        self.offset = rank * self.share

    def __getitem__(self, step: int) -> tuple[Tensor, Report]:
        if step < 0:
            return torch.empty(0), Report()
        first = step * self.batch_size + self.offset
        try:
            crops = torch.stack([self.samples.crop(n) for n in range(first, first + self.share)])
            return crops, Report(self.samples.take_skips(), self.samples.position())
        except DataError as error:  # an exception would arrive wrapped in a traceback of the worker
            return torch.empty(0), Report(self.samples.take_skips(), error=str(error))


class Batches:
    """uint8 [batch_size / world_size, 3, crop_size, crop_size] for the steps first_step .. last_step - 1.

    Iterate once. `positions` are those of the readers of a stream, `next_reader` whose turn it is in `first_step`.
    """

    def __init__(
        self,
        samples: Samples,
        skip_counts: SkipCounts,
        *,
        steps: range,
        batch_size: int,
        rank: int,
        world_size: int,
        workers: int,
        pin_memory: bool,
        layout: dict[str, int] | None = None,
        positions: list[dict[str, Any]] | None = None,
        next_reader: int = 0,
    ) -> None:
        self._skip_counts, self._steps, self._layout = skip_counts, steps, layout
        self._positions = list(positions or [])
        self._next_reader = next_reader
        self._closing = RawValue("b", 0)
        # A DataLoader gives its indices to its workers in turn, the first one to worker 0. Negative ones before the
        # first step make it the turn of `next_reader`.
        turns = [-1] * next_reader if workers else []
        self._loader: DataLoader[tuple[Tensor, Report]] = DataLoader(
            _Steps(samples, batch_size, rank, world_size),
            batch_size=None,
            sampler=[*turns, *steps],
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(_start_worker, self._closing),
            generator=torch.Generator(),  # else it would draw from torch's global generator
        )

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Tensor]:
        iterator = iter(self._loader)
        atexit.register(self._close)  # before the exit handlers of torch and multiprocessing, which end workers
        try:
            for crops, report in iterator:
                for skip in report.skips:
                    self._skip_counts.add(skip)
                if report.error is not None:
                    raise DataError(report.error)
                if not len(crops):
                    continue
                if report.position is not None:
                    self._positions[self._next_reader] = report.position
                    self._next_reader = (self._next_reader + 1) % len(self._positions)
                yield crops
        finally:
            self._close()
            atexit.unregister(self._close)
            del iterator

    def state_dict(self) -> dict[str, Any]:
        """Where this process is in a stream, after the batch that was yielded last: plain values for a checkpoint.

        Empty where samples are functions of (seed, n).
        """
        if self._layout is None:
            return {}
        return {"layout": dict(self._layout), "next_reader": self._next_reader, "readers": list(self._positions)}

    def skipped(self) -> dict[str, int]:
        """Kind ("unreadable", "too small") -> how many images were skipped since the run or its resumption began."""
        return self._skip_counts.by_kind()

    def _close(self) -> None:
        self._closing.value = 1


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(closing: Any, worker: int) -> None:
    """Signals that stop a run reach every process of it; what they mean is for the trainer to decide."""

    def terminate(number: int, frame: FrameType | None) -> None:
        if closing.value:  # only now does SIGTERM come from the trainer's process itself
            os._exit(0)

    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    if "fsspec" in sys.modules:
        import fsspec.asyn

        fsspec.asyn.reset_lock()  # its event loop does not live on in a forked process
