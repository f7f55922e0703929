"""Do batches arrive the same from any number of processes and workers, and do workers survive what the trainer does?"""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from litevae.data import DataConfig, DataError, TrainingData, open_data
from litevae.data.batches import _StepDataset

from .. import children

Grays = Callable[[Tensor], list[int]]
Fill = Callable[[Path, int], list[Path]]


def folder(path: Path, **changes: Any) -> DataConfig:
    return DataConfig(**{"path": str(path), "crop_size": 8, "evaluation_size": 16, "workers": 0, **changes})


def test_any_number_of_processes_and_workers_gives_the_same_samples(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, 9)
    configs = [folder(tmp_path), DataConfig(source="photographs+dead_leaves", crop_size=8, workers=0)]
    for config in configs:
        expected = list(open_data(config, 3).batches(0, 6, 4))
        for world_size in (1, 2, 4):
            ranks = [list(open_data(config, 3).batches(0, 6, 4, rank, world_size)) for rank in range(world_size)]
            for whole, parts in zip(expected, zip(*ranks, strict=True), strict=True):
                assert torch.equal(torch.cat(parts), whole)
    config = folder(tmp_path, workers=2)
    expected = list(open_data(folder(tmp_path), 3).batches(0, 6, 4, 1, 2))
    for got, whole in zip(open_data(config, 3).batches(2, 6, 4, 1, 2), expected[2:], strict=True):
        assert torch.equal(got, whole)


def test_batches_are_uint8_and_counted(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, 3)
    batches = open_data(folder(tmp_path), 0).batches(3, 8, 6, 0, 2)
    assert len(batches) == 5
    first = next(iter(batches))
    assert (first.dtype, first.shape, first.is_contiguous()) == (torch.uint8, (3, 3, 8, 8), True)
    assert batches.state_dict() == {}


def test_torch_s_own_generator_is_left_alone(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, 3)
    data = open_data(folder(tmp_path), 0)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(data.batches(0, 2, 2))
    assert torch.equal(torch.rand(3), expected)


