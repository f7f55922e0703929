"""The samples of a stream: shards in a seeded order, shuffled block by block, resumed in the middle of a block.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses

A shard can only be read from its front. A shuffle buffer would have to be saved with the run; a block that is read
whole and then permuted is restored from the position where it began.
"""

import hashlib
import itertools
import math
from collections.abc import Callable, Container, Iterator
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from litevae.data.config import DataConfig
from litevae.data.crops import random_crop
from litevae.data.errors import DataError, Skip, one_line, read_or_skip
from litevae.data.images import to_pixels
from litevae.data.streaming.hub import Encoded, Stream
from litevae.data.streaming.shard_assignment import StreamStart, shard_count
from litevae.data.training_samples import Samples
from litevae.seeds import derive_rng

Report = Callable[[Skip], None]


class ShardWalk:
    """The examples of some shards, one shard after the other; reading can start at a saved position."""

    def __init__(
        self, stream: Stream, shards: list[int], part: tuple[int, int], position: dict[str, Any] | None = None
    ) -> None:
        self.stream, self.shards, self.part = stream, shards, part
        self._at, self._number, within = 0, 0, None
        if position is not None:
            self._at, self._number, within = position["at"], position["number"], position["within"]
        self._open(within)

    def position(self) -> dict[str, Any]:
        """Plain values, from which another walk over the same shards continues."""
        return {"at": self._at, "number": self._number, "within": self._rows.state_dict() if self._number else None}

    def take(self, count: int) -> list[Encoded]:
        """The next `count` examples, fewer at the end. What is left of a damaged shard is one without content."""
        examples: list[Encoded] = []
        while len(examples) < count and self._at < len(self.shards):
            try:
                row = next(self._iterator, None)
            except Exception as error:  # readers of files and file systems raise errors of their own
                row = None
                examples.append(Encoded(f"shard {self.shards[self._at]}", damage=one_line(error)))
            if row is None:
                self._at, self._number = self._at + 1, 0
                self._open(None)
                continue
            cells = {name: cells[0] for name, cells in row.items()}
            examples.append(self.stream.encoded(cells, self.shards[self._at], self._number))
            self._number += 1
        return examples

    def _open(self, within: dict[str, Any] | None) -> None:
        self._rows: Any = None
        self._iterator: Iterator[dict[str, list[Any]]] = iter(())
        if self._at == len(self.shards):
            return
        from datasets.distributed import split_dataset_by_node

        rows = self.stream.rows.shard(shard_count(self.stream), self.shards[self._at])
        remainder, divisor = self.part
        if divisor > 1:
            rows = split_dataset_by_node(rows, rank=remainder, world_size=divisor)
        if within is not None:
            rows.load_state_dict(within)
        # Not iter(rows): in a DataLoader's worker that would split the shards between workers a second time.
        self._rows, self._iterator = rows, rows.iter(batch_size=1)


