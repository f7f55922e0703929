"""Does every shard have one reader in a pass, and are positions used only where they still mean something?"""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from litevae.data.config import DataConfig
from litevae.data.streaming.hub import Stream
from litevae.data.streaming.shard_assignment import Readers, choose_readers, resume_readers, shard_count


def stream(shards: int) -> Stream:
    return Stream(SimpleNamespace(num_shards=shards), "image")


def config(workers: int | None) -> DataConfig:
    return DataConfig(source="dataset", path="x", streaming=True, workers=workers, shuffle_block=8)


@pytest.mark.parametrize(("shards", "world_size", "per_process"), [(8, 2, 2), (9, 2, 3), (5, 5, 1), (40, 3, 4)])
def test_shards_are_dealt_out(shards: int, world_size: int, per_process: int) -> None:
    readers = Readers(0, shards, 8, world_size, per_process)
    order = list(reversed(range(shards)))
    shares = [readers.share(order, process, reader) for process in range(world_size) for reader in range(per_process)]
    assert sorted(shard for share, _ in shares for shard in share) == list(range(shards))
    assert {part for _, part in shares} == {(0, 1)}
    sizes = [len(share) for share, _ in shares]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_fewer_shards_than_processes() -> None:
    readers = Readers(0, 2, 8, 3, 1)
    assert [readers.share([1, 0], process, 0) for process in range(3)] == [([1, 0], (p, 3)) for p in range(3)]


def test_readers_are_as_many_as_workers_or_shards(recwarn: pytest.WarningsRecorder) -> None:
    assert choose_readers(stream(8), config(2), 5, world_size=4) == Readers(5, 8, 8, 4, 2)
    assert choose_readers(stream(8), config(0), 5, world_size=1).per_process == 1
    assert not recwarn
    with pytest.warns(UserWarning, match="8 shards are too few for 4 workers in each of 3 processes: 2 of them read$"):
        assert choose_readers(stream(8), config(4), 5, world_size=3).per_process == 2
    with pytest.warns(UserWarning, match="1 of them reads, and each process reads every shard for its 1/3 of examples"):
        assert choose_readers(stream(2), config(2), 5, world_size=3).per_process == 1


def test_very_many_shards_are_taken_together() -> None:
    assert shard_count(stream(1_000_000)) == 4096


def saved(readers: Readers, passes: list[int], next_reader: int) -> dict[str, Any]:
    return {"layout": asdict(readers), "next_reader": next_reader, "readers": [{"pass": number} for number in passes]}


def test_a_fresh_run_starts_at_the_beginning() -> None:
    start = resume_readers(stream(8), config(2), 0, rank=0, world_size=1, state=[])
    assert (start.positions, start.next_reader) == ([{}, {}], 0)
    # A run that was trained on something else before has states that say nothing.
    assert resume_readers(stream(8), config(2), 0, rank=0, world_size=1, state=[{}]).positions == [{}, {}]


@pytest.mark.parametrize("workers", [2, None])
def test_resumed_with_the_same_readers(workers: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where data.workers is not given, another machine's number of CPUs changes nothing."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(7)))
    readers = Readers(3, 8, 8, 2, 2)
    state = [saved(readers, [4, 5], 1), saved(readers, [6, 7], 0)]
    for rank in range(2):
        start = resume_readers(stream(8), config(workers), 3, rank=rank, world_size=2, state=state)
        assert start.readers == readers
        assert start.positions == state[rank]["readers"]
        assert start.next_reader == state[rank]["next_reader"]


@pytest.mark.parametrize(
    ("shards", "workers", "seed", "world_size"), [(9, 2, 3, 2), (8, 1, 3, 2), (8, 2, 4, 2), (8, 2, 3, 1), (8, 2, 3, 4)]
)
def test_anything_else_begins_a_new_pass(shards: int, workers: int, seed: int, world_size: int) -> None:
    readers = Readers(3, 8, 8, 2, 2)
    state = [saved(readers, [4, 5], 1), saved(readers, [6, 7], 0)]
    with pytest.warns(UserWarning, match="is resumed by .*: a new pass begins"):
        start = resume_readers(stream(shards), config(workers), seed, rank=0, world_size=world_size, state=state)
    assert start.positions == [{"pass": 8}] * workers
    assert start.next_reader == 0


def test_the_state_of_one_process_is_not_enough_for_two() -> None:
    state = [saved(Readers(3, 8, 8, 2, 2), [4, 5], 1)]
    with pytest.warns(UserWarning, match="a new pass begins"):
        assert resume_readers(stream(8), config(2), 3, rank=0, world_size=2, state=state).positions[0] == {"pass": 6}
