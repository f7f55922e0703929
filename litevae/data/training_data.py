"""What does a run train on and measure with? The opened data, and its batches for one process.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from litevae.data.batches import Batches
from litevae.data.config import DataConfig
from litevae.data.samples import Samples
from litevae.data.skipped import SkipCounts
from litevae.data.sources import Photo
from litevae.data.streaming.hub import Stream
from litevae.data.streaming.readers import resume_readers
from litevae.data.streaming.streams import StreamSamples


@dataclass
class TrainingData:
    """What `open_data` returns."""

    config: DataConfig
    seed: int
    description: str
    """Such as "12,345 images in 8 tar shards"."""
    held_out: list[Photo]
    """At most `evaluation_images`, whole; `evaluation_view` is how they are measured."""
    skipped: SkipCounts
    """Filled by opening and, as batches arrive, by the workers."""
    samples: Samples | None
    """None: a stream."""
    stream: Stream | None = None
    held_out_digests: set[bytes] = field(default_factory=set)

    def batches(
        self,
        first_step: int,
        last_step: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        state: Sequence[dict[str, Any]] | None = None,
    ) -> Batches:
        """Batches of process `rank` for the steps first_step .. last_step - 1: its part of each batch of batch_size.

        Args:
            state: what `Batches.state_dict` of every process returned, in the order of their ranks. A stream without
                it, or with one of other shards, seeds, blocks or numbers of processes, begins a pass; other sources
                need none.

        Raises:
            ValueError: the processes cannot share a batch evenly.
        """
        if batch_size % world_size:
            raise ValueError(f"batch_size must be a multiple of the {world_size} processes, got {batch_size}")
        steps = range(first_step, last_step)
        if self.samples is not None:
            return Batches(
                self.samples,
                self.skipped,
                steps=steps,
                batch_size=batch_size,
                rank=rank,
                world_size=world_size,
                workers=self.config.worker_count,
                pin_memory=pin_memory,
            )
        assert self.stream is not None
        start = resume_readers(self.stream, self.config, self.seed, rank, world_size, state or [])
        return Batches(
            StreamSamples(self.stream, self.config, start, rank, self.held_out_digests),
            self.skipped,
            steps=steps,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            workers=0 if self.config.worker_count == 0 else start.readers.per_process,
            pin_memory=pin_memory,
            layout=asdict(start.readers),
            positions=start.positions,
            next_reader=start.next_reader,
        )
