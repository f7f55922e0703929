"""Is a `data` section that no run can have refused, by key, rule and value?"""

import pytest

from litevae.data.config import DataConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"source": "imagenet"},
            "data.source must be one of 'auto', 'photographs', 'folder', 'dataset', 'webdataset', 'dead_leaves'",
        ),
        ({"source": "folder"}, "data.path must be given for data.source=folder, got None"),
        ({"source": "dataset", "path": ""}, "data.path must be given for data.source=dataset, got ''"),
        ({"source": "dead_leaves", "path": "x"}, "data.path must be null for data.source=dead_leaves, got 'x'"),
        (
            {"validation_split": "test"},
            "data.validation_split must be null for data.source=photographs, got 'test'; use data.validation_path",
        ),
        (
            {"source": "dataset", "path": "x", "validation_split": "test", "validation_path": "y"},
            "data.validation_split must be null where data.validation_path is given, got 'test'; give one of the two",
        ),
        ({"crop_size": 0}, "data.crop_size must be at least 1, got 0"),
        ({"resize": 64}, "data.resize must be at least data.crop_size=128 or null, got 64"),
        ({"crop": "middle"}, "data.crop must be one of 'random', 'center', got 'middle'"),
        ({"small_images": "skip"}, "data.small_images must be one of 'upscale', 'refuse', got 'skip'"),
        ({"holdout": 0.0}, "data.holdout must be above 0 and below 1, got 0.0; to hold out images of your choice"),
        ({"holdout_rule": "first"}, "data.holdout_rule must be one of 'hash', 'last', got 'first'"),
        ({"holdout_seed": -1}, "data.holdout_seed must be at least 0, got -1"),
        ({"max_downscale": 0.5}, "data.max_downscale must be at least 1 and at most 64, got 0.5"),
        (
            {"source": "dead_leaves", "crop_size": 32, "dead_leaves_radius": 32},
            "data.dead_leaves_radius must be at least 0.25 and below 32, got 32",
        ),
        (  # as many leaves as there is no memory for
            {"source": "dead_leaves", "crop_size": 256, "dead_leaves_radius": 0.001},
            "data.dead_leaves_radius must be at least 0.25 and below 256, got 0.001",
        ),
        ({"dead_leaves_share": 1.5}, "data.dead_leaves_share must be at least 0 and at most 1, got 1.5"),
        ({"evaluation_size": 8}, "data.evaluation_size must be at least 16, got 8; null keeps the images whole"),
        ({"evaluation_images": 0}, "data.evaluation_images must be at least 1, got 0"),
        ({"shuffle_block": 0}, "data.shuffle_block must be at least 1, got 0"),
        ({"workers": -1}, "data.workers must be at least 0, got -1; null chooses by the number of CPUs"),
    ],
)
def test_wrong_config(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        DataConfig(**change)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def test_auto_is_a_folder_with_a_path_and_the_photographs_without() -> None:
    assert DataConfig().resolved_source == "photographs"
    assert DataConfig(path="x").resolved_source == "folder"
    assert DataConfig(path="x", source="webdataset").resolved_source == "webdataset"


def test_workers_share_the_cpus_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(12)))
    assert [DataConfig().worker_count, DataConfig(path="x").worker_count] == [0, 8]
    assert DataConfig(source="dead_leaves").worker_count == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert DataConfig(path="x").worker_count == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert DataConfig(path="x").worker_count == 1
    assert DataConfig(path="x", workers=5).worker_count == 5


def test_what_is_too_small() -> None:
    assert DataConfig(crop_size=64).smallest_side == 1
    assert DataConfig(crop_size=64, small_images="refuse").smallest_side == 64
    assert DataConfig(crop_size=64, resize=96, small_images="refuse").smallest_side == 96
    refusing = DataConfig(crop_size=64, small_images="refuse", evaluation_size=None)
    assert (refusing.smallest_evaluation_side, DataConfig().smallest_evaluation_side) == (1, 1)
    assert DataConfig(small_images="refuse", evaluation_size=32).smallest_evaluation_side == 32
