"""The assignment of a stream's shards to readers, and where each reader starts, also in a resumed run.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from litevae.data.config import DataConfig
from litevae.data.streaming.hub import Stream

_MOST_SHARDS = 4096  # in a folder of images on the hub each file is a shard; more of them are read as one


def shard_count(stream: Stream) -> int:
    """How many parts of the stream can be read independently."""
    return min(stream.rows.num_shards, _MOST_SHARDS)


@dataclass(frozen=True)
class Readers:
    """All that the order of a stream's examples depends on. Each process has `per_process` readers.

    A reader is a worker process, or the trainer's own process where there are no workers.
    """

    seed: int
    shards: int
    shuffle_block: int
    world_size: int
    per_process: int

    def share(self, order: list[int], process: int, reader: int) -> tuple[list[int], tuple[int, int]]:
        """The shards of one reader, and (remainder, divisor): it keeps examples n with n % divisor == remainder.

        With fewer shards than processes each process reads all of them and keeps every world_size-th example.
        """
        if self.shards < self.world_size:
            return order, (process, self.world_size)
        return order[process * self.per_process + reader :: self.world_size * self.per_process], (0, 1)


@dataclass(frozen=True)
class StreamStart:
    """Where the readers of one process start, and which of them has the first batch."""

    readers: Readers
    positions: list[dict[str, Any]]
    next_reader: int = 0


def choose_readers(stream: Stream, config: DataConfig, seed: int, world_size: int) -> Readers:
    """One reader for each of the `data.workers`, but no more than there are shards."""
    shards, wanted = shard_count(stream), max(1, config.worker_count)
    per_process = min(wanted, max(1, shards // world_size))
    if per_process < wanted or shards < world_size:
        read = "1 of them reads" if per_process == 1 else f"{per_process} of them read"
        each = (
            "" if shards >= world_size else f", and each process reads every shard for its 1/{world_size} of examples"
        )
        warnings.warn(
            f"{shards} shards are too few for {wanted} workers in each of {world_size} processes: {read}{each}",
            stacklevel=2,
        )
    return Readers(seed, shards, config.shuffle_block, world_size, per_process)


def resume_readers(
    stream: Stream, config: DataConfig, seed: int, rank: int, world_size: int, state: Sequence[dict[str, Any]]
) -> StreamStart:
    """Where process `rank` continues, from what `Batches.state_dict` returned in every process.

    The number of workers is that of the state unless `data.workers` is given. The positions of a state that was saved
    with other shards, seeds or numbers of readers do not apply: then a new pass over the stream begins.
    """
    saved = [entry for entry in state if entry]
    readers = Readers(**saved[0]["layout"]) if saved else None
    if readers is None or readers != _same_but_for_workers(readers, stream, config, seed, world_size):
        readers = choose_readers(stream, config, seed, world_size)
    if not saved:
        return StreamStart(readers, [{} for _ in range(readers.per_process)])
    if len(saved) == world_size and all(entry["layout"] == asdict(readers) for entry in saved):
        return StreamStart(readers, list(saved[rank]["readers"]), saved[rank]["next_reader"])
    passes = [position.get("pass", 0) for entry in saved for position in entry["readers"]]
    warnings.warn(
        f"the stream was saved by {saved[0]['layout']} and is resumed by {asdict(readers)}: a new pass begins",
        stacklevel=2,
    )
    return StreamStart(readers, [{"pass": max(passes) + 1} for _ in range(readers.per_process)])


def _same_but_for_workers(readers: Readers, stream: Stream, config: DataConfig, seed: int, world_size: int) -> Readers:
    per_process = readers.per_process if config.workers is None else max(1, config.workers)
    return Readers(seed, shard_count(stream), config.shuffle_block, world_size, per_process)