def test_processes_must_share_a_batch_evenly(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, 3)
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 2 processes, got 3"):
        open_data(folder(tmp_path), 0).batches(0, 1, 3, 0, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_skips_reach_the_trainer_s_process_once(tmp_path: Path, fill: Fill, workers: int) -> None:
    paths = fill(tmp_path, 30)
    data = open_data(folder(tmp_path, workers=workers, small_images="refuse"), 0)
    assert data.skipped.total == 0
    paths[3].write_bytes(b"")  # both workers come across it, in every pass
    paths[5].write_bytes(paths[5].read_bytes()[:40])
    batches = data.batches(0, 30, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(batches)
    messages = sorted(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning))
    assert len(messages) == 2
    assert messages[0] == f"skipped (unreadable) {paths[3]}: the file is empty"
    assert messages[1].startswith(f"skipped (unreadable) {paths[5]}: ")
    assert batches.skipped() == data.skipped.by_kind() == {"unreadable": 2}


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("workers", [0, 1])
def test_the_run_ends_when_nothing_usable_is_left(tmp_path: Path, fill: Fill, workers: int) -> None:
    paths = fill(tmp_path, 5)
    batches = open_data(folder(tmp_path, workers=workers), 0).batches(0, 3, 2)
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(DataError) as error:
        list(batches)
    assert str(error.value) == "none of the 4 training images can be used; the warnings above say why"
    assert batches.skipped() == {"unreadable": 4}


@pytest.fixture
def streamed(shards: Callable[..., str]) -> Callable[..., TrainingData]:
    """24 images with the gray values 0 to 23."""
    path = shards([7, 3, 5, 1, 8])

    def open_it(**changes: Any) -> TrainingData:
        options = {"source": "webdataset", "path": path, "streaming": True, "crop_size": 8, "workers": 2}
        return open_data(DataConfig(**{**options, "evaluation_images": 2, "shuffle_block": 3, **changes}), seed=5)

    return open_it


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_it_stopped(streamed: Callable[..., TrainingData], grays: Grays, workers: int) -> None:
    """Whichever worker's turn it is, although the workers are ahead of the trainer."""
    unbroken = [grays(batch) for batch in streamed(workers=workers).batches(0, 17, 2)]
    assert len({gray for batch in unbroken for gray in batch}) == 22
    for stop in (1, 4, 9):
        batches = streamed(workers=workers).batches(0, 17, 2)
        before = []
        for batch in batches:
            before.append(grays(batch))
            if len(before) == stop:
                break
        state = pickle.loads(pickle.dumps([batches.state_dict()]))
        resumed = streamed(workers=workers).batches(stop, 17, 2, state=state)
        assert resumed.state_dict() == state[0]
        assert before + [grays(batch) for batch in resumed] == unbroken


@pytest.mark.parametrize("workers", [0, 2])
def test_first_crops_are_the_run_s_and_move_nothing(tmp_path: Path, fill: Fill, workers: int) -> None:
    fill(tmp_path, 9)
    data = open_data(folder(tmp_path, workers=workers), 3)
    expected = torch.cat(list(open_data(folder(tmp_path), 3).batches(0, 4, 3)))
    found = list(data.first_crops(10, at_once=4))  # up to the next multiple
    assert [len(batch) for batch in found] == [4, 4, 4]
    assert torch.equal(torch.cat(found), expected)


@pytest.mark.parametrize(("workers", "readers"), [(0, 1), (2, 2), (7, 5)])
def test_first_crops_of_a_stream_move_nothing(
    streamed: Callable[..., TrainingData], grays: Grays, workers: int, readers: int, recwarn: pytest.WarningsRecorder
) -> None:
    """Of 5 shards as many are read as there are workers, each no further than is needed."""
    data = streamed(workers=workers, shuffle_block=1000)
    expected = [grays(batch) for batch in streamed(workers=workers, shuffle_block=1000).batches(0, 8, 2, 1, 2)]
    batches = data.batches(0, 8, 2, 1, 2)
    running = iter(batches)
    seen = [grays(next(running))]
    state = batches.state_dict()
    recwarn.clear()
    first, again = ([gray for batch in data.first_crops(5, at_once=1) for gray in grays(batch)] for _ in range(2))
    assert first == again
    assert not [warning for warning in recwarn if "too few" in str(warning.message)]
    assert batches.state_dict() == state
    assert seen + [grays(batch) for batch in running] == expected
    shards = [range(7), range(7, 10), range(10, 15), range(15, 16), range(16, 24)]
    assert sum(bool(set(shard) & set(first)) for shard in shards) >= readers
    samples: Any = data.first_crops(5, at_once=1)._loader.dataset
    assert samples.samples.config.shuffle_block == -(-5 // readers)


def test_processes_share_a_stream(shards: Callable[..., str], grays: Grays) -> None:
    """Two processes of two workers: in one pass each of 32 examples once, but for those that are held out."""
    options = {"crop_size": 8, "workers": 2, "evaluation_size": 16, "holdout": 0.1, "shuffle_block": 3}
    config = DataConfig(source="webdataset", path=shards([4] * 8), streaming=True, **options)  # type: ignore[arg-type]
    held_out = {round((item.image[0, 0, 0].item() + 1) * 127.5) for item in open_data(config, 0).held_out}
    assert len(held_out) > 1
    shown: list[int] = []
    for rank in range(2):
        batches = open_data(config, 0).batches(0, 16, 2, rank, 2)
        for batch in batches:
            state = batches.state_dict()
            if state["readers"][state["next_reader"] - 1]["pass"] == 0:  # of the reader whose batch this is
                shown += grays(batch)
    assert sorted(shown) == sorted(set(range(32)) - held_out)


@pytest.mark.parametrize("source", ["folder", "dead_leaves", "webdataset", "stream"])
def test_what_a_spawned_worker_gets_works(
    source: str, tmp_path: Path, fill: Fill, streamed: Callable[..., TrainingData]
) -> None:
    """Where processes are not forked (other systems, later Pythons) the samples are pickled."""
    fill(tmp_path / "photos", 4)
    data = {
        "folder": lambda: open_data(folder(tmp_path / "photos"), 0),
        "dead_leaves": lambda: open_data(
            DataConfig(source="dead_leaves", crop_size=8, workers=0, evaluation_images=1), 0
        ),
        "webdataset": lambda: streamed(streaming=False, workers=0),
        "stream": lambda: streamed(workers=0),
    }[source]()
    steps: _StepDataset = data.batches(0, 4, 3)._loader.dataset  # type: ignore[assignment]
    copied = pickle.loads(pickle.dumps(steps))
    for step in range(4):
        assert torch.equal(copied[step][0], steps[step][0])


def workers_of_this_process() -> list[Any]:
    return [child for child in multiprocessing.active_children() if child.is_alive()]


def wait_for_the_end_of(workers: list[Any]) -> None:
    for worker in workers:
        worker.join(timeout=20)
    assert not [worker for worker in workers if worker.is_alive()]


def test_workers_ignore_signals_until_the_trainer_leaves(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, 4)
    batches = open_data(folder(tmp_path, workers=1), 0).batches(0, 40, 2)
    expected = list(open_data(folder(tmp_path), 0).batches(0, 40, 2))
    got = []
    for batch in batches:
        got.append(batch)
        if len(got) in (2, 5):
            (worker,) = workers_of_this_process()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(worker.pid, number)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
    wait_for_the_end_of([worker])


def test_leaving_the_loop_ends_the_workers(tmp_path: Path, fill: Fill) -> None:
    fill(tmp_path, 4)
    batches = open_data(folder(tmp_path, workers=2), 0).batches(0, 1000, 2)
    for _ in batches:
        workers = workers_of_this_process()
        assert len(workers) == 2
        break
    wait_for_the_end_of(workers)


def test_the_process_can_end_in_the_middle(tmp_path: Path, fill: Fill) -> None:
    """Multiprocessing sends SIGTERM to its children at exit and waits for them: for ever, if they ignored it."""
    fill(tmp_path, 4)
    script = (
        "import sys\n"
        "from litevae.data import DataConfig, open_data\n"
        f"data = open_data(DataConfig(path={str(tmp_path)!r}, crop_size=8, workers=1), 0)\n"
        "iterator = iter(data.batches(0, 1000, 2))\n"
        "next(iterator)\n"
        "sys.keep = iterator\n"
        "sys.exit(3)\n"
    )
    start = time.monotonic()
    done = children.run([sys.executable, "-c", script], timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert time.monotonic() - start < 50