class StreamSamples(Samples):
    """Sample n is the next usable example of this process and worker; its crop is drawn from (seed, n).

    In one pass all readers together read every example once. A reader that reaches the end of its shards begins its
    next pass without waiting for the others, so shards should be of about the same size. A reader without a usable
    example in its pass reads the shards of all readers for one pass before it raises.
    """

    def __init__(
        self,
        stream: Stream,
        config: DataConfig,
        start: StreamStart,
        process: int,
        held_out: Container[bytes],
    ) -> None:
        super().__init__()
        self.stream, self.config, self.seed = stream, config, start.readers.seed
        self.readers, self.positions = start.readers, start.positions
        self.process, self.held_out = process, held_out
        self._walk: ShardWalk | None = None
        self._tried = 0

    def crop(self, n: int) -> Tensor:
        if self._walk is None:
            self._start()
        return to_pixels(random_crop(self._next(), self.config, derive_rng(self.seed, "crop", n)))

    def position(self) -> dict[str, Any]:
        return {
            "pass": self._pass,
            "everything": self._everything,
            "found": self._found,
            "block": self._block,
            "start": self._block_start,
            "index": self._index,
        }

    def _start(self) -> None:
        worker = get_worker_info()
        self._reader = 0 if worker is None else worker.id
        position = self.positions[self._reader]
        self._pass: int = position.get("pass", 0)
        self._everything: bool = position.get("everything", False)
        self._found: bool = position.get("found", False)
        self._block: int = position.get("block", 0)
        self._open_walk(position.get("start"))
        self._read_block()
        self._index = position.get("index", 0)

    def _open_walk(self, start: dict[str, Any] | None) -> None:
        order = derive_rng(self.seed, "shards", self._pass).permutation(self.readers.shards).tolist()
        shards, part = self.readers.share(order, self.process, self._reader)
        if self._everything:
            shards, part = order, (0, 1)
        self._walk = ShardWalk(self.stream, shards, part, start)

    def _read_block(self) -> None:
        assert self._walk is not None
        self._block_start = self._walk.position()
        examples = self._walk.take(self.config.shuffle_block)
        reader = self.process * self.readers.per_process + self._reader
        rng = derive_rng(self.seed, f"block {self._pass} of reader {reader}", self._block)
        self._examples = [examples[index] for index in rng.permutation(len(examples))]
        self._index = 0

    def _next(self) -> Image.Image:
        while True:
            while self._index < len(self._examples):
                example = self._examples[self._index]
                self._index += 1
                image = self._use(example)
                if image is not None:
                    self._found, self._tried = True, 0
                    return image
            if self._examples:
                self._block += 1
            else:
                self._begin_next_pass()
            self._read_block()

    def _begin_next_pass(self) -> None:
        if self._everything and not self._found:
            raise DataError(
                f"none of the {self._tried} examples that were tried last can be trained on: the warnings above say "
                "why, or they are held out"
            )
        self._everything, self._found = not self._found, False
        self._pass, self._block = self._pass + 1, 0
        self._open_walk(None)

    def _use(self, example: Encoded) -> Image.Image | None:
        self._tried += 1
        example = example.fetch()
        if content_digest(example) in self.held_out:
            return None
        return read_or_skip(example.decode, example.name, self.config.smallest_side, self._skips.append)


def content_digest(example: Encoded) -> bytes:
    """Identifies a held-out example wherever it comes in the stream; b"" if it has no content."""
    return hashlib.blake2b(example.content, digest_size=16).digest() if example.content else b""


def examples(stream: Stream) -> Iterator[Encoded]:
    """All examples of a stream from its front, usable or not."""
    walk = ShardWalk(stream, list(range(shard_count(stream))), (0, 1))
    while taken := walk.take(1):
        yield taken[0]


def usable_examples(
    stream: Stream,
    smallest: int,
    report: Report,
    left_out: Container[bytes] = (),
) -> Iterator[tuple[Encoded, Image.Image]]:
    """The usable examples of a stream from its front, each content once, without those of the digests `left_out`."""
    shards = list(range(shard_count(stream)))
    return _usable(stream, shards, smallest, report, lambda digest: digest not in left_out, set())


def spread_examples(
    stream: Stream, config: DataConfig, report: Report, contents: Container[bytes] | None = None
) -> Iterator[tuple[Encoded, Image.Image]]:
    """Usable examples to evaluate, each content once: those with a digest in `contents`; None: any.

    They come from all shards in turn, since a shard may be of one class: of each its part of `evaluation_images`, then
    what is left. A shard is left where 16 / `holdout` examples in a row are not wanted, which happens to one in e^16.
    """
    order = derive_rng(config.holdout_seed, "held-out shards", 0).permutation(shard_count(stream)).tolist()
    patience = None if contents is None else math.ceil(16 / config.holdout)
    seen = set[bytes]()
    for most in (math.ceil(config.evaluation_images / len(order)), None):
        for shard in order:
            found = _usable(
                stream,
                [shard],
                config.smallest_evaluation_side,
                report,
                lambda digest: contents is None or digest in contents,
                seen,
                patience,
            )
            yield from itertools.islice(found, most)


def _usable(
    stream: Stream,
    shards: list[int],
    smallest: int,
    report: Report,
    is_wanted: Callable[[bytes], bool],
    seen: set[bytes],
    patience: int | None = None,
) -> Iterator[tuple[Encoded, Image.Image]]:
    """The usable examples of some shards whose digests are wanted and not in `seen`, to which they are added."""
    walk, missed = ShardWalk(stream, shards, (0, 1)), 0
    while missed != patience and (examples := walk.take(1)):
        example, missed = examples[0].fetch(), missed + 1
        digest = content_digest(example)
        if digest in seen or not is_wanted(digest):
            continue
        image = read_or_skip(example.decode, example.name, smallest, report)
        if image is not None:
            seen.add(digest)
            missed = 0
            yield example, image
