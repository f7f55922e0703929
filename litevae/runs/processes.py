"""Process group helpers around accelerate.

python -m litevae.train RECIPE                               one process
torchrun --nproc-per-node 8 -m litevae.train RECIPE          eight GPUs
accelerate launch -m litevae.train RECIPE                    what `accelerate config` says; several nodes too
"""

import datetime
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from litevae.runs.config import ConfigError

_LONG_WAIT = datetime.timedelta(days=1)  # for a process that evaluates, or on a slower machine; a dead one is an error


def check_shares(batch_size: int, accumulation: int, processes: int) -> None:
    """Raise a ConfigError for a batch that processes and gradient accumulation steps do not divide."""
    parts = processes * accumulation
    if batch_size % parts:
        what = f"the {processes} processes times train.accumulation={accumulation}"
        raise ConfigError(f"train.batch_size must be a multiple of {parts} ({what}), got {batch_size}")


class Processes:
    """The process group as one process sees it, which may be alone in it.

    Flags and Python objects (a stop request, positions in the data) go over gloo on the CPU, which never waits for a
    GPU.
    """

    def __init__(self, device: str) -> None:
        """`device`: "auto", "cpu" or "cuda". A ConfigError if there is no CUDA, or accelerate would shard networks."""
        from accelerate import Accelerator, DistributedType

        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("train.device=cuda needs a CUDA GPU and a CUDA build of torch; use train.device=cpu")
        use_cpu = device == "cpu" or not torch.cuda.is_available()
        self._accelerator = Accelerator(cpu=use_cpu, mixed_precision="no")  # autocast is the trainer's own
        kind = self._accelerator.distributed_type
        if kind not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
            raise ConfigError(
                f"accelerate must be configured for one process or plain data parallelism, got {kind.value}; "
                f"run `accelerate config` again without {kind.value}, or start with torchrun"
            )
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world_size: int = self._accelerator.num_processes
        self._gloo_group: Any = dist.new_group(backend="gloo", timeout=_LONG_WAIT) if self.world_size > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this process writes, prints and evaluates."""
        return self.rank == 0

    @property
    def place(self) -> str:
        """ "on the GPU", or "in 8 processes, a GPU each"."""
        device = "GPU" if self.device.type == "cuda" else "CPU"
        return f"on the {device}" if self.world_size == 1 else f"in {self.world_size} processes, a {device} each"

    def share_of(self, batch_size: int, accumulation: int) -> int:
        """How many samples of a batch are this process's; a ConfigError if they cannot be shared evenly."""
        check_shares(batch_size, accumulation, self.world_size)
        return batch_size // self.world_size

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """On each machine one process goes first: the others find what it has downloaded."""
        with self._accelerator.local_main_process_first():
            yield

    def distribute(self, network: nn.Module) -> nn.Module:
        """The network on this process's device; with several processes, in DistributedDataParallel."""
        return self._accelerator.prepare_model(network)

    @contextmanager
    def synchronising(self, networks: Sequence[nn.Module], synchronise: bool) -> Iterator[None]:
        """Average gradients over processes in the backward passes within, or leave them as they are."""
        with ExitStack() as stack:
            for network in networks:
                if isinstance(network, DistributedDataParallel) and not synchronise:
                    stack.enter_context(network.no_sync())
            yield

    def average(self, value: Tensor) -> Tensor:
        """The mean over processes, on the device."""
        if self.world_size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.world_size

    def total(self, value: Tensor) -> Tensor:
        """The sum over processes, on the CPU."""
        if self.world_size == 1:
            return value
        total = value.cpu().clone()
        dist.all_reduce(total, group=self._gloo_group)
        return total

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set in any process."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._gloo_group)
        return bool(flags)

    def gather(self, value: Any) -> list[Any]:
        """`value` of every process, in the order of their ranks, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._gloo_group)
        return values

    def wait(self) -> None:
        """Block until every process is here."""
        if self.world_size > 1:
            dist.barrier(group=self._gloo_group)

    def end(self) -> None:
        """Leave the group, so that the program ends without a warning."""
        self._accelerator.end_training()
