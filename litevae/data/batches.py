"""Batches of samples, prepared ahead by worker processes that ignore the signals that stop the trainer.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import atexit
import functools
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.sharedctypes import RawValue
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from litevae.data.errors import DataError, Skip, SkipCounts
from litevae.data.streaming import StreamStart
from litevae.data.training_samples import Samples


@dataclass(frozen=True)
class WorkerReport:
    """What a worker sends to the trainer's process beside a batch."""

    skips: list[Skip] = field(default_factory=list)
    position: dict[str, Any] | None = None
    error: str | None = None


class _StepDataset(Dataset[tuple[Tensor, WorkerReport]]):
    """Step s -> this process's samples of the step. A negative step has none."""

    def __init__(self, samples: Samples, batch_size: int, rank: int, world_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size
        self.share = batch_size // world_size
        self.offset = rank * self.share

    def __getitem__(self, step: int) -> tuple[Tensor, WorkerReport]:
        if step < 0:
            return torch.empty(0), WorkerReport()
        first = step * self.batch_size + self.offset
        try:
            crops = self.samples.batch(range(first, first + self.share))
            return crops, WorkerReport(self.samples.take_skips(), self.samples.position())
        except DataError as error:  # an exception would arrive wrapped in a traceback of the worker
            return torch.empty(0), WorkerReport(self.samples.take_skips(), error=str(error))


class Batches:
    """uint8 [batch_size / world_size, 3, crop_size, crop_size] for every step of `steps`. Iterate once.

    `start` is where the readers of a stream start; None where images can be read in any order.
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
        start: StreamStart | None = None,
    ) -> None:
        self._skip_counts, self._steps = skip_counts, steps
        self._layout = None if start is None else asdict(start.readers)
        self._positions = [] if start is None else list(start.positions)
        self._next_reader = 0 if start is None else start.next_reader
        self._closing = RawValue("b", 0)
        # A DataLoader assigns indices to its workers round robin, from worker 0 on. With so many negative steps before
        # the first one, that one goes to worker `next_reader`.
        padding = [-1] * self._next_reader if workers else []
        self._loader: DataLoader[tuple[Tensor, WorkerReport]] = DataLoader(
            _StepDataset(samples, batch_size, rank, world_size),
            batch_size=None,
            sampler=[*padding, *steps],
            num_workers=workers,
            collate_fn=unchanged,
            pin_memory=pin_memory,
            worker_init_fn=functools.partial(start_worker, self._closing),
            generator=torch.Generator(),  # the default one would draw from torch's global generator
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
        """This process's position in a stream after the batch that was yielded last: plain values for a checkpoint.

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


def unchanged(item: Any) -> Any:
    """A collate_fn that leaves a batch as it is; unlike a lambda it can be sent to a worker."""
    return item


def start_worker(closing: Any, worker: int) -> None:
    """Ignore the signals that stop a run: they reach every process of it, and its main process alone acts on them.

    `closing`: a shared number, which the main process sets to 1 before it ends its workers.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        if closing.value:  # then SIGTERM comes from the trainer's own process
            os._exit(0)

    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    if "fsspec" in sys.modules:
        import fsspec.asyn

        fsspec.asyn.reset_lock()  # its event loop does not survive a fork
