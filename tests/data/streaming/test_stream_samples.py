"""Is nothing in a stream lost, doubled or leaked between passes, readers and interruptions?"""

import bisect
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from litevae.data.config import DataConfig
from litevae.data.errors import DataError, Skip
from litevae.data.streaming import hub, stream_samples
from litevae.data.streaming.hub import Stream
from litevae.data.streaming.shard_assignment import Readers, StreamStart
from litevae.data.streaming.stream_samples import StreamSamples, content_digest, spread_examples, usable_examples

Grays = Callable[[Tensor], list[int]]
COUNTS = [7, 3, 5, 1, 6]  # images per shard


@pytest.fixture(params=["tar", "parquet"])
def stream(
    request: pytest.FixtureRequest, shards: Callable[..., str], parquet: Callable[..., str], png: Callable[..., bytes]
) -> Stream:
    """22 images with the gray values 0 to 21 in shards of different sizes."""
    if request.param == "tar":
        folder = shards(COUNTS)
        return hub.open_shard_stream(sorted(str(path) for path in Path(folder).iterdir()), None)
    files = [[png(sum(COUNTS[:shard]) + at) for at in range(count)] for shard, count in enumerate(COUNTS)]
    return hub.open_row_stream(DataConfig(source="dataset", path=parquet(files), streaming=True), "train")


def config(**changes: Any) -> DataConfig:
    return DataConfig(
        **{"source": "dataset", "path": "x", "streaming": True, "crop_size": 8, "shuffle_block": 4, **changes}
    )


CONFIG = config()


class Reader:
    """One reader of a stream, as it runs in a worker."""

    def __init__(
        self,
        stream: Stream,
        readers: Readers,
        process: int = 0,
        worker: int = 0,
        position: dict[str, Any] | None = None,
        held_out: set[bytes] | None = None,
        config: DataConfig | None = None,
    ) -> None:
        positions = [position or {} for _ in range(readers.per_process)]
        self.samples = StreamSamples(
            stream, config or CONFIG, StreamStart(readers, positions), process, held_out or set()
        )
        self.worker = worker

    def take(self, count: int) -> list[int]:
        return [self.next() for _ in range(count)]

    def next(self) -> int:
        original = stream_samples.get_worker_info
        stream_samples.get_worker_info = lambda: SimpleNamespace(id=self.worker)  # type: ignore[assignment, return-value]
        try:
            return int(self.samples.crop(0)[0, 0, 0])
        finally:
            stream_samples.get_worker_info = original

    def take_pass(self, number: int) -> list[int]:
        """What it reads in one pass, the first it is asked for included."""
        values = []
        while True:
            value = self.next()
            if self.samples.position()["pass"] > number:
                return values
            if self.samples.position()["pass"] == number:
                values.append(value)


@pytest.mark.parametrize(("world_size", "per_process"), [(1, 1), (1, 2), (2, 2), (5, 1), (3, 1), (7, 1)])
def test_a_pass_is_every_example_once(stream: Stream, world_size: int, per_process: int) -> None:
    readers = Readers(0, 5, 4, world_size, per_process)
    orders = []
    for number in (0, 2):
        seen = [
            value
            for process in range(world_size)
            for worker in range(per_process)
            for value in Reader(stream, readers, process, worker).take_pass(number)
        ]
        assert sorted(seen) == list(range(22))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_order_depends_on_the_seed_and_nothing_else(stream: Stream) -> None:
    first = Reader(stream, Readers(0, 5, 4, 1, 1)).take(50)
    assert Reader(stream, Readers(0, 5, 4, 1, 1)).take(50) == first
    assert Reader(stream, Readers(1, 5, 4, 1, 1)).take(50) != first


def test_blocks_are_shuffled(stream: Stream) -> None:
    """With blocks of 1 a shard comes in its own order, with one block for all the shards are mixed."""
    in_order = Reader(stream, Readers(0, 5, 1, 1, 1), config=config(shuffle_block=1)).take_pass(0)
    assert sum(a + 1 == b for a, b in itertools.pairwise(in_order)) >= 22 - 1 - 5
    mixed = Reader(stream, Readers(0, 5, 100, 1, 1), config=config(shuffle_block=100)).take_pass(0)
    assert sum(a + 1 == b for a, b in itertools.pairwise(mixed)) < 6


@pytest.mark.parametrize(("world_size", "per_process"), [(1, 1), (1, 2), (7, 1)])
def test_resumed_anywhere_it_goes_on_as_if_unbroken(stream: Stream, world_size: int, per_process: int) -> None:
    """Through passes, shards and blocks; the position goes through a checkpoint file that executes nothing."""
    readers = Readers(0, 5, 4, world_size, per_process)
    process, worker = world_size - 1, per_process - 1
    length = 50 // (world_size * per_process)
    unbroken = Reader(stream, readers, process, worker).take(length)
    for stop in range(1, length, 3):
        reader = Reader(stream, readers, process, worker)
        assert reader.take(stop) == unbroken[:stop]
        file = io.BytesIO()
        torch.save(reader.samples.position(), file)
        file.seek(0)
        position = torch.load(file, weights_only=True)
        assert Reader(stream, readers, process, worker, position).take(length - stop) == unbroken[stop:]


def test_held_out_examples_are_never_trained_on(stream: Stream) -> None:
    skips: list[Skip] = []
    first = list(itertools.islice(usable_examples(stream, 1, skips.append), 4))
    assert [image.getpixel((0, 0))[0] for _, image in first] == [0, 1, 2, 3]
    assert not skips
    digests = {content_digest(example) for example, _ in first}
    assert sorted(Reader(stream, Readers(0, 5, 4, 1, 1), held_out=digests).take_pass(0)) == list(range(4, 22))
    _, next_one = next(usable_examples(stream, 1, skips.append, digests))
    assert next_one.getpixel((0, 0)) == (4, 4, 4)
    assert len(list(usable_examples(stream, 1, skips.append))) == 22


def test_examples_to_evaluate_come_from_all_shards_in_turn(stream: Stream) -> None:
    """Of 20 four from each shard, and then the rest."""
    skips: list[Skip] = []
    wanted = config(evaluation_images=20, evaluation_size=16)
    found = [image.getpixel((0, 0))[0] for _, image in spread_examples(stream, wanted, skips.append)]
    assert sorted(found) == list(range(22))
    ends = [sum(COUNTS[: shard + 1]) for shard in range(5)]
    first = [bisect.bisect_right(ends, gray) for gray in found[:16]]
    assert sorted(first) == [shard for shard, count in enumerate(COUNTS) for _ in range(min(count, 4))]
    assert all(len(list(group)) in (1, 3, 4) for _, group in itertools.groupby(first))


def test_a_shard_without_examples_to_evaluate_is_not_read_to_its_end(
    tmp_path: Path, write_tar: Callable[..., Path], png: Callable[..., bytes]
) -> None:
    """It is left after 16 / holdout examples."""
    tar = write_tar(tmp_path / "a.tar", [(f"{gray}.png", png(gray)) for gray in range(60)])

    class Recorder(list[bytes]):
        def __contains__(self, digest: object) -> bool:
            self.append(digest)  # type: ignore[arg-type]
            return False

    tried = Recorder()
    stream = hub.open_shard_stream([str(tar)], None)
    assert list(spread_examples(stream, config(holdout=0.5), print, tried)) == []
    assert len(set(tried)) == 32


def test_crop_is_drawn_from_the_number_of_the_sample(parquet: Callable[..., str]) -> None:
    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    pixels = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    Image.fromarray(np.stack([pixels >> 8, pixels & 255, pixels & 0], -1).astype(np.uint8)).save(file, "PNG")
    folder = parquet([[file.getvalue()]])
    stream = hub.open_row_stream(DataConfig(source="dataset", path=folder, streaming=True), "train")
    crops = [
        StreamSamples(stream, config(), StreamStart(Readers(0, 1, 4, 1, 1), [{}]), 0, set()).crop(n) for n in (3, 4, 3)
    ]
    assert torch.equal(crops[0], crops[2])
    assert not torch.equal(crops[0], crops[1])


@pytest.fixture
def damaged(tmp_path: Path, write_tar: Callable[..., Path], png: Callable[..., bytes]) -> Stream:
    """One good shard with two bad files, one shard of bad files, one cut-off shard."""
    good = [("1.png", png(1)), ("2.png", b""), ("3.png", b"text"), ("4.png", png(4)), ("5.png", png(5, 20, 7))]
    paths = [write_tar(tmp_path / "good.tar", good), write_tar(tmp_path / "bad.tar", [("6.png", b"x"), ("7.png", b"")])]
    paths.append(write_tar(tmp_path / "cut.tar", [("8.png", png(8)), ("9.png", png(9))]))
    paths[2].write_bytes(paths[2].read_bytes()[:1100])
    return hub.open_shard_stream([str(path) for path in paths], None)


def test_bad_files_and_shards_are_skipped_and_named(damaged: Stream, tmp_path: Path) -> None:
    reader = Reader(damaged, Readers(0, 3, 4, 1, 1), config=config(small_images="refuse"))
    assert sorted(reader.take_pass(0)) == [1, 4, 8]
    names = {Path(skip.name).relative_to(tmp_path).as_posix(): skip.kind for skip in reader.samples.take_skips()}
    bad = ("good.tar/2.png", "good.tar/3.png", "bad.tar/6.png", "bad.tar/7.png", "cut.tar")
    assert names == {**dict.fromkeys(bad, "unreadable"), "good.tar/5.png": "too small"}


@pytest.mark.parametrize("bad", [b"PAR1 and no parquet", b""])
def test_damaged_parquet_file_is_skipped_and_named(
    parquet: Callable[..., str], png: Callable[..., bytes], bad: bytes
) -> None:
    folder = parquet([[png(3 * shard + at) for at in range(3)] for shard in range(4)])
    (Path(folder) / "train-02.parquet").write_bytes(bad)
    stream = hub.open_row_stream(DataConfig(source="dataset", path=folder, streaming=True), "train")
    readers = Readers(0, 4, 2, 1, 1)
    reader = Reader(stream, readers)
    assert sorted(reader.take_pass(0)) == [0, 1, 2, 3, 4, 5, 9, 10, 11]
    (skip,) = reader.samples.take_skips()
    assert (skip.name, skip.kind) == ("shard 2", "unreadable")
    unbroken = Reader(stream, readers).take(20)
    for stop in range(1, 12, 2):
        reader = Reader(stream, readers)
        reader.take(stop)
        assert Reader(stream, readers, position=reader.samples.position()).take(20 - stop) == unbroken[stop:]


def test_a_reader_of_nothing_but_bad_shards_reads_those_of_others(damaged: Stream) -> None:
    """Three readers of a shard each: in every pass one has the bad one, and goes on with everybody's."""
    readers = Readers(0, 3, 4, 1, 3)
    for worker in range(3):
        taken = Reader(damaged, readers, worker=worker).take(12)
        assert set(taken) <= {1, 4, 5, 8}
        passes = [Reader(damaged, readers, worker=worker) for _ in range(2)]
        for stop in (3, 7):
            passes[0].take(stop)
            position = passes[0].samples.position()
            assert Reader(damaged, readers, worker=worker, position=position).take(4) == passes[0].take(4)
            passes[0] = Reader(damaged, readers, worker=worker)


def test_nothing_usable_ends_the_stream(
    tmp_path: Path, write_tar: Callable[..., Path], png: Callable[..., bytes]
) -> None:
    bad = [str(write_tar(tmp_path / f"{n}.tar", [("a.png", b"x"), ("b.png", png(1))])) for n in range(2)]
    stream = hub.open_shard_stream(bad, None)
    held_out = {content_digest(hub.Encoded("b", png(1)))}
    for worker in range(2):
        reader = Reader(stream, Readers(0, 2, 4, 1, 2), worker=worker, held_out=held_out)
        with pytest.raises(DataError, match=r"none of the 6 examples that were tried last .* held out"):
            reader.next()
    empty = hub.open_shard_stream([str(write_tar(tmp_path / "empty.tar", []))], None)
    with pytest.raises(DataError, match="none of the 0 examples"):
        Reader(empty, Readers(0, 1, 4, 1, 1)).next()
